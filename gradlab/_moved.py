"""Modules that have moved: their old paths work until `REMOVAL`, with a DeprecationWarning.

`MOVED` is the table, old path to new path. A finder behind all others reads it, so a module that
exists is never hidden, and nothing is loaded before its old path is used.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from gradlab.version import REMOVAL

__all__ = ["MOVED", "install"]

MOVED = {
    "adapted": "loss.adapted",
    "atlas": "figures.atlas.rows",
    "cli.reporting": "cli.train_runs",
    "cli.sweep_results": "cli.sweep_store",
    "dependence": "verification.dependence",
    "deviations": "verification.deviation_sums",
    "diagnosis": "loss.diagnosis",
    "dominance": "comparison.dominance",
    "draws": "user_code.under_test",
    "eligibility": "comparison.eligibility",
    "estimators.affine": "estimators._affine",
    "estimators.antithetic": "estimators.arm",
    "estimators.binary": "estimators._two_classes",
    "estimators.binary_zgr": "estimators.second_order",
    "estimators.control_network": "estimators._control_network",
    "estimators.copula": "estimators._copula",
    "estimators.coupled": "estimators.arsm",
    "estimators.coupled_uniforms": "estimators.arms",
    "estimators.gumbel_product": "estimators._gumbel_product",
    "estimators.reinmax": "estimators.second_order",
    "estimators.relaxed_control": "estimators.rebar",
    "estimators.relaxed_pair": "estimators._relaxed_pair",
    "estimators.states": "estimators._configurations",
    "estimators.tempered": "estimators.straight_through",
    "evidence": "verification.evidence",
    "exact.bias": "verification.exact_bias",
    "exact.static": "verification.jacobian_conditions",
    "exact.trained": "verification.trained_mean",
    "exact_tests": "user_code.exact_tests",
    "forms": "user_code.forms",
    "frozen": "loss.frozen",
    "gate": "loss.gate",
    "gumbel_jacobian": "estimators._gumbel_jacobian",
    "gumbel_moments": "estimators._gumbel_moments",
    "gumbel_nodes": "estimators._gumbel_nodes",
    "held": "loss.held",
    "ladder": "verification.order",
    "mean_test": "verification.mean_test",
    "measurement": "comparison.measuring",
    "memory": "loss.memory",
    "nearest": "verification.nearest",
    "parameters": "verification.parameters",
    "planted": "verification.planted_errors",
    "planted_code": "verification.planted_code",
    "plots.atlas": "figures.atlas.plot",
    "plots.ladder": "plots.axes",
    "plots.optimization": "figures.toys.plot",
    "plots.plane": "figures.trade_off.plot",
    "plots.shares": "figures.trade_off.plot",
    "plots.variance": "figures.baselines.plot",
    "plots.zoo": "figures.zoo.plot",
    "problems.digits": "data.digits",
    "problems.logits": "problems.regimes",
    "problems.vae": "problems.tiny_vae",
    "problems.vae_model": "problems.tiny_vae_model",
    "problems.vae_weights": "problems.tiny_vae_weights",
    "processes": "parallel",
    "proofs": "verification.proofs",
    "question": "verification.testable_coordinates",
    "ranking": "comparison.ranking",
    "recommendation": "comparison.recommendation",
    "relations": "verification.identities",
    "remembered": "estimators._remembered",
    "replicates": "user_code.replicates",
    "resemblance": "verification.resemblance",
    "rungs": "verification.rungs",
    "seeded_calls": "user_code.seeded_calls",
    "selection": "comparison.recommending",
    "tables": "text catalogue comparison.report verification.report",
    "training.cost": "nn.clocks",
    "training.datasets": "data.datasets",
    "training.depth": "figures.depth.draws",
    "training.depth_exact": "figures.depth.exact",
    "training.depth_model": "figures.depth.network",
    "training.depth_problem": "figures.depth.task",
    "training.device": "nn.device",
    "training.download": "data.download",
    "training.drift": "figures.toys.drift",
    "training.image_files": "data.image_files",
    "training.kinds": "training.runs",
    "training.layer": "nn.layer",
    "training.probe": "nn.probe",
    "training.quantization": "nn.quantization",
    "training.schedule": "nn.schedule",
    "training.sources": "data.sources",
    "training.timing": "nn.timing",
    "training.toys": "figures.toys.descent",
    "trial": "verification.sequential_test",
    "unmet": "comparison.unmet",
    "usage": "cli.faults",
    "verdict": "verification.verdict",
    "verdict_text": "verification.report",
}
"""Paths below `gradlab`; where a module was divided, all that now hold its names."""


class _Moved:
    """The finder and the loader of old paths: a loaded old path is the new module itself."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, _Moved()) if package == "gradlab" and old in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = [f"gradlab.{name}" for name in MOVED[spec.name.partition(".")[2]].split()]
        _warn(f"{spec.name} has moved to {' and '.join(new)}; the old path goes in {REMOVAL}")
        modules = [importlib.import_module(name) for name in new]
        module = modules[0] if len(modules) == 1 else _joined(spec.name, modules)
        # The import system will write the spec of the old path over this one.
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        if self._spec is not None:
            module.__spec__ = self._spec


def _joined(name: str, modules: list[ModuleType]) -> ModuleType:
    """Return a module that holds the public names of all `modules`."""
    joined = ModuleType(name)
    for module in reversed(modules):
        vars(joined).update((public, getattr(module, public)) for public in module.__all__)
    return joined


def _warn(message: str) -> None:
    """Warn at the line that used the old path, outside of the import system and this package."""
    own = (__file__, sys.modules["gradlab"].__file__)
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename in own or "importlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    where = frame.f_globals
    warnings.warn_explicit(
        message,
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=where.get("__name__", "<unknown>"),
        registry=where.setdefault("__warningregistry__", {}),
    )


def install() -> None:
    """Let the import system find old paths, after all others."""
    if not any(finder is _Moved for finder in sys.meta_path):
        sys.meta_path.append(_Moved)

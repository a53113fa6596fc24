"""gradlab: the truth about gradient estimators for categorical variables.

Exact gradients by enumeration, exact or Monte Carlo moments of every estimator, and the same
estimator objects for training. Names load on first use, so that importing gradlab is cheap.
"""

import importlib.util
import pkgutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradlab import _moved
from gradlab.version import __version__

if TYPE_CHECKING:
    from gradlab.comparison import (
        Recommendation,
        best_temperature,
        compare,
        recommend,
        recommend_from_rows,
    )
    from gradlab.estimators import *  # noqa: F403
    from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
    from gradlab.loss import as_loss, with_parameters
    from gradlab.moments import Moments
    from gradlab.montecarlo import monte_carlo
    from gradlab.nn import CategoricalLayer, GradientProbe
    from gradlab.sweep.grid import Grid
    from gradlab.sweep.running import run_sweep
    from gradlab.sweep.store import sweep_rows
    from gradlab.verification import Ladder, Verdict, verify, verify_order


_FUNCTIONS = "darn gumbel_rao gumbel_softmax gumbel_softmax_st st_zgr straight_through zgr"
_BASES = "Estimator PathwiseEstimator SampleOnlyEstimator SampledValueEstimator ValueEstimator"


def _estimators() -> list[str]:
    """Return the names of all estimators, read off their files: importing them costs seconds."""
    found = []
    for file in sorted(Path(__file__).with_name("estimators").glob("[a-z]*.py")):
        for body in file.read_text(encoding="utf-8").split("\nclass ")[1:]:
            if '\n    name: ClassVar[str] = "' in body:
                found.append(body.partition("(")[0])
    return found


_HOME = {
    "as_loss": "loss",
    "compare": "comparison",
    "exact_gradient": "exact.truth",
    "exact_value": "exact.truth",
    "exact_moments": "exact.truth",
    "Ladder": "verification",
    "verify_order": "verification",
    "Moments": "moments",
    "monte_carlo": "montecarlo",
    "best_temperature": "comparison",
    "Recommendation": "comparison",
    "recommend": "comparison",
    "recommend_from_rows": "comparison",
    "Grid": "sweep.grid",
    "run_sweep": "sweep.running",
    "sweep_rows": "sweep.store",
    "CategoricalLayer": "nn",
    "GradientProbe": "nn",
    "Verdict": "verification",
    "verify": "verification",
    "with_parameters": "loss",
    **dict.fromkeys([*_BASES.split(), *_FUNCTIONS.split(), *_estimators()], "estimators"),
    **dict.fromkeys(["ESTIMATORS", "QuadratureError", "parse"], "estimators"),
}

__all__ = ["__version__", *_HOME]


class _Package(ModuleType):
    """This module: subpackages bound to it load their own modules on first use, as it does."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and hasattr(value, "__path__"):
            vars(value).setdefault("__getattr__", partial(_submodule, value.__name__))
            value.__class__ = _Package  # for packages inside it
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
_moved.install()


def _submodule(package: str, name: str) -> ModuleType:
    """Return the module called `name` of a package."""
    full = f"{package}.{name}"
    if name.startswith("_") or importlib.util.find_spec(full) is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = importlib.import_module(full)
    if hasattr(module, "__path__"):
        vars(module).setdefault("__getattr__", partial(_submodule, full))
    return module


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        return _submodule(__name__, name)
    value = getattr(importlib.import_module(f"gradlab.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    modules = {found.name for found in pkgutil.iter_modules(__path__)}  # noqa: F405
    return sorted({*__all__, *modules} - {"__main__", "_moved"})

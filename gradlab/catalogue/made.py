"""The catalogue computed from the classes, for catalogue.json and the pages. This loads torch."""

import inspect
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, get_type_hints

import torch

from gradlab.bounds import ESTIMATORS as BOUNDS
from gradlab.catalogue import CLASSES, REGIMES_OF_ANY, entries
from gradlab.distributions import KSubset, WithoutReplacement
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES, Estimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.structures import Structured
from gradlab.problems import PROBLEMS, REGIMES, SNAPSHOTS, Quadratic
from gradlab.sequences.aggregation import AGGREGATIONS
from gradlab.sequences.catalogue import ALIASES
from gradlab.sequences.catalogue import ESTIMATORS as POLICY_GRADIENTS
from gradlab.sequences.kl_terms import KLS
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.ratios import RATIOS
from gradlab.sequences.sequence_losses import LOSSES
from gradlab.sequences.shipped import POLICIES
from gradlab.sequences.spellings import SPELLINGS
from gradlab.sequences.success_advantages import ADVANTAGES
from gradlab.sequences.tasks import TASKS

__all__ = ["made", "markdown_table", "write", "write_table"]

_ALL = ESTIMATORS | OF_STRUCTURES
# Of estimators that are of structures only, the distributions that they are tried on.
_LAWS = (lambda p: KSubset(p, 2), lambda p: WithoutReplacement(p, 2))
_ABOUT_RATIOS = {
    "none": "No weight.",
    "token": "pi/mu of the token; with a clip it is the loss PPO.",
    "prefix": "The product of pi/mu up to the token; a clip truncates it.",
    "sequence": "The product of pi/mu over the sequence; a clip truncates it.",
    "geometric": "The n-th root of the sequence ratio; with a clip it is the loss GSPO.",
}
_HEAD = "| name | class | exact for | evaluations of f | needs grad f | source |"


def made() -> dict[str, list[dict[str, Any]]]:
    """Return the catalogue computed from the classes, in the form of catalogue.json."""
    kinds = {REGIMES_OF_ANY: REGIMES, "snapshots of vae": SNAPSHOTS}
    return {
        "estimators": [_estimator(cls) for cls in _ALL.values()],
        "bounds": [
            {
                "name": cls.name,
                "class": cls.__name__,
                "aliases": list(cls.aliases),
                "fields": list(cls.written_fields()),
                "source": cls.reference,
            }
            for cls in BOUNDS.values()
        ],
        "problems": [_problem(name) for name in PROBLEMS],
        "regimes": [
            {"regime": name, "of": kind} for kind, names in kinds.items() for name in names
        ],
        "policy-gradients": [_policy_gradient(one) for one in POLICY_GRADIENTS.values()],
        "choices": _choices(),
        "tasks": [
            {"task": name, "about": _capital(_sentence(make).removeprefix("Return "))}
            for name, make in TASKS.items()
        ],
        "policies": [
            {"policy": name + (f":{number.upper()}" if number else ""), "about": _sentence(make)}
            for name, (make, number) in POLICIES.items()
        ],
    }


def write() -> None:
    """Write catalogue.json anew."""
    text = json.dumps(made(), indent=1, ensure_ascii=False)
    Path(__file__).with_name("catalogue.json").write_text(f"{text}\n", encoding="utf-8")
    entries.cache_clear()


def markdown_table() -> str:
    """Return the table of estimators that docs/estimators.md shows, one row per estimator.

    `python -m gradlab.catalogue.made docs/estimators.md` puts it in the place of the table there.

    Returns:
        A table in Markdown; it ends with a line break.

    Example:
        >>> print(markdown_table().splitlines()[2])
        | ST | `StraightThrough()` | degree 1 | 1 | yes | Bengio et al. 2013, arXiv 1308.3432 |
    """
    lines = [_HEAD, "|---|---|---|---|---|---|"]
    for entry, cls in zip(entries()["estimators"], _ALL.values(), strict=True):
        shown = ", ".join(f"{f}={getattr(cls(), f)!r}" for f in entry["fields"])
        exact = {"any": "every f", "0": "constants"}.get(
            entry["degree"], f"degree {entry['degree']}"
        )
        cells = [entry["name"], f"`{entry['class']}({shown})`", exact]
        cells += [str(entry["calls"]), entry["∇f"], entry["source"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(file: Path) -> None:
    """Put the table of estimators in the place of the one that a Markdown file shows."""
    text = file.read_text(encoding="utf-8")
    shown = re.compile(re.escape(_HEAD) + r"\n(\|.*\n)*")
    file.write_text(shown.sub(lambda _: markdown_table(), text), encoding="utf-8")


def _estimator(cls: type[Estimator]) -> dict[str, Any]:
    estimator = cls()
    return {
        "name": cls.name,
        "class": cls.__name__,
        "aliases": list(cls.aliases),
        "fields": list(cls.written_fields()),
        "estimator": str(estimator),
        "degree": "any" if math.isinf(estimator.order) else str(estimator.order),
        "calls": estimator.calls(CLASSES),
        "∇f": "yes" if estimator.needs_gradient else "no",
        "moments": _moments_known(estimator),
        "source": estimator.reference,
    }


def _moments_known(estimator: Estimator) -> str:
    for classes in (CLASSES, 2):  # some are for two classes only
        f, logits = Quadratic.random(1, classes), torch.zeros(1, classes, dtype=torch.float64)
        try:
            Enumeration(f, logits).moments(estimator)
        except NotExactError:
            continue
        return "exact"
    for law in _LAWS if estimator.of_structures else ():
        try:
            Structured(lambda x: x[..., 0], torch.zeros(CLASSES), law).moments(estimator)
        except NotExactError:
            continue
        return "exact"
    return "draws"


def _problem(name: str) -> dict[str, Any]:
    constructor = PROBLEMS[name]
    is_class = isinstance(constructor, type)
    cls = constructor if is_class else get_type_hints(constructor)["return"]
    keywords = [
        parameter.name.upper()
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and not is_class
    ]
    return {"problem": ":".join([name, *keywords[:1]]), "about": _sentence(cls)}


def _policy_gradient(one: PolicyGradient) -> dict[str, Any]:
    # A horizon of 1: the constant of CONST is a factor.
    factor = one.claim(horizon=1).on_policy
    mean = {None: "biased", 1.0: "exact"}.get(factor, "exact up to a factor")
    target = one.claim(horizon=1).target
    return {
        "name": one.name,
        "aliases": [alias for alias, name in ALIASES.items() if name == one.name],
        "advantage": str(one.advantage),
        "aggregation": str(one.aggregation),
        "loss": str(one.loss),
        "mean on policy": mean if target == "J" or factor is None else f"{mean}, of {target}",
        "source": one.source,
    }


def _choices() -> list[dict[str, Any]]:
    """Return the choices of a policy gradient, with all names that are read."""
    tables: dict[str, dict[str, Any]] = {
        "advantage": ADVANTAGES,
        "aggregation": AGGREGATIONS,
        "loss": LOSSES,
        "kl": KLS,
    }
    found = []
    for what, table in tables.items():
        spelled = SPELLINGS["ratio" if what == "loss" else what]
        for name, cls in table.items():
            others = [
                key if of == name else f"{key} = {of}"
                for key, of in spelled.items()
                if of.partition("(")[0] == name
            ]
            about = _sentence(cls)
            names = ", ".join([*cls.aliases, *others])
            found.append({"choice": what, "name": name, "also": names, "about": about})
    ratios = [{"choice": "ratio", "name": r, "also": "", "about": _ABOUT_RATIOS[r]} for r in RATIOS]
    return found + ratios


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(made: Any) -> str:
    """Return the first sentence of a docstring, in one line."""
    return " ".join((inspect.getdoc(made) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    write()
    for name in sys.argv[1:]:
        write_table(Path(name))

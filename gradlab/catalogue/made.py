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

__all__ = ["made", "markdown_table", "write", "write_table"]

_ALL = ESTIMATORS | OF_STRUCTURES
# Of estimators that are of structures only, the distributions that they are tried on.
_LAWS = (lambda p: KSubset(p, 2), lambda p: WithoutReplacement(p, 2))
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
    sentence = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    return {"problem": ":".join([name, *keywords[:1]]), "about": " ".join(sentence.split())}


if __name__ == "__main__":
    write()
    for name in sys.argv[1:]:
        write_table(Path(name))

"""What there is: the estimators with what they declare, and the problems, as tables."""

import inspect
import math
import re
import sys
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import torch

from gradlab.estimators import ESTIMATORS, Estimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.problems import PROBLEMS, REGIMES, SNAPSHOTS, Quadratic

__all__ = ["KEY", "estimator_rows", "markdown_table", "problem_rows", "regime_rows"]

_HEAD = "| name | class | exact for | evaluations of f | needs grad f | source |"
# Evaluations of f are counted for one variable of this many classes, where they depend on it.
CLASSES = 3

KEY = [
    (
        "degree",
        "exact if f is a polynomial of at most this degree in each variable (0: constant f)",
    ),
    ("calls", f"evaluations of f for one draw, at N = 1, C = {CLASSES}"),
    ("∇f", "needs the gradient of f"),
    ("moments", "mean and variance are known exactly, or measured from draws (Monte Carlo)"),
]
"""What the columns of `estimator_rows` mean."""


def estimator_rows() -> pd.DataFrame:
    """Return one row for each estimator: its text with all arguments, and what it declares."""
    return pd.DataFrame(
        {
            "estimator": str(estimator),
            "degree": "any" if math.isinf(estimator.order) else str(estimator.order),
            "calls": estimator.calls(CLASSES),
            "∇f": "yes" if estimator.needs_gradient else "no",
            "moments": _moments_known(estimator),
            "source": estimator.reference,
        }
        for estimator in (cls() for cls in ESTIMATORS.values())
    )


def markdown_table() -> str:
    """Return the table of estimators that docs/estimators.md shows, one row per estimator.

    `python -m gradlab.catalogue docs/estimators.md` puts it in the place of the table there.

    Returns:
        A table in Markdown; it ends with a line break.

    Example:
        >>> print(markdown_table().splitlines()[2])
        | ST | `StraightThrough()` | degree 1 | 1 | yes | Bengio et al. 2013, arXiv 1308.3432 |
    """
    lines = [_HEAD, "|---|---|---|---|---|---|"]
    for name, cls in ESTIMATORS.items():
        estimator = cls()
        exact = "every f" if math.isinf(estimator.order) else f"degree {estimator.order}"
        shown = ", ".join(f"{f}={getattr(estimator, f)!r}" for f in cls.written_fields())
        cells = (
            *(name, f"`{cls.__name__}({shown})`", exact if estimator.order else "constants"),
            *(str(estimator.calls(CLASSES)), "yes" if estimator.needs_gradient else "no"),
            estimator.reference,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _moments_known(estimator: Estimator) -> str:
    for classes in (CLASSES, 2):  # some are for two classes only
        f, logits = Quadratic.random(1, classes), torch.zeros(1, classes, dtype=torch.float64)
        try:
            Enumeration(f, logits).moments(estimator)
        except NotExactError:
            continue
        return "exact"
    return "draws"


def problem_rows() -> pd.DataFrame:
    """Return one row per problem.

    Returns:
        Columns `problem`, its name with its argument if it takes one, and `about`, one sentence.

    Example:
        >>> problem_rows()["problem"].tolist()[:3]
        ['constant', 'linear', 'multilinear']
    """
    table = []
    for name, constructor in PROBLEMS.items():
        is_class = isinstance(constructor, type)
        cls = constructor if is_class else get_type_hints(constructor)["return"]
        keywords = [
            parameter.name.upper()
            for parameter in inspect.signature(constructor).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and not is_class
        ]
        sentence = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        table.append((":".join([name, *keywords[:1]]), " ".join(sentence.split())))
    return pd.DataFrame(table, columns=["problem", "about"])


def regime_rows() -> pd.DataFrame:
    """Return one row per kind of logits.

    Returns:
        Columns `regime`, its name, and `of`: the regimes of logits of any problem, or the snapshots
        of the tiny VAE, which are written `vae:NAME`.

    Example:
        >>> regime_rows()["regime"].tolist()[:3]
        ['uniform', 'moderate', 'peaked']
    """
    kinds = {"regimes of logits": REGIMES, "snapshots of vae": SNAPSHOTS}
    pairs = [(name, kind) for kind, names in kinds.items() for name in names]
    return pd.DataFrame(pairs, columns=["regime", "of"])


def _write(file: Path) -> None:
    """Put the table of estimators in the place of the one that a Markdown file shows."""
    text = file.read_text(encoding="utf-8")
    shown = re.compile(re.escape(_HEAD) + r"\n(\|.*\n)*")
    file.write_text(shown.sub(lambda _: markdown_table(), text), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        _write(Path(name))

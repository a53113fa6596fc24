"""What there is: the estimators with what they declare, and the problems, as tables."""

import inspect
import math
from typing import get_type_hints

import pandas as pd
import torch

from gradlab.estimators import ESTIMATORS, Estimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.problems import PROBLEMS, Quadratic

__all__ = ["KEY", "estimator_rows", "problem_table"]

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


def _moments_known(estimator: Estimator) -> str:
    for classes in (CLASSES, 2):  # some are for two classes only
        f, logits = Quadratic.random(1, classes), torch.zeros(1, classes, dtype=torch.float64)
        try:
            Enumeration(f, logits).moments(estimator)
        except NotExactError:
            continue
        return "exact"
    return "draws"


def problem_table() -> list[tuple[str, str]]:
    """Return each problem's name, with its argument if it takes one, and its first sentence."""
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
    return table

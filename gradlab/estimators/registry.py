"""All estimators by their names, and the reading of their text forms.

The classes are found in the files of families: the public classes of `gradlab/estimators/*.py`. A
new estimator needs no entry here.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

from gradlab.estimators.base import Estimator
from gradlab.text_forms import Known, read_form

__all__ = ["ESTIMATORS", "OF_STRUCTURES", "parse"]

# Lists and tables show the estimators in this order; others follow, by family.
_READING_ORDER = (
    *("ST", "DARN", "ZGR", "ST-ZGR", "ST-T", "GST", "GST-p", "ZGR-BIN", "MVE", "MVE-INT"),
    *("ReinMax", "RK2", "GS", "GS-ST", "GR", "DGS-ST", "ReinMax-Rao", "ReinMax-CV"),
    *("ReinMax-CV-pub", "REINFORCE", "EMA", "LEARNED", "RF", "LE", "SAS", "UNORD", "MuProp"),
    *("DoubleCV", "RODEO", "REBAR", "RELAX", "ARSM", "ARS", "CARMS", "ARM", "DisARM", "ARMS"),
    *("SIMPLE", "I-MLE", "TopK", "TopK-ST"),
)


def _classes() -> list[type[Estimator]]:
    """Return the public estimators of all families, in reading order."""
    found = []
    for file in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if file.name.startswith("_") or file.name == "registry":
            continue
        module = importlib.import_module(f"gradlab.estimators.{file.name}")
        values = (getattr(module, name) for name in module.__all__)
        found += [
            value
            for value in values
            if inspect.isclass(value) and issubclass(value, Estimator) and "name" in vars(value)
        ]
    place = {name: number for number, name in enumerate(_READING_ORDER)}
    return sorted(found, key=lambda cls: (place.get(cls.name, len(place)), cls.family))


_ALL: dict[str, type[Estimator]] = {cls.name: cls for cls in _classes()}

ESTIMATORS: dict[str, type[Estimator]] = {
    name: cls for name, cls in _ALL.items() if not cls.of_structures
}
"""Every estimator of independent categorical variables by its short name."""

OF_STRUCTURES: dict[str, type[Estimator]] = {
    name: cls for name, cls in _ALL.items() if cls.of_structures
}
"""Estimators that ask for a `distribution`, by their short names; `parse` reads them too."""

_KNOWN = [
    Known(cls.name, cls.__name__, tuple(cls.aliases), tuple(cls.written_fields()))
    for cls in _ALL.values()
]


def parse(text: str) -> Estimator:
    """Return the estimator that a text names.

    Short names, names of classes and `aliases` are read in any letter case, with or without `-`,
    `_` and spaces. Arguments are keyword numbers; those left out take their defaults. `inf` stands
    for None, as in `k=inf`, the exact mean.

    Args:
        text: Such as `ZGR`, `GR(tau=0.1, k=inf)`, `RLOO` or `LeaveOneOut(m=4)`.

    Returns:
        The estimator. `str(estimator)` is its text form, which `parse` reads back.

    Raises:
        ValueError: The name is unknown (the message names the nearest one), or an argument or its
            value is not allowed.

    Example:
        >>> parse("GR(tau=0.1, k=inf)")
        GR(tau=0.1, k=inf)
        >>> parse("LeaveOneOut(m=4)"), parse("gumbel-rao"), parse("RLOO")
        (RF(m=4), GR(tau=1, k=10), RF(m=2))
    """
    name, arguments = read_form(text, _KNOWN)
    return _ALL[name](**arguments)

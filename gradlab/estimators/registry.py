"""All estimators by their names, and the reading of their text forms.

The classes are found in the files of families: the public classes of `gradlab/estimators/*.py`. A
new estimator needs no entry here.
"""

import ast
import difflib
import importlib
import inspect
import pkgutil
from pathlib import Path

from gradlab.estimators.base import Estimator

__all__ = ["ESTIMATORS", "parse"]

# Lists and tables show the estimators in this order; others follow, by family.
_READING_ORDER = (
    *("ST", "DARN", "ZGR", "ST-ZGR", "ST-T", "GST", "GST-p", "ZGR-BIN", "MVE", "MVE-INT"),
    *("ReinMax", "RK2", "GS", "GS-ST", "GR", "DGS-ST", "ReinMax-Rao", "ReinMax-CV"),
    *("ReinMax-CV-pub", "REINFORCE", "EMA", "LEARNED", "RF", "LE", "SAS", "UNORD", "MuProp"),
    *("DoubleCV", "RODEO", "REBAR", "RELAX", "ARSM", "ARS", "CARMS", "ARM", "DisARM", "ARMS"),
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


ESTIMATORS: dict[str, type[Estimator]] = {cls.name: cls for cls in _classes()}
"""Every estimator by its short name."""


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
    name, bracket, rest = text.strip().partition("(")
    cls = _find(name.strip())
    if not bracket:
        return cls()
    known = cls.written_fields()
    example = f"{cls.name}({', '.join(f'{k}=...' for k in known)})" if known else cls.name
    try:
        call = ast.parse(f"f({rest.replace('inf', 'None')}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        arguments = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
        if len(arguments) < len(call.keywords):  # given twice, or as **
            raise ValueError
    except (SyntaxError, ValueError):
        raise ValueError(f"cannot read estimator {text!r}; write it as {example}") from None
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{cls.name} has no argument {argument!r}; write it as {example}")
    return cls(**arguments)


def _bare(name: str) -> str:
    """Return the name in lower case, without what separates its words."""
    return "".join(c for c in name.lower() if c not in "-_ ")


def _spellings() -> dict[str, type[Estimator]]:
    """Return the estimators by all their names as `_bare` spells them; short names win."""
    by_name: dict[str, type[Estimator]] = {}
    classes = ESTIMATORS.values()
    names = [
        *((cls.name, cls) for cls in classes),
        *((cls.__name__, cls) for cls in classes),
        *((alias, cls) for cls in classes for alias in cls.aliases),
    ]
    for name, cls in names:
        by_name.setdefault(_bare(name), cls)
    return by_name


_SPELLINGS = _spellings()


def _find(name: str) -> type[Estimator]:
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    bare = _bare(name)
    if bare in _SPELLINGS:
        return _SPELLINGS[bare]
    # Short names first, as most typos are of those; of equally near ones the first.
    near = [
        found
        for names, cutoff in (
            ([_bare(n) for n in ESTIMATORS], 0.75),
            (_SPELLINGS, 0.6),
            ([_bare(n) for n in ESTIMATORS], 0.3),
        )
        for found in difflib.get_close_matches(bare, names, n=1, cutoff=cutoff)
    ]
    hint = f"; did you mean {_SPELLINGS[near[0]].name!r}?" if near else "."
    raise ValueError(f"unknown estimator {name!r}{hint} Known: {', '.join(ESTIMATORS)}")

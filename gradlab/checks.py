"""Checks of arguments, written once: whole numbers, one of several names, and sizes.

Each error names the argument, what is wrong with it, and what is allowed.
"""

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "check_averaged",
    "check_choice",
    "check_int",
    "check_known",
    "did_you_mean",
    "too_large",
]


def check_int(
    name: str, value: Any, least: int, most: int | None = None, error: type[ValueError] = ValueError
) -> None:
    """Raise `error` unless `value` is an int from `least` to `most`; True and False are none."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if is_int and least <= value and (most is None or value <= most):
        return
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise error(f"{name} must be an int {allowed}, not {value!r}")


def check_averaged(averaged: float) -> None:
    """Raise ValueError unless `averaged` is a number of draws of at least 1.

    Args:
        averaged: A number; infinity is one.

    Example:
        >>> check_averaged(0.5)
        Traceback (most recent call last):
        ValueError: averaged must be at least 1 draw, not 0.5
    """
    if not averaged >= 1:
        raise ValueError(f"averaged must be at least 1 draw, not {averaged!r}")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError, with the nearest known name, unless `value` is one of `known`."""
    names = tuple(map(str, known))
    if value not in names:
        hint = did_you_mean(value, names)
        raise ValueError(f"{name} must be one of {', '.join(names)}, not {value!r}{hint}")


def check_known(
    what: str, value: Any, known: Iterable[str], error: type[ValueError] = ValueError
) -> None:
    """Raise `error`, with the nearest known name and all of them, unless `value` is known."""
    names = tuple(known)
    if value not in names:
        hint = did_you_mean(value, names)
        raise error(f"unknown {what} {value!r}{hint} (known: {', '.join(names)})")


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'?" for the nearest of `known`, "" if none is near."""
    near = difflib.get_close_matches(str(value), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def too_large(what: str, numbers: float, allowed: float, advice: str = "") -> str:
    """Return why `what` is refused: the numbers that it would hold at once, and the way out."""
    way = f"; {advice}" if advice else ""
    return f"{what} would hold {numbers:.1e} numbers at once (allowed: {allowed:.1e}){way}"

"""The text forms of estimators, such as GR(tau=0.1, k=inf), read by names alone.

The names come from the classes (`gradlab.estimators.registry`), or from the catalogue where torch
should not load.
"""

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Known", "bare", "read_form"]


@dataclass(frozen=True)
class Known:
    """What the text of one estimator may say: its names, and the arguments it takes.

    Attributes:
        name: The short name, such as `GR`.
        class_name: The name of its class.
        aliases: Further names.
        fields: The names of its arguments.
    """

    name: str
    class_name: str
    aliases: tuple[str, ...]
    fields: tuple[str, ...]


def read_form(text: str, known: Sequence[Known]) -> tuple[str, dict[str, Any]]:
    """Return the short name and the arguments that a text form says.

    Args:
        text: Such as `ZGR`, `GR(tau=0.1, k=inf)`, `RLOO` or `LeaveOneOut(m=4)`.
        known: The estimators that there are.

    Returns:
        The short name, and the arguments by their names; `inf` is None. Their values are not
        checked.

    Raises:
        ValueError: The name is unknown (the message names the nearest one), or an argument is.

    Example:
        >>> read_form("gumbel-rao(k=inf)", [Known("GR", "GumbelRao", (), ("tau", "k"))])
        ('GR', {'k': None})
    """
    written, bracket, rest = text.strip().partition("(")
    found = _find(written.strip(), known)
    if not bracket:
        return found.name, {}
    shown = ", ".join(f"{field}=..." for field in found.fields)
    example = f"{found.name}({shown})" if shown else found.name
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
        if argument not in found.fields:
            raise ValueError(f"{found.name} has no argument {argument!r}; write it as {example}")
    return found.name, arguments


def bare(name: str) -> str:
    """Return a name in lower case, without what separates its words; + and @ stay.

    Args:
        name: Any name.

    Example:
        >>> bare("Dr. GRPO")
        'drgrpo'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "+@")


def _bare(name: str) -> str:
    """Return the name in lower case, without what separates its words."""
    return "".join(c for c in name.lower() if c not in "-_ ")


def _spellings(known: Sequence[Known]) -> dict[str, Known]:
    """Return the estimators by all their names as `_bare` spells them; short names win."""
    by_name: dict[str, Known] = {}
    names = [
        *((one.name, one) for one in known),
        *((one.class_name, one) for one in known),
        *((alias, one) for one in known for alias in one.aliases),
    ]
    for name, one in names:
        by_name.setdefault(_bare(name), one)
    return by_name


def _find(name: str, known: Sequence[Known]) -> Known:
    for one in known:
        if name == one.name:
            return one
    spellings, bare = _spellings(known), _bare(name)
    if bare in spellings:
        return spellings[bare]
    # Short names first, as most typos are of those; of equally near ones the first.
    short = [_bare(one.name) for one in known]
    near = [
        found
        for names, cutoff in ((short, 0.75), (spellings, 0.6), (short, 0.3))
        for found in difflib.get_close_matches(bare, names, n=1, cutoff=cutoff)
    ]
    hint = f"; did you mean {spellings[near[0]].name!r}?" if near else "."
    names_of_all = ", ".join(one.name for one in known)
    raise ValueError(f"unknown estimator {name!r}{hint} Known: {names_of_all}")

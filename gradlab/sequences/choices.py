"""What an estimator is composed of: choices with a text form, such as `PPO(low=0.2, high=0.28)`.

A choice is a frozen dataclass. Its text form shows the fields that are not at their defaults, and
`read_choice` reads it back.
"""

from dataclasses import MISSING, fields
from typing import Any, ClassVar, TypeVar

from gradlab.checks import did_you_mean
from gradlab.text_forms import bare

__all__ = ["Choice", "bare", "call_text", "read_call", "read_choice", "read_value"]

T = TypeVar("T", bound="Choice")


class Choice:
    """One of several ways to do a thing, such as to compute an advantage.

    Declares:
        name: The name of the text form.
        aliases: Other names that are read.

    Example:
        >>> from gradlab.sequences.ratios import PPO
        >>> PPO(high=0.28)
        PPO(high=0.28)
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)  # type: ignore[arg-type]
            if field.default is MISSING or getattr(self, field.name) != field.default
        }
        return call_text(self.name, changed)

    def __repr__(self) -> str:
        return str(self)


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """Return `name(argument=value, ...)`, or the name alone without arguments.

    Args:
        name: What is called.
        arguments: Values by their names: numbers, names, choices, None.

    Example:
        >>> call_text("PPO", {"low": 0.1, "dual": None})
        'PPO(low=0.1, dual=none)'
    """
    shown = ", ".join(f"{key}={_value_text(value)}" for key, value in arguments.items())
    return f"{name}({shown})" if shown else name


def _value_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(value)
    return str(value)


def read_call(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the arguments, as texts, of `name(argument=value, ...)`.

    Args:
        text: A text form; values may be text forms with arguments of their own.

    Raises:
        ValueError: The text is not of this form.

    Example:
        >>> read_call("GRPO(loss=PPO(high=0.28), g=8)")
        ('GRPO', {'loss': 'PPO(high=0.28)', 'g': '8'})
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name.strip(), {}
    if not rest.endswith(")"):
        raise ValueError(f"cannot read {text!r}: a bracket is not closed")
    arguments: dict[str, str] = {}
    for part in _parts(rest[:-1], text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier() or not value.strip():
            raise ValueError(f"cannot read {part.strip()!r} in {text!r}; write argument=value")
        if key.strip() in arguments:
            raise ValueError(f"{key.strip()} is given twice in {text!r}")
        arguments[key.strip()] = value.strip()
    return name.strip(), arguments


def _parts(inside: str, text: str) -> list[str]:
    """Return what stands between the commas that are in no inner bracket."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            raise ValueError(f"cannot read {text!r}: a bracket is closed twice")
        if letter == "," and depth == 0:
            parts.append(inside[start:place])
            start = place + 1
    if depth:
        raise ValueError(f"cannot read {text!r}: a bracket is not closed")
    parts.append(inside[start:])
    return [part for part in parts if part.strip()]


def read_value(text: str) -> Any:
    """Return the number, bool, None or name that a text is.

    Args:
        text: Such as `0.2`, `8`, `none`, `true` or `sequence`.

    Example:
        >>> [read_value(text) for text in ("8", "0.2", "none", "true", "sequence")]
        [8, 0.2, None, True, 'sequence']
    """
    words = {"none": None, "inf": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def read_choice(what: str, given: "T | str", known: "dict[str, type[T]]") -> T:
    """Return the choice that a text names; a choice is returned as it is.

    Args:
        what: What is chosen, for messages.
        given: A choice or its text form.
        known: The classes by their names.

    Raises:
        ValueError: The name or an argument is unknown; the message names the nearest one.

    Example:
        >>> from gradlab.sequences.sequence_losses import LOSSES
        >>> read_choice("loss", "ppo(high=0.28)", LOSSES)
        PPO(high=0.28)
    """
    if not isinstance(given, str):
        return given
    name, arguments = read_call(given)
    spelled = {bare(n): c for c in known.values() for n in (*c.aliases, c.__name__, c.name)}
    cls = spelled.get(bare(name))
    if cls is None:
        hint = did_you_mean(name, known) or did_you_mean(bare(name), spelled)
        raise ValueError(f"unknown {what} {name!r}{hint} (known: {', '.join(known)})")
    allowed = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in arguments:
        if key not in allowed:
            takes = f"; it takes {', '.join(allowed)}" if allowed else "; it takes none"
            raise ValueError(
                f"{cls.name} has no argument {key!r}{did_you_mean(key, allowed)}{takes}"
            )
    return cls(**{key: read_value(value) for key, value in arguments.items()})

"""HTML as text: every word that is not markup is escaped, wherever it came from.

Text becomes `Markup` in one place, `element`, which escapes; JSON has its own `json_text`.
"""

import html
import json
import math
from collections.abc import Iterable
from typing import Any

__all__ = ["Markup", "element", "joined", "json_text", "number_text"]

_VOID = ("meta", "input", "br")


class Markup(str):
    """Text that is HTML already, and is not escaped again."""


def element(kind: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element; children that are not `Markup` are escaped, None is left out.

    Args:
        kind: The name of the element.
        children: Text or `Markup`.
        attributes: An underscore in a name becomes a hyphen, and one at its end is dropped. None
            and False leave an attribute out; True writes it without a value.

    Returns:
        The element.

    Example:
        >>> element("p", "a < b", class_="note", hidden=True)
        '<p class="note" hidden>a &lt; b</p>'
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if kind in _VOID:
        return Markup(f"<{kind}{written}>")
    inside = "".join(
        c if isinstance(c, Markup) else html.escape(str(c)) for c in children if c is not None
    )
    return Markup(f"<{kind}{written}>{inside}</{kind}>")


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Return parts behind each other, those that are not `Markup` escaped.

    Args:
        parts: Text or `Markup`.
        between: Text that stands between two of them.

    Returns:
        The parts as one `Markup`.

    Example:
        >>> joined(["a<b", element("b", "c")], ", ")
        'a&lt;b, <b>c</b>'
    """
    texts = [part if isinstance(part, Markup) else html.escape(str(part)) for part in parts]
    return Markup(html.escape(between).join(texts))


def json_text(value: Any) -> Markup:
    """Return JSON that may stand inside a script element, whatever texts it holds.

    Args:
        value: What `json` can write. Numbers that are not finite must be None.

    Returns:
        The JSON, in which no `<`, `>`, `&` or line separator of Unicode is left.

    Example:
        >>> json_text({"name": "</script>"})
        '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # A lone half of a pair cannot be written as UTF-8.
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))


def number_text(value: object) -> str:
    """Return a number to four digits, as pages show it; what is not finite is empty.

    Args:
        value: A number, None or NaN.

    Returns:
        The text.

    Example:
        >>> number_text(0.123456), number_text(1e-7), number_text(20000), number_text(math.inf)
        ('0.1235', '1.000e-7', '20000', '')
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        rounded = float(f"{value:.4g}") if value != int(value) else value
        return f"{int(rounded)}" if rounded == int(rounded) else repr(rounded)
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{mantissa}e{int(power)}"

"""Which numbers and comparisons of a page no test looks at.

`asserted` finds the texts that the tests of pages look for, `findings.py` holds the others, and
`unclaimed` names what is in neither.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from findings import DEFINED, FINDINGS, GALLERY
from pages import text

__all__ = ["asserted", "plain", "unclaimed"]


def plain(page: str) -> str:
    """Return the prose of a page on one line: without code, tables, boxes, links and headings."""
    prose = re.sub(r"\A---\n.*?\n---\n", "", text(page), flags=re.S)
    prose = re.sub(r"^(`{3,}|:{3,}).*?^\1\s*$", "", prose, flags=re.S | re.M)
    prose = re.sub(r"^\s*(\||#).*$", "", prose, flags=re.M)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    prose = re.sub(r"^\d+\. ", "", prose, flags=re.M)
    return " ".join(prose.split())


def asserted(folder: Path) -> list[re.Pattern[str]]:
    """Return what the tests of a folder look for in pages: texts, with gaps for their values."""
    files = [file for file in sorted(folder.glob("test_*.py")) if file.stem != "test_findings"]
    return [pattern for file in files for pattern in _texts(file)]


def _texts(file: Path) -> Iterator[re.Pattern[str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[^|]{1,40}?"
                for part in node.values
            ]
            letters = sum(len(str(p.value)) for p in node.values if isinstance(p, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts, letters = [re.escape(node.value)], len(node.value)
        else:
            continue
        if letters >= 9 and "\n" not in "".join(parts):
            # A gap at an end takes one number, with its unit.
            body = "".join(parts)
            # A full stop behind a value is not its decimal point.
            body = body.replace("?\\.", "?\\.(?!\\d)")
            body = re.sub(r"^\[\^\|\]\{1,40\}\?", r"(?:[\\d.,]+(?: %)?)?", body)
            body = re.sub(r"\[\^\|\]\{1,40\}\?$", r"[\\d.,]*\\d(?: %)?", body)
            yield re.compile(body)


_NUMBER = re.compile(r"(?<![\w.^(=/-])-?\.?\d[\d,]*(?:\.\d+)?(?: %)?")
_RESULT = re.compile(r"(?<![\w.^(=/-])-?(?:\d[\d,]*(?:\.\d+)? %|\d*\.\d+(?![\w.]))")
_COMPARED = re.compile(
    r"\b(?:best|better|worst|worse|most|least|smallest|largest|slowest|fastest|ahead|leads|trails|"
    r"follows|fails|exact up to|biased from|approaches|grows|falls|overtakes|lie on)\b"
)


def unclaimed(page: str, patterns: list[re.Pattern[str]]) -> list[str]:
    """Return the sentences of a page with a number, or in the gallery a comparison, untested."""
    prose = plain(page)
    taken = [m.span() for pattern in patterns for m in pattern.finditer(prose)]
    known = [said for of, said, _ in FINDINGS if of == page] + [*DEFINED.get(page, {})]
    taken += [m.span() for said in known for m in re.finditer(re.escape(said), prose)]
    code = [m.span() for m in re.finditer(r"`[^`]*`", prose)]
    found = []
    for sentence in re.finditer(r".+?(?:[.:?!](?= [A-Z*\[`<]|$)|$)", prose):
        start, end = sentence.span()
        inside = [(a, b) for a, b in taken if a < end and b > start]
        numbers = _NUMBER if page == GALLERY else _RESULT
        marks = [m.span() for m in numbers.finditer(prose, start, end)]
        marks = [s for s in marks if not any(a <= s[0] < b for a, b in code)]
        loose = [s for s in marks if not any(a <= s[0] and s[1] <= b for a, b in inside)]
        compares = page == GALLERY and _COMPARED.search(sentence[0]) and not inside
        if loose or compares:
            found.append(sentence[0].strip())
    return found

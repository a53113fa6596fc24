"""What a page of the documentation is made of: blocks of code, links, and its text.

`python tests/docs/pages.py PAGE...` writes anew what the blocks of these pages print into the boxes
below them.
"""

import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# Folders of pages that are made when the site is built: each with the module that makes it.
GENERATED = {
    "api": "api.py",
    "estimators": "cards.py",
    "notebooks": "notebooks.py",
    "pictures": "gallery.py",
}

WRITTEN = [
    page.relative_to(ROOT).as_posix()
    for page in sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
    if page.parent == ROOT or page.relative_to(DOCS).parts[0] not in {"_build", *GENERATED}
]
"""README and every page that somebody wrote, as seen from the root."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A block of code of a page, and the text in the box right below it, which it prints."""

    page: str
    number: int
    language: str
    code: str
    shown: str | None

    def __str__(self) -> str:
        return f"{self.page.removeprefix('docs/')}-{self.number}"


def text(page: str) -> str:
    """Return a page as it is written."""
    return (ROOT / page).read_text(encoding="utf-8")


def sentences(page: str) -> str:
    """Return a page with its lines joined."""
    return " ".join(text(page).split())


def blocks(language: str) -> list[Block]:
    """Return all blocks in a language, numbered from 1 on each page."""
    found = []
    for page in WRITTEN:
        of_page = [m for m in _BLOCK.finditer(text(page)) if m[1] == language]
        found += [Block(page, k, language, m[2], m[3]) for k, m in enumerate(of_page, 1)]
    return found


def links(page: str) -> list[str]:
    """Return where the links of a page lead inside the repository, as seen from the root."""
    prose = re.sub(r"^```.*?^```", "", text(page), flags=re.S | re.M)
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose)
    folder = (ROOT / page).parent
    return [(folder / target).resolve().relative_to(ROOT).as_posix() for target in targets]


def is_generated(path: str) -> bool:
    """Return whether the site makes this page, by a module that is there."""
    first, _, rest = path.removeprefix("docs/").partition("/")
    maker = GENERATED.get(first)
    return bool(
        path.startswith("docs/") and rest and maker and (DOCS / "_generate" / maker).exists()
    )


def refilled(page: str) -> str:
    """Return a page with what its blocks of Python print in the boxes right below them."""

    def run(match: re.Match[str]) -> str:
        if match[1] != "python" or match[3] is None:
            return match[0]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(match[2], {"__name__": "page"})
        head = match[0].rpartition("```text\n")[0]
        return f"{head}```text\n{printed.getvalue()}```\n"

    return _BLOCK.sub(run, text(page))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        (ROOT / name).write_text(refilled(name), encoding="utf-8")

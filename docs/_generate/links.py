"""Links to files outside of docs/, as a code host shows them, lead to the pages made of them."""

import re
from pathlib import Path

from sphinx.application import Sphinx

__all__ = ["on_site", "setup"]

_LINK = re.compile(r"(?<=\]\()([^)#:\s]+\.(?:md|ipynb))(?=[)#])")
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "policy.md",
}
"""Files of the root that are pages under another name."""


def on_site(text: str, page: str, docs: Path) -> str:
    """Return a page with its links to files outside of docs/ led to the pages made of them.

    Args:
        text: The page, in Markdown.
        page: Its name, as seen from docs/.
        docs: The folder docs/.

    Returns:
        The text. Links that stay inside docs/ are as they were.
    """
    folder = (docs / page).parent

    def led(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if target.is_relative_to(docs):
            return match[1]
        path = target.relative_to(docs.parent).as_posix()
        up = "../" * page.count("/")
        has_page = path in PAGES or path.startswith("notebooks/")
        return up + PAGES.get(path, path) if has_page else match[1]

    return _LINK.sub(led, text)


def _lead(app: Sphinx, docname: str, source: list[str]) -> None:
    if str(app.env.doc2path(docname)).endswith(".md"):
        source[0] = on_site(source[0], docname, Path(app.srcdir).resolve())


def setup(app: Sphinx) -> None:
    """Register what is done to pages before they are read."""
    app.connect("source-read", _lead)

"""The pages of the site that are made at each build, from the classes and files they are about.

As a Sphinx extension this package writes docs/estimators, docs/api, docs/notebooks and
docs/pictures before the pages are read. Git ignores these folders, so that no generated page can be
older than its source.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from _generate import api, cards, directives, docstrings, gallery, links, notebooks

__all__ = ["setup"]


def _write_pages(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    api.write(docs / "api")
    cards.write(docs / "estimators")
    gallery.write(docs.parent / "figures", docs / "pictures")
    notebooks.write(docs.parent / "notebooks", docs / "notebooks")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is generated."""
    app.connect("builder-inited", _write_pages)
    directives.setup(app)
    docstrings.setup(app)
    gallery.setup(app)
    links.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

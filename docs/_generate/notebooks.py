"""The notebooks as pages: copied as they are stored, outputs included.

A copy lies one folder deeper than its notebook, so its links to other folders lead one step further
up.
"""

from pathlib import Path

from _generate.pages import write_folder

__all__ = ["write"]

_INDEX = """# Notebooks

Each notebook is shown as it is stored, with its outputs. A test runs it and compares them.

```{toctree}
:glob:
:maxdepth: 1

[01]*
```
"""


def write(source: Path, folder: Path) -> None:
    """Write one page for each notebook, and the page that lists them.

    Args:
        source: The folder of the notebooks.
        folder: The folder of pages.
    """
    copies: dict[str, str | bytes] = {
        file.name: file.read_text().replace("](../", "](../../")
        for file in sorted(source.glob("*.ipynb"))
    }
    write_folder(folder, {**copies, "index.md": _INDEX})

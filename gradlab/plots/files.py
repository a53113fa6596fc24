"""A figure on disk: its rows as CSV, and the picture drawn from that CSV as PNG and PDF.

Files appear at once and whole, and hold the same bytes for the same rows.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gradlab.files import writing
from gradlab.plots.style import save, styled

__all__ = ["save_again", "save_with_rows"]


def save_with_rows(
    rows: pd.DataFrame,
    plot: Callable[[pd.DataFrame], Figure],
    folder: Path,
    name: str,
    views: Mapping[str, Callable[[pd.DataFrame], Figure]] | None = None,
) -> list[Path]:
    """Write folder/name.csv, .png and .pdf, and name-VIEW.png and .pdf of further views.

    Whatever interrupts this leaves old files or new ones. The picture is drawn from rows read back,
    so that drawing it again from the CSV changes nothing.

    Args:
        rows: The rows of the figure.
        plot: Returns the figure of the rows.
        folder: Where the files go.
        name: Their name without an ending.
        views: Further pictures of the same rows, by what is added to the name.

    Returns:
        The paths of the files.

    Raises:
        OSError: If a folder cannot be written.
    """
    with writing(folder) as new:
        csv = new / f"{name}.csv"
        # Floats are written with as many digits as it takes to read the same float back.
        rows.to_csv(csv, index=False, lineterminator="\n")
        paths = [csv, *_pictures(csv, plot, new / name, views)]
    return [folder / path.name for path in paths]


def save_again(
    plot: Callable[[pd.DataFrame], Figure],
    folder: Path,
    name: str,
    views: Mapping[str, Callable[[pd.DataFrame], Figure]] | None = None,
) -> list[Path]:
    """Write folder/name.png and .pdf, and those of further views, from folder/name.csv.

    Args:
        plot: Returns the figure of the rows.
        folder: Where the files are.
        name: Their name without an ending.
        views: Further pictures of the same rows, by what is added to the name.

    Returns:
        The paths of the pictures.

    Raises:
        OSError: If there is no CSV, or a folder cannot be written.
    """
    with writing(folder) as new:
        paths = _pictures(folder / f"{name}.csv", plot, new / name, views)
    return [folder / path.name for path in paths]


def _pictures(
    csv: Path,
    plot: Callable[[pd.DataFrame], Figure],
    stem: Path,
    views: Mapping[str, Callable[[pd.DataFrame], Figure]] | None,
) -> list[Path]:
    rows = pd.read_csv(csv, low_memory=False)
    with styled():
        paths = save(plot(rows), stem)
        for added, view in (views or {}).items():
            paths += save(view(rows), stem.with_name(f"{stem.name}-{added}"))
    return paths

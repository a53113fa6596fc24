"""The rows of figures that travel with the package, for notebooks and for what takes long to make.

They are the committed rows, or those of them that the picture shows. Rooms of figures hold them as
committed.csv.xz. After the rows of such a figure have changed, `pack()` writes these files anew.
"""

import io
import lzma
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.files import writing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PACKAGED", "committed", "pack", "packed"]

PACKAGED = ("zoo", "prediction")
"""Figures whose rows travel with the package."""

_FILE = "committed.csv.xz"


def committed(name: str) -> "pd.DataFrame":
    """Return the committed rows of a figure, as they travel with the package.

    Args:
        name: a name of `PACKAGED`. The rows of "prediction" leave out the standard errors of
            single criteria, and the gradients to which the part that is known is added.

    Returns:
        The rows.

    Raises:
        ValueError: if the rows of this figure do not travel with the package.

    Example:
        >>> committed("zoo")["problem"].nunique()
        4
    """
    import pandas as pd

    if name not in PACKAGED:
        known = ", ".join(PACKAGED)
        raise ValueError(f"no rows of {name!r} travel with the package (known: {known})")
    packed = resources.files("gradlab.figures").joinpath(name, _FILE).read_bytes()
    return pd.read_csv(io.BytesIO(packed), compression="xz", low_memory=False)


def packed(name: str, folder: Path = Path("figures")) -> str:
    """Return the text of the CSV that `committed` reads, from the CSV in a folder.

    Args:
        name: a name of `PACKAGED`.
        folder: where NAME.csv is.

    Returns:
        A CSV whose numbers are written as in the folder.

    Raises:
        OSError: if the CSV cannot be read.

    Example:
        >>> packed("zoo").startswith("problem,")  # doctest: +SKIP
        True
    """
    import pandas as pd

    rows = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
    if name == "prediction":
        columns = [column for column in rows if not column.endswith(" se")]
        rows = rows.loc[rows["gradient"] != "whole", columns]
    return rows.to_csv(index=False, lineterminator="\n")


def pack(folder: Path = Path("figures")) -> None:
    """Write the rows that travel with the package, from the CSVs in a folder.

    Args:
        folder: where NAME.csv of each figure of `PACKAGED` is.

    Raises:
        OSError: if a CSV cannot be read, or the package cannot be written.

    Example:
        >>> pack()  # doctest: +SKIP
    """
    for name in PACKAGED:
        room = Path(__file__).parent / name
        with writing(room) as new:
            text = packed(name, folder).encode()
            (new / _FILE).write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))

"""Files that appear at once and whole: whatever interrupts the writing, no half file is left."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["move", "write_tables", "writing"]


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; the files written there move to `folder` when the block ends well.

    An error, a full disk or a kill inside the block leaves the old files of `folder` as they were.
    A kill that no program can catch also leaves the empty folder's own name behind, `.writing-...`.

    Args:
        folder: Where the files shall be. It must exist.

    Raises:
        OSError: `folder` cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> with writing(folder) as new:
        ...     _ = (new / "rows.csv").write_text("a,b")
        >>> [file.name for file in folder.iterdir()]
        ['rows.csv']
    """
    with TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        new = Path(name)
        yield new
        for file in sorted(new.iterdir()):
            move(file, folder / file.name)


def move(new: Path, path: Path) -> None:
    """Put the whole file `new`, which is on the same disk, in the place of `path`.

    The bytes are on the disk before the name is. A file that was there keeps its permissions.

    Args:
        new: The file to move; it is gone afterwards.
        path: Where it shall be. A file there is replaced.

    Raises:
        OSError: The disk is full, or the folder of `path` cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> _ = (folder / "part").write_text("all of it")
        >>> move(folder / "part", folder / "whole")
        >>> (folder / "whole").read_text()
        'all of it'
    """
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    if path.exists():
        new.chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(new, path)


def write_tables(tables: "Mapping[str, pd.DataFrame]", folder: Path) -> list[Path]:
    """Write each table as a CSV file of its name, all of them or none.

    Args:
        tables: The tables by their names, which become `name.csv`.
        folder: Where the files shall be. It must exist.

    Returns:
        The files.

    Raises:
        OSError: The disk is full, or `folder` cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> import pandas as pd
        >>> write_tables({"few": pd.DataFrame({"a": [1]})}, Path(mkdtemp()))[0].read_text()
        'a\\n1\\n'
    """
    with writing(folder) as new:
        for name, table in tables.items():
            # Floats are written with as many digits as it takes to read the same float back.
            table.to_csv(new / f"{name}.csv", index=False, lineterminator="\n")
    return [folder / f"{name}.csv" for name in tables]

"""The rows of a sweep on disk, with the grid and the versions that made them.

One process writes; rows of two grids or two versions are never mixed.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from gradlab.comparison.eligibility import GRADIENT_COST
from gradlab.files import writing
from gradlab.sweep.database import (
    FORMAT,
    TYPES,
    StoreError,
    about,
    blaming,
    check,
    connected,
    insert,
    make,
    put_about,
)

__all__ = ["Store", "StoreError", "migrate", "opened", "read_settings", "sweep_rows", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of everything that decides the bits of a row.

    Returns:
        The versions of gradlab, torch, numpy and scipy.

    Example:
        >>> list(versions())
        ['gradlab', 'torch', 'numpy', 'scipy']
    """
    import numpy
    import scipy
    import torch

    from gradlab.version import __version__

    packages = {"torch": torch, "numpy": numpy, "scipy": scipy}
    return {"gradlab": __version__} | {name: p.__version__ for name, p in packages.items()}


@dataclass(frozen=True)
class Store:
    """An open store of rows; `opened` yields one.

    Args:
        path: The file.
        connection: The connection to its database.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with opened(Path(folder) / "rows.db", {"problems": ["quadratic"]}) as store:
        ...         store.done()
        set()
    """

    path: Path
    connection: sqlite3.Connection

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, all or none of them.

        Args:
            rows: Rows with the columns `gradlab.comparison.rows.SWEPT`.

        Raises:
            StoreError: If a row is already there, or the disk is full.
        """
        with blaming(self.path), self.connection:
            insert(self.connection, rows)

    def done(self) -> set[str]:
        """Return the ids of the cells that have a row."""
        return {cell for (cell,) in self.connection.execute("SELECT cell FROM cells")}

    def remove_failed(self) -> int:
        """Remove the rows with an error, so that they are computed again.

        Returns:
            The number of rows that were removed.
        """
        with blaming(self.path), self.connection:
            return self.connection.execute("DELETE FROM cells WHERE error IS NOT NULL").rowcount


@contextmanager
def opened(
    path: Path, settings: Mapping[str, Any] | None = None, *, extend: bool = False
) -> Iterator[Store]:
    """Yield the store at `path` for writing; it is made if it is not there.

    Args:
        path: The file.
        settings: The settings of the grid, or None for those in the store.
        extend: Whether the grid may have more cells than before; otherwise it must be the same.

    Yields:
        The store.

    Raises:
        StoreError: If the file is damaged or is not a store, belongs to another version or another
            grid, cannot be written, or is open in another process.

    Example:
        >>> with opened(Path("missing.db")) as store:
        ...     store.done()
        Traceback (most recent call last):
        gradlab.sweep.database.StoreError: there is no file missing.db
    """
    if settings is None and not path.exists():
        raise StoreError(f"there is no file {path}")
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a store")
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{path} is being written by another process") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
    try:
        with ExitStack() as stack:
            with blaming(path):
                if not path.exists():
                    make(path, {"settings": settings, "versions": versions()})
                connection = stack.enter_context(closing(connected(path)))
                if check(path, connection) < FORMAT:
                    raise StoreError(
                        f"{path} has format 1, of a gradlab up to 0.4: it is read, not written. "
                        f"{_MIGRATE.format(path)}"
                    )
                _check_versions(path, connection)
                if settings is not None:
                    _check_settings(path, connection, settings, extend)
            yield Store(path, connection)
    finally:
        lock.release()


_MIGRATE = "To continue with this version: gradlab sweep migrate {} NEW.db"


def migrate(old: str | Path, new: str | Path) -> int:
    """Write the rows of an older store to a new one that this version continues.

    Each row keeps the version that made it in its column `version`. Columns that the old store
    lacks are empty. The old store stays as it is.

    Args:
        old: The file of the store, of any format that this version reads.
        new: The file to write.

    Returns:
        The number of rows.

    Raises:
        StoreError: If the old store is missing or damaged, or the new file is there already or
            cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     old, new = Path(folder) / "old.db", Path(folder) / "new.db"
        ...     with opened(old, {"problems": ["quadratic"]}):
        ...         pass
        ...     migrate(old, new), read_settings(new)[0]["problems"]
        (0, ['quadratic'])
    """
    path = Path(new)
    if path.exists():
        raise StoreError(f"{path} is there already: name a new file")
    with _read(old) as source:
        source.row_factory = sqlite3.Row
        known = {"settings": {"gradient_cost": GRADIENT_COST} | about(source, "settings")}
        known |= {"versions": versions(), "migrated": about(source, "versions")}
        rows = source.execute("SELECT * FROM cells")
        missing = dict.fromkeys(TYPES)
        try:
            with writing(path.parent) as folder:
                part = folder / path.name
                with blaming(path):
                    make(part, known)
                    with closing(connected(part)) as connection, connection:
                        insert(connection, (missing | dict(row) for row in rows))
                        (count,) = connection.execute("SELECT COUNT(*) FROM cells").fetchone()
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
    return int(count)


def read_settings(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of the grid of a store, and the versions that made it.

    Args:
        path: The file.

    Returns:
        The settings and the versions.

    Raises:
        StoreError: If the file is missing or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rows.db"
        ...     with opened(path, {"problems": ["quadratic"]}):
        ...         settings, made_with = read_settings(path)
        >>> settings
        {'problems': ['quadratic']}
    """
    with _read(path) as connection:
        return about(connection, "settings"), about(connection, "versions")


def sweep_rows(path: str | Path) -> pd.DataFrame:
    """Return the rows of a store, in the order of its grid; a sweep may be writing to it.

    Args:
        path: The file.

    Returns:
        One row per cell that is there.

    Raises:
        StoreError: If the file is missing or damaged.

    Example:
        >>> import tempfile
        >>> from gradlab import Grid, run_sweep
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = f"{folder}/rows.db"
        ...     _ = run_sweep(Grid(["linear"], ["2x3"], estimators=["ST"]), store, workers=1)
        ...     rows = sweep_rows(store)
        >>> rows[["problem", "N", "C", "estimator", "method"]].to_dict("records")
        [{'problem': 'linear', 'N': 2, 'C': 3, 'estimator': 'ST', 'method': 'exact'}]
    """
    with _read(path) as connection:
        settings = about(connection, "settings")
        rows = pd.read_sql_query("SELECT * FROM cells", connection).reindex(columns=list(TYPES))
    # Of the same type whether or not a cell failed.
    kinds = {name: _KINDS[kind] for name, kind in TYPES.items()}
    rows = rows.astype(kinds | dict.fromkeys(("calls", "draws"), "float64"))
    rows["size"] = rows["N"].astype(str) + "x" + rows["C"].astype(str)
    axes = {"seeds": "logits_seed", "regimes": "regime", "sizes": "size", "problems": "problem"}
    places = pd.DataFrame(
        {
            axis: rows[column].map({value: i for i, value in enumerate(settings[axis])})
            for axis, column in (axes | {"estimators": "estimator"}).items()
        }
    )
    return (
        rows.loc[places.sort_values(list(places)).index].drop(columns="size").reset_index(drop=True)
    )


_KINDS = {"REAL": "float64", "TEXT": "object", "INTEGER": "int64"}


@contextmanager
def _read(store: str | Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a checked store, which reads one state of it whoever writes."""
    path = Path(store)
    if not path.exists():
        raise StoreError(f"there is no file {path}")
    with blaming(path), closing(connected(path, reading=True)) as connection:
        connection.execute("BEGIN")
        check(path, connection)
        yield connection


def _check_versions(path: Path, connection: sqlite3.Connection) -> None:
    there, here = about(connection, "versions"), versions()
    if there != here:
        differences = ", ".join(
            f"{name} {there.get(name)} (here {here.get(name)})"
            for name in dict.fromkeys([*there, *here])
            if there.get(name) != here.get(name)
        )
        raise StoreError(
            f"{path} was made with {differences}. Rows of two versions are not mixed unasked: "
            f"finish it with those versions, or name another store. {_MIGRATE.format(path)}"
        )


def _check_settings(
    path: Path, connection: sqlite3.Connection, settings: Mapping[str, Any], extend: bool
) -> None:
    there = about(connection, "settings")
    differing = [k for k, v in settings.items() if _unordered(v) != _unordered(there.get(k))]
    if not differing:
        return
    grown = all(
        isinstance(settings[key], list) and set(settings[key]) >= set(there[key])
        for key in differing
    )
    if not grown or not extend:
        differences = "; ".join(
            f"{key} {_short(there.get(key))}, here {_short(settings[key])}" for key in differing
        )
        advice = "--extend adds what is new" if grown else "name another store"
        raise StoreError(f"{path} is of another grid: {differences}. {advice.capitalize()}")
    with connection:
        put_about(connection, "settings", settings)


def _unordered(value: Any) -> Any:
    return set(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:45]}... ({len(value)} of them)"

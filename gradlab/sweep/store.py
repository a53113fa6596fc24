"""The rows of a sweep on disk: one SQLite file, with the grid and the versions that made them.

One process writes. Every row carries a checksum, and what was committed survives kill -9: a store
is read whole, or said to be damaged.
"""

import json
import math
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from gradlab.sweep.cells import ROW

__all__ = ["Store", "StoreError", "opened", "read_rows", "read_settings", "versions"]

_FORMAT = 1  # of the tables below
_TEXTS = {"cell", "problem", "regime", "estimator", "series", "method", "reason", "version"}
_TEXTS |= {"dtype", "error"}
_WHOLE = {"N", "C", "logits_seed", "calls", "seed", "draws"}
_TYPES = {
    name: "TEXT" if name in _TEXTS else "INTEGER" if name in _WHOLE else "REAL" for name in ROW
}


class StoreError(OSError):
    """A store that is damaged, of another grid or version, in use, or cannot be written."""


def versions() -> dict[str, str]:
    """Return the versions of all that decides the bits of a row."""
    import numpy
    import scipy
    import torch

    from gradlab import __version__

    packages = {"torch": torch, "numpy": numpy, "scipy": scipy}
    return {"gradlab": __version__} | {name: p.__version__ for name, p in packages.items()}


@dataclass(frozen=True)
class Store:
    """An open store; see `opened`."""

    path: Path
    connection: sqlite3.Connection

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, all or none of them. Raises StoreError if one is there, or the disk is full."""
        values = [tuple(_stored(row[name]) for name in ROW) for row in rows]
        command = f"INSERT INTO cells VALUES ({', '.join('?' * (len(ROW) + 1))})"
        with _blaming(self.path), self.connection:
            self.connection.executemany(command, [(*v, _checksum(v)) for v in values])

    def done(self) -> set[str]:
        """Return the ids of the cells that are there."""
        return {cell for (cell,) in self.connection.execute("SELECT cell FROM cells")}

    def remove_failed(self) -> int:
        """Remove the rows with an error, so that they are computed again; return how many."""
        with _blaming(self.path), self.connection:
            return self.connection.execute("DELETE FROM cells WHERE error IS NOT NULL").rowcount


@contextmanager
def opened(
    path: Path, settings: Mapping[str, Any] | None = None, *, extend: bool = False
) -> Iterator[Store]:
    """Yield the store at `path` for writing, made if it is not there.

    `settings` are of the grid (None: those that are there). Raises StoreError if the file is
    damaged or no store, belongs to another version or another grid, cannot be written, or is open
    in another process. With `extend` the grid may have more cells than before, else it must be the
    same.
    """
    if settings is None and not path.exists():
        raise StoreError(f"there is no {path}")
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{path} is being written by another process") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
    try:
        with _blaming(path), closing(_connected(path, "rwc")) as connection:
            if not connection.execute("SELECT * FROM sqlite_master").fetchone():
                _make(connection, settings or {})
            _check(path, connection)
            _check_versions(path, connection)
            if settings is not None:
                _check_settings(path, connection, settings, extend)
            yield Store(path, connection)
    finally:
        lock.release()


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of the grid, and the versions, of the store at `path`.

    Raises StoreError if there is none, or it is damaged.
    """
    with _read(path) as connection:
        return _of(connection, "settings"), _of(connection, "versions")


def read_rows(path: Path) -> pd.DataFrame:
    """Return the rows of the store at `path`, in the order of its grid; it may be in use.

    Raises StoreError if there is none, or it is damaged.
    """
    with _read(path) as connection:
        settings = _of(connection, "settings")
        rows = pd.read_sql_query(f"SELECT {', '.join(_quoted(ROW))} FROM cells", connection)
    kinds = {"REAL": "float64", "TEXT": "object"}
    rows = rows.astype({name: kinds[kind] for name, kind in _TYPES.items() if kind in kinds})
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


@contextmanager
def _read(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a checked store, which reads one state of it whoever writes."""
    if not path.exists():
        raise StoreError(f"there is no {path}")
    with _blaming(path), closing(_connected(path, "ro")) as connection:
        connection.execute("BEGIN")
        _check(path, connection)
        yield connection


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    # A file without its -wal that lies where nothing can be written is read as it is.
    folder_is_closed = mode == "ro" and not Path(f"{path}-wal").exists()
    rest = "&immutable=1" if folder_is_closed and not os.access(path.parent, os.W_OK) else ""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}{rest}", uri=True)
    if mode != "ro":
        connection.execute("PRAGMA journal_mode = WAL")
        # In this mode a commit survives the death of the process; one lost in a power cut is
        # computed again.
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _make(connection: sqlite3.Connection, settings: Mapping[str, Any]) -> None:
    columns = ", ".join(f"{_quoted([name])[0]} {_TYPES[name]}" for name in ROW[1:])
    with connection:
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT, checksum INTEGER)"
        )
        connection.execute(
            f"CREATE TABLE cells (cell TEXT PRIMARY KEY, {columns}, checksum INTEGER) WITHOUT ROWID"
        )
        for key, value in {"settings": settings, "versions": versions()}.items():
            _put(connection, key, value)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _put(connection: sqlite3.Connection, key: str, value: Any) -> None:
    entry = (key, json.dumps(value))
    connection.execute("REPLACE INTO about VALUES (?, ?, ?)", (*entry, _checksum(entry)))


def _of(connection: sqlite3.Connection, key: str) -> Any:
    (value,) = connection.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
    return json.loads(value)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Raise StoreError unless every page and every row is what was written."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables >= {"about", "cells"}:
        raise StoreError(f"{path} is no store of a sweep")
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if number != _FORMAT:
        raise StoreError(f"{path} has format {number}, this gradlab reads format {_FORMAT}")
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise _damaged(path, found)
    for table in ("about", "cells"):
        for *values, checksum in connection.execute(f"SELECT * FROM {table}"):
            if _checksum(tuple(values)) != checksum:
                raise _damaged(path, f"wrong checksum of {values[0]!r}")


def _check_versions(path: Path, connection: sqlite3.Connection) -> None:
    there, here = _of(connection, "versions"), versions()
    if there != here:
        told = ", ".join(
            f"{name} {there.get(name)} (here {here.get(name)})"
            for name in dict.fromkeys([*there, *here])
            if there.get(name) != here.get(name)
        )
        raise StoreError(
            f"{path} was made with {told}: rows of two versions are never mixed. Finish it with "
            "those versions, or name another store"
        )


def _check_settings(
    path: Path, connection: sqlite3.Connection, settings: Mapping[str, Any], extend: bool
) -> None:
    there = _of(connection, "settings")
    differing = [k for k, v in settings.items() if _unordered(v) != _unordered(there.get(k))]
    if not differing:
        return
    grown = all(
        isinstance(settings[key], list) and set(settings[key]) >= set(there[key])
        for key in differing
    )
    if not grown or not extend:
        told = "; ".join(
            f"{key} {_short(there.get(key))}, here {_short(settings[key])}" for key in differing
        )
        advice = "--extend adds what is new" if grown else "name another store"
        raise StoreError(f"{path} is of another grid: {told}. {advice.capitalize()}")
    with connection:
        _put(connection, "settings", settings)


def _unordered(value: Any) -> Any:
    return set(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:45]}... ({len(value)} of them)"


def _stored(value: Any) -> Any:
    """Return the value as SQLite gives it back: it has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _checksum(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode())


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _damaged(path: Path, why: object) -> StoreError:
    return StoreError(
        f"{path} is damaged ({why}): restore it from a copy, or remove it to begin anew"
    )


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn what SQLite raises inside the block into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message = str(error)
        raise StoreError(
            f"{path}: {message}; rows that were there before are unharmed, the same command goes on"
            if "full" in message or "disk I/O" in message
            else f"{path} cannot be used: {message}"
        ) from None
    except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from None

"""The file of a store: an SQLite database whose every row has a checksum.

What was committed survives kill -9; damage is reported when the file is opened.
"""

import json
import math
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from gradlab.comparison.rows import COLUMNS, SWEPT

__all__ = [
    "FORMAT",
    "TYPES",
    "StoreError",
    "about",
    "blaming",
    "check",
    "connected",
    "insert",
    "make",
    "put_about",
]

_SQL = {"text": "TEXT", "whole number": "INTEGER", "number": "REAL"}
TYPES = {name: _SQL[COLUMNS[name].type] for name in SWEPT}
"""SQLite types of the columns of a row."""

FORMAT = 2  # of the tables; stores of format 1, of versions up to 0.4, are read, not written
# Columns of format 2 that format 1 lacks.
_NEW = {"cost", "note", "draws_needed", "truth", "truth2_se", "averaged", "progress", "progress_se"}


def _tables(format: int) -> dict[str, str]:
    """Return how the tables of a format are made."""
    types = {name: kind for name, kind in TYPES.items() if format > 1 or name not in _NEW}
    cells = ", ".join(
        f'"{name}" {kind}' for name, kind in (types | {"checksum": "INTEGER"}).items()
    )
    about = "key TEXT, value TEXT, checksum INTEGER"
    return {
        "about": f"CREATE TABLE about ({about}, PRIMARY KEY (key)) WITHOUT ROWID",
        "cells": f"CREATE TABLE cells ({cells}, PRIMARY KEY (cell)) WITHOUT ROWID",
    }


class StoreError(OSError):
    """A store that is damaged, of another grid or version, in use, or cannot be written."""


def connected(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    """Return a connection to the store at `path`, which also lies where nothing can be written."""
    uri, mode = path.resolve().as_uri(), "rw"
    if reading and not os.access(path.parent, os.W_OK):
        # What lies where nothing can be written, with nothing pending, is read as it is.
        pending = Path(f"{path}-wal")
        mode = "ro" if pending.exists() and pending.stat().st_size else "ro&immutable=1"
    connection = sqlite3.connect(f"{uri}?mode={mode}", uri=True)
    if reading:
        connection.execute("PRAGMA query_only = 1")
    else:
        # A commit survives the death of the process; one lost in a power cut is computed again.
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def make(path: Path, known: Mapping[str, Any]) -> None:
    """Make a store without cells that keeps what is `known` of it; it appears at once and whole."""
    new = path.with_name(f".{path.name}-new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for command in _tables(FORMAT).values():
            connection.execute(command)
        with connection:
            for key, value in known.items():
                put_about(connection, key, value)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    new.replace(path)


def put_about(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep what is known of the store under `key`: anything that JSON can hold."""
    entry = (key, json.dumps(value))
    connection.execute("REPLACE INTO about VALUES (?, ?, ?)", (*entry, _checksum(entry)))


def about(connection: sqlite3.Connection, key: str) -> Any:
    """Return what is known of the store under `key`."""
    (value,) = connection.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
    return json.loads(value)


def check(path: Path, connection: sqlite3.Connection) -> int:
    """Return the format of the store; raise StoreError unless it holds what was written."""
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
    if not tables.keys() & {"about", "cells"}:
        raise StoreError(f"{path} is not a store of a sweep")
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if not 1 <= number <= FORMAT:
        raise StoreError(f"{path} has format {number}, this gradlab reads formats 1 to {FORMAT}")
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok" or tables != _tables(number):
        raise _damaged(path, "its tables are not as they were made" if found == "ok" else found)
    for table in ("about", "cells"):
        for *values, checksum in connection.execute(f"SELECT * FROM {table}"):
            if _checksum(tuple(values)) != checksum:
                raise _damaged(path, f"wrong checksum of {values[0]!r}")
    return int(number)


def insert(connection: sqlite3.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows with the columns `TYPES`, each with its checksum, to the transaction."""
    command = f"INSERT INTO cells VALUES ({', '.join('?' * (len(TYPES) + 1))})"
    stored = (tuple(_stored(row[name], kind) for name, kind in TYPES.items()) for row in rows)
    connection.executemany(command, [(*values, _checksum(values)) for values in stored])


_PYTHON = {"TEXT": str, "INTEGER": int, "REAL": float}


def _stored(value: Any, kind: str) -> Any:
    """Return the value as SQLite gives it back: it has no NaN, and no integer among reals."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return _PYTHON[kind](value)


def _checksum(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode())


def _damaged(path: Path, why: object) -> StoreError:
    return StoreError(
        f"{path} is damaged ({why}): restore it from a copy, or remove it to begin anew"
    )


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn what SQLite raises inside the block into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message = str(error)
        raise StoreError(
            f"{path}: {message}; earlier rows are unharmed; repeat the command to continue"
            if "full" in message or "disk I/O" in message
            else f"{path} cannot be used: {message}"
        ) from None
    except sqlite3.IntegrityError as error:
        raise StoreError(f"{path}: a cell would be there twice ({error})") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from None

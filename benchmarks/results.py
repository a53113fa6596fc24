"""The committed rows: one for each line of each part, with the machine that measured it.

Rows are replaced one by one as lines come in, and the file is written whole each time. So an
interrupted run keeps what it has measured, and rows of parts that did not run stay as they were.
"""

import os
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import PARTS
from benchmarks.ratios import QUICK, Ratio
from gradlab.files import writing
from gradlab.nn.device import machine_name
from gradlab.parallel import usable_cores
from gradlab.version import __version__

__all__ = ["COLUMNS", "RESULTS", "Results", "first_line", "read"]

RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = (
    *("part", "what", "value", "unit", "target", "met", "ours", "theirs", "note"),
    *("machine", "cores", "load", "run", "torch", "version", "date"),
)
"""`ours` and `theirs` are seconds; `load` is the load average of the last minute, this run
included; `run` is full or quick."""


def read(file: Path = RESULTS) -> pd.DataFrame:
    """Return the rows of a file, or no rows where it does not exist. Empty cells become ""."""
    if not file.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.read_csv(file, keep_default_na=False, dtype=str)


def first_line(part: str) -> str:
    """Return what a part measures: the first line of its module, without the full stop."""
    return (import_module(f"benchmarks.{part}").__doc__ or "").partition("\n")[0].rstrip(".")


class Results:
    """The rows of a file, while parts are measured.

    Args:
        file: The CSV file; None keeps the rows in memory.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._rows = {} if file is None else {_key(row): row for row in _records(read(file))}
        self._measured: set[tuple[str, str]] = set()

    @property
    def rows(self) -> pd.DataFrame:
        """The rows in the order of the parts."""
        place = {part: index for index, part in enumerate(PARTS)}
        known = [row for row in self._rows.values() if row["part"] in place]
        return pd.DataFrame(
            sorted(known, key=lambda row: place[row["part"]]), columns=list(COLUMNS)
        )

    def add(self, part: str, line: Ratio) -> None:
        """Put a line in the place of an older one of the same name, and write the file."""
        row = {"part": part} | line.row() | _about()
        # What is measured again goes to the end, so that a part has the order in which it ran.
        self._rows.pop(_key(row), None)
        self._rows[_key(row)] = row
        self._measured.add(_key(row))
        self._write()

    def finish(self, part: str) -> None:
        """Take away what a part, which has been measured to its end, no longer measures."""
        gone = [key for key in self._rows if key[0] == part and key not in self._measured]
        for key in gone:
            del self._rows[key]
        self._write()

    def _write(self) -> None:
        if self.file is not None:
            with writing(self.file.parent) as new:
                self.rows.to_csv(new / self.file.name, index=False)


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["part"]), str(row["what"])


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _about() -> dict[str, object]:
    """Return the columns that say where and when a line was measured."""
    return {
        "machine": machine_name(torch.device("cpu")),
        "cores": usable_cores(),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
        "run": "quick" if os.environ.get(QUICK) else "full",
        "torch": torch.__version__,
        "version": __version__,
        "date": date.today().isoformat(),
    }

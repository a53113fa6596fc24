"""Tables at any width of the terminal: no line is longer, no name is cut."""

import re

import pytest

from gradlab.cli import main
from gradlab.estimators import ESTIMATORS
from gradlab.text import WIDTH, aligned, width

NAMES = [
    *(str(cls()) for cls in ESTIMATORS.values()),
    "my_learned_control_variate(network=[64, 64], tau=0.25)",
    "my_learned_control_variate(network=[64, 64], tau=0.5)",
]
WIDTHS = (60, 80, 100, 160)


def table(number: int) -> list[list[str]]:
    """Return a row for each estimator, with as many numbers as asked for."""
    head = ["estimator", *(f"number {i}" for i in range(number))]
    return [head, *([name, *["0.1234 ± 0.0012"] * number] for name in NAMES)]


def names(part: str, rows: int) -> list[str]:
    """Return the first cells of a table, those that were broken put together again."""
    lines = part.splitlines()
    end = lines[0].index("number")
    found: list[str] = []
    for line in lines[1:]:
        cell = line[:end].rstrip()
        if cell.startswith("  "):
            found[-1] += cell.strip()
        else:
            found.append(cell)
    assert len(found) == rows
    return [re.sub(r"\s", "", name) for name in found]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("number", [1, 4, 8])
def test_all_names_are_whole_in_every_part(columns, number):
    parts = aligned(table(number), within=columns).split("\n\n")
    assert max(len(line) for part in parts for line in part.splitlines()) <= columns
    for part in parts:
        found = names(part, len(NAMES))
        assert found == [re.sub(r"\s", "", name) for name in NAMES]
        assert len(set(found)) == len(NAMES)
    assert sum(part.splitlines()[0].count("number") for part in parts) == number


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.few(1)
def test_list_is_as_wide_as_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    short = [str(cls()) for cls in ESTIMATORS.values() if len(str(cls())) <= 24]
    assert len(short) > 30
    assert all(name in out for name in short)


def test_without_a_terminal_the_width_is_100(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width() == WIDTH == 100


def test_a_table_that_fits_is_one_line_a_row():
    assert aligned([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert aligned([]) == ""

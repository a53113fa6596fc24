"""Stores: rows whole or not at all, damage told, nothing of two grids or versions mixed."""

import math
import os
import random
import sqlite3
import subprocess
from contextlib import closing

import pandas as pd
import pytest

from gradlab.comparison.rows import SWEPT
from gradlab.sweep import database
from gradlab.sweep import store as store_module
from gradlab.sweep.cells import blank_row
from gradlab.sweep.grid import Grid
from gradlab.sweep.store import StoreError, opened, read_settings, sweep_rows, versions

GRID = Grid(["quadratic", "mlp"], ["2x3"], seeds=6, estimators=["ZGR", "GS"], temperatures=[0.1, 1])
LARGE = 2**53


def rows_of(grid, offset=0.0):
    """Make rows of a grid, with numbers that are hard to keep; nothing is computed."""
    rows = []
    for index in range(grid.tasks):
        task = grid.task(index)
        for number, cell in enumerate(task.cells):
            row = blank_row(task, cell) | {"series": "GS", "method": "exact", "calls": 1}
            row |= {"mse": math.pi + offset + index, "bias2": -1e-300, "truth2": 0.1 + number}
            row |= {"cosine": math.nan, "effective_draws": math.inf, "draws": LARGE}
            rows.append(row | {"reason": "ünmöglich\n'; --" if number == 2 else None})
    return rows


@pytest.fixture
def full(tmp_path):
    """A store of all rows of the grid."""
    path = tmp_path / "full.db"
    with opened(path, GRID.settings) as kept:
        kept.add(rows_of(GRID))
    return path


def test_rows_come_back_to_the_last_bit_in_the_order_of_the_grid(tmp_path):
    path, rows = tmp_path / "s.db", rows_of(GRID)
    shuffled = random.Random(0).sample(rows, len(rows))
    with opened(path, GRID.settings) as kept:
        kept.add(shuffled[:5])
        kept.add(shuffled[5:])
        assert kept.done() == {row["cell"] for row in rows}
    found = sweep_rows(str(path))
    assert list(found) == SWEPT
    expected = pd.DataFrame(rows, columns=SWEPT)
    assert list(found["cell"]) == list(expected["cell"])
    for column in ("mse", "bias2", "truth2", "effective_draws", "seed", "draws", "logits_seed"):
        assert list(found[column]) == list(expected[column]), column
    assert found["cosine"].isna().all()
    assert list(found["reason"].dropna().unique()) == ["ünmöglich\n'; --"]


def test_a_cell_is_there_once_and_rows_come_all_or_none(full):
    (extra,) = rows_of(Grid(["cubic"], ["2x3"], estimators=["ST"]))
    with opened(full, GRID.settings) as kept:
        with pytest.raises(StoreError):
            kept.add([extra, rows_of(GRID)[3]])
        assert extra["cell"] not in kept.done()
    assert len(sweep_rows(full)) == len(GRID)


def test_settings_and_versions_are_kept(full):
    assert read_settings(full) == (GRID.settings, versions())


def test_the_failed_are_removed(tmp_path):
    rows = rows_of(GRID)
    with opened(tmp_path / "s.db", GRID.settings) as kept:
        kept.add([rows[0] | {"error": "ValueError: x"}, *rows[1:3]])
        assert kept.remove_failed() == 1
        assert kept.done() == {row["cell"] for row in rows[1:3]}


OTHERS = {
    "fewer": (Grid(["mlp"], ["2x3"], seeds=6, estimators=["ZGR"]), "Name another store"),
    "more": (
        Grid(
            ["quadratic", "mlp"], ["2x3"], seeds=7, estimators=["ZGR", "GS"], temperatures=[0.1, 1]
        ),
        "--extend adds what is new",
    ),
    "draws": (
        Grid(
            *(["quadratic", "mlp"], ["2x3"]),
            seeds=6,
            estimators=["ZGR", "GS"],
            temperatures=[0.1, 1],
            draws=64,
        ),
        "draws 10000, here 64",
    ),
}


@pytest.mark.parametrize(("grid", "message"), OTHERS.values(), ids=OTHERS)
def test_another_grid_is_refused(full, grid, message):
    with (
        pytest.raises(StoreError, match=message.replace("+", r"\+")) as caught,
        opened(full, grid.settings),
    ):
        pytest.fail("it was opened")
    assert "of another grid" in str(caught.value)


@pytest.mark.parametrize("name", ["fewer", "draws"])
def test_a_grid_that_is_not_larger_is_refused_with_extend_too(full, name):
    with (
        pytest.raises(StoreError, match="another grid"),
        opened(full, OTHERS[name][0].settings, extend=True),
    ):
        pytest.fail("it was opened")


def test_a_larger_grid_extends(full):
    more = OTHERS["more"][0]
    with opened(full, more.settings, extend=True) as kept:
        assert len(kept.done()) == len(GRID)
    assert read_settings(full)[0] == more.settings
    with pytest.raises(StoreError, match="another grid"), opened(full, GRID.settings):
        pytest.fail("it was opened")


def test_the_order_of_a_grid_does_not_matter(full):
    turned = Grid(
        ["mlp", "quadratic"], ["2x3"], seeds=6, estimators=["GS", "ZGR"], temperatures=[1, 0.1]
    )
    with opened(full, turned.settings) as kept:
        assert len(kept.done()) == len(turned)


@pytest.mark.parametrize("package", ["gradlab", "torch"])
def test_another_version_is_refused_for_writing_and_read(full, package, monkeypatch):
    monkeypatch.setattr(store_module, "versions", lambda: versions() | {package: "9.9"})
    with (
        pytest.raises(StoreError, match=rf"made with {package} .* \(here 9.9\)"),
        opened(full, GRID.settings),
    ):
        pytest.fail("it was opened")
    assert len(sweep_rows(full)) == len(GRID)


def test_another_format_is_refused(full):
    with closing(sqlite3.connect(full)) as connection, connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="has format 7, this gradlab reads formats 1 to 2"):
        sweep_rows(full)


def flipped(path, offset):
    """Flip one bit of the file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << offset % 8]))


# The file is read whole for each bit.
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_flipped_bit_is_told_or_changes_nothing(full, step):
    whole, rows = full.read_bytes(), sweep_rows(full)
    assert len(list(full.parent.iterdir())) <= 2  # all is in one file, beside its lock
    chance = random.Random(0)
    told = 0
    offsets = [*range(0, 100, 2), *(chance.randrange(100, len(whole)) for _ in range(100))]
    for offset in offsets[::step]:
        full.write_bytes(whole)
        flipped(full, offset)
        try:
            pd.testing.assert_frame_equal(sweep_rows(full), rows, check_exact=True)
        except StoreError:
            told += 1
    assert told > 30 / step


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_file_is_told(full, share):
    whole = full.read_bytes()
    full.write_bytes(whole[: int(share * len(whole))])
    for reading in (lambda: sweep_rows(full), lambda: opened(full, None).__enter__()):
        with pytest.raises(StoreError):
            reading()


def test_what_is_no_store_is_told(tmp_path):
    text = tmp_path / "notes.db"
    text.write_text("no database at all, but long enough to have a header " * 9)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    for path, message in ((text, "damaged"), (other, "is not a store"), (tmp_path / "x.db", "no")):
        with pytest.raises(StoreError, match=message):
            sweep_rows(path)
    with pytest.raises(StoreError, match="is not a store"), opened(other, GRID.settings):
        pytest.fail("it was opened")
    assert text.read_text().startswith("no database")


def as_format_1(path) -> None:
    """Turn a store into one as versions up to 0.4 wrote it: fewer columns, tables of format 1."""
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = pd.read_sql_query("SELECT * FROM cells", connection)
        old = rows.drop(columns=[*database._NEW, "checksum"])
        connection.execute("DROP TABLE cells")
        connection.execute(database._tables(1)["cells"])
        for values in old.astype(object).where(old.notna(), None).itertuples(index=False):
            values = tuple(
                int(v) if database.TYPES[name] == "INTEGER" and v is not None else v
                for name, v in zip(old, values, strict=True)
            )
            marks = ", ".join("?" * (len(values) + 1))
            row = (*values, database._checksum(values))
            connection.execute(f"INSERT INTO cells VALUES ({marks})", row)
        connection.execute("PRAGMA user_version = 1")


def test_a_store_of_format_1_is_read(full):
    rows = sweep_rows(full)
    as_format_1(full)
    found = sweep_rows(full)
    assert list(found) == SWEPT
    new = ["cost", "note", "draws_needed", "truth", "truth2_se"]
    assert found[new].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.drop(columns=new), rows.drop(columns=new))
    with closing(sqlite3.connect(full)) as connection, connection:
        connection.execute("UPDATE cells SET bias2 = 2 * bias2 + 1")
    with pytest.raises(StoreError, match="wrong checksum"):
        sweep_rows(full)


def test_a_store_of_format_1_is_not_written(full):
    as_format_1(full)
    with pytest.raises(StoreError, match="format 1"), opened(full, None):
        pytest.fail("it was opened")


def test_a_second_writer_is_refused_and_readers_are_not(full):
    with opened(full, GRID.settings) as kept:
        with pytest.raises(StoreError, match="being written by another"), opened(full):
            pytest.fail("it was opened")
        before = sweep_rows(full)
        with kept.connection:
            kept.connection.execute("DELETE FROM cells")
            # What is not committed is not seen.
            pd.testing.assert_frame_equal(sweep_rows(full), before)
            kept.connection.rollback()
    with opened(full):
        pass


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB, where tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs more rights")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_earlier_rows_stay(small_disk):
    path = small_disk / "s.db"
    rows = rows_of(Grid(["quadratic", "mlp"], ["2x3"], seeds=2000, estimators=["ZGR"]))
    with opened(path, GRID.settings) as kept:
        kept.add(rows[:100])
        with pytest.raises(StoreError, match=r"full.*repeat the command to continue"):
            kept.add(rows[100:])
    assert set(sweep_rows(path)["cell"]) == {row["cell"] for row in rows[:100]}


def test_a_read_only_disk_is_told_and_can_be_read(small_disk):
    path = small_disk / "s.db"
    with opened(path, GRID.settings) as kept:
        kept.add(rows_of(GRID))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="cannot be written"), opened(path, GRID.settings):
        pytest.fail("it was opened")
    assert len(sweep_rows(path)) == len(GRID)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_told(full):
    full.parent.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="cannot be written"), opened(full, GRID.settings):
            pytest.fail("it was opened")
        assert len(sweep_rows(full)) == len(GRID)
    finally:
        full.parent.chmod(0o700)

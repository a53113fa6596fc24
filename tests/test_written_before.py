r"""Stores and checkpoints that earlier versions wrote: rows are read, a training goes on.

`tests/written_by_0_4/` was made at commit e530d1a, and `tests/written_by_0_5/` at commit cba8cdc,
each in that folder, by

    gradlab sweep run grid.toml sweep.db
    gradlab sweep export sweep.db sweep.csv
    gradlab train vae EMA --epochs 1 --hidden 2 --latent 1x2 --bound-samples 2 --batch 500

(0.4 wrote `--estimator EMA`.)
"""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from gradlab.cli import main
from gradlab.data.datasets import load_images
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import StoreError, migrate, read_settings, sweep_rows, versions
from gradlab.training.checkpoint import read_checkpoint
from gradlab.training.loop import train
from gradlab.training.runs import begin
from gradlab.training.vae_training import VAESettings
from gradlab.version import __version__

pytestmark = pytest.mark.usefixtures("unchecked")

SETTINGS = {"estimator": "EMA", "latent": "1x2", "hidden": 2, "bound_samples": 2, "batch": 500}


VERSIONS = ["0.4.0", "0.5.0"]
FORMATS = {"0.4.0": "format 1", "0.5.0": "0.5.0"}  # what the refusal to write names


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(version: str, tmp_path: Path) -> Path:
    name = f"written_by_{version.removesuffix('.0').replace('.', '_')}"
    return Path(shutil.copytree(Path(__file__).parent / name, tmp_path / "old"))


def test_a_store_is_exported_as_it_was(folder, version, capsys):
    assert main(["sweep", "export", str(folder / "sweep.db"), str(folder / "now.csv")]) == 0
    was, now = (pd.read_csv(folder / name) for name in ("sweep.csv", "now.csv"))
    pd.testing.assert_frame_equal(now[list(was)], was, check_exact=True)
    assert main(["sweep", "status", str(folder / "sweep.db")]) == 0
    shown = capsys.readouterr().out
    assert f"gradlab {version}" in shown
    assert "to do           0" in shown


def test_a_sweep_does_not_go_on_in_a_store_and_says_why(folder, version):
    store, grid = folder / "sweep.db", Grid.from_toml(folder / "grid.toml")
    before = store.read_bytes()
    # Rows of two versions are never mixed; tables of 0.4 also lack columns.
    told = rf"{re.escape(FORMATS[version])}.*gradlab sweep migrate \S+sweep\.db NEW\.db"
    with pytest.raises(StoreError, match=told):
        run_sweep(grid, store, workers=1)
    assert store.read_bytes() == before


@pytest.mark.thorough  # test_smoke.py migrates a store
def test_a_migrated_store_has_the_same_rows_and_the_sweep_goes_on_there(folder, version, capsys):
    old, new = folder / "sweep.db", folder / "new.db"
    everything = sweep_rows(old)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("DELETE FROM cells WHERE estimator LIKE 'ZGR%'")
    before, rows = old.read_bytes(), sweep_rows(old)
    assert 0 < len(rows) < len(everything)
    assert main(["sweep", "migrate", str(old), str(new)]) == 0
    pd.testing.assert_frame_equal(sweep_rows(new), rows, check_exact=True)
    assert read_settings(new)[1] == versions()
    summary = run_sweep(Grid.from_toml(folder / "grid.toml"), new, workers=1)
    assert (summary.before, summary.computed) == (len(rows), len(everything) - len(rows))
    whole = sweep_rows(new).set_index("cell")
    assert list(whole.index) == list(everything["cell"])
    kept = whole.loc[rows["cell"]].reset_index().astype(rows.dtypes)[list(rows)]
    pd.testing.assert_frame_equal(kept, rows, check_exact=True)
    added = whole.drop(index=rows["cell"])
    assert set(added["version"]) == {__version__}
    assert added["mse"].tolist() == pytest.approx(
        everything.set_index("cell").loc[added.index, "mse"].tolist(), rel=1e-9
    )
    assert old.read_bytes() == before
    capsys.readouterr()
    assert main(["sweep", "status", str(new)]) == 0
    assert f"rows made by    gradlab {version}, gradlab {__version__}\n" in capsys.readouterr().out


def test_migrate_replaces_no_file_and_leaves_none_behind(folder):
    old, new = folder / "sweep.db", folder / "new.db"
    new.write_text("mine")
    with pytest.raises(StoreError, match="is there already"):
        migrate(old, new)
    assert new.read_text() == "mine"
    with pytest.raises(StoreError, match="cannot be written"):
        migrate(old, folder / "no" / "new.db")
    damaged = bytearray(old.read_bytes())
    damaged[-20] ^= 1  # in a cell
    old.write_bytes(damaged)
    there = set(folder.iterdir())
    with pytest.raises(StoreError, match="damaged"):
        migrate(old, folder / "other.db")
    assert set(folder.iterdir()) == there


def test_the_grid_of_a_store_is_read_as_it_was(folder):
    there, _ = read_settings(folder / "sweep.db")
    here = Grid.from_toml(folder / "grid.toml").settings
    assert {key: here[key] for key in there} == there


def test_cells_are_called_what_they_were_and_have_their_seeds(folder):
    rows = pd.read_csv(folder / "sweep.csv").set_index("cell")
    grid = Grid.from_toml(folder / "grid.toml")
    seeds = {cell.id: cell.seed for i in range(grid.tasks) for cell in grid.task(i).cells}
    assert seeds == rows["seed"].to_dict()


def test_a_training_goes_on_from_a_checkpoint(folder, version, capsys):
    state = read_checkpoint(folder / "checkpoint.pt")
    settings = VAESettings(epochs=2, **SETTINGS)
    images = load_images("digits", None)
    resumed = train(begin(settings, images, "cpu", None), folder)
    whole = train(begin(settings, images, "cpu", None), None)
    assert list(resumed["epoch"]) == [1, 2]
    assert set(resumed["version"]) == {f"{version}, {__version__}"}
    assert f"was written by gradlab {version}" in capsys.readouterr().err
    assert resumed["train_nelbo"].iloc[0] == state["rows"][0]["train_nelbo"]
    for column in ("loss", "train_nelbo", "valid_nelbo"):
        # The last bits depend on the machine that wrote the checkpoint.
        assert resumed[column].tolist() == pytest.approx(whole[column].tolist(), rel=1e-5)

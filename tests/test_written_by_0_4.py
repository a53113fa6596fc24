r"""A store and a checkpoint that version 0.4.0 wrote: rows are read, a training goes on.

`tests/written_by_0_4/` was made at commit e530d1a, in that folder, by

    gradlab sweep run grid.toml sweep.db
    gradlab sweep export sweep.db sweep.csv
    gradlab train vae --estimator EMA --epochs 1 --hidden 2 --latent 1x2 \
        --bound-samples 2 --batch 500
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import gradlab.training.loop
from gradlab.cli import main
from gradlab.data.datasets import load_images
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import StoreError, read_settings
from gradlab.training.checkpoint import read_checkpoint
from gradlab.training.loop import train
from gradlab.training.runs import begin
from gradlab.training.vae_training import VAESettings

pytestmark = pytest.mark.usefixtures("unchecked")

SETTINGS = {"estimator": "EMA", "latent": "1x2", "hidden": 2, "bound_samples": 2, "batch": 500}


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "written_by_0_4", tmp_path / "old"))


def test_a_store_is_exported_as_it_was(folder, capsys):
    assert main(["sweep", "export", str(folder / "sweep.db"), str(folder / "now.csv")]) == 0
    was, now = (pd.read_csv(folder / name) for name in ("sweep.csv", "now.csv"))
    pd.testing.assert_frame_equal(now[list(was)], was, check_exact=True)
    assert main(["sweep", "status", str(folder / "sweep.db")]) == 0
    shown = capsys.readouterr().out
    assert "gradlab 0.4.0" in shown
    assert "to do           0" in shown


def test_a_sweep_does_not_go_on_in_a_store_and_says_why(folder):
    store, grid = folder / "sweep.db", Grid.from_toml(folder / "grid.toml")
    before = store.read_bytes()
    # Rows of two versions are never mixed; these tables also lack columns.
    with pytest.raises(StoreError, match=r"gradlab 0\.4\.0|format 1"):
        run_sweep(grid, store, workers=1)
    assert store.read_bytes() == before


def test_the_grid_of_a_store_is_read_as_it_was(folder):
    there, _ = read_settings(folder / "sweep.db")
    here = Grid.from_toml(folder / "grid.toml").settings
    assert {key: here[key] for key in there} == there


def test_cells_are_called_what_they_were_and_have_their_seeds(folder):
    rows = pd.read_csv(folder / "sweep.csv").set_index("cell")
    grid = Grid.from_toml(folder / "grid.toml")
    seeds = {cell.id: cell.seed for i in range(grid.tasks) for cell in grid.task(i).cells}
    assert seeds == rows["seed"].to_dict()


def test_a_training_goes_on_from_a_checkpoint(folder, monkeypatch):
    state = read_checkpoint(folder / "checkpoint.pt")
    monkeypatch.setattr(gradlab.training.loop, "__version__", state["version"])
    settings = VAESettings(epochs=2, **SETTINGS)
    images = load_images("digits", None)
    resumed = train(begin(settings, images, "cpu", None), folder)
    whole = train(begin(settings, images, "cpu", None), None)
    assert list(resumed["epoch"]) == [1, 2]
    assert resumed["train_nelbo"].iloc[0] == state["rows"][0]["train_nelbo"]
    for column in ("loss", "train_nelbo", "valid_nelbo"):
        # The last bits depend on the machine that wrote the checkpoint.
        assert resumed[column].tolist() == pytest.approx(whole[column].tolist(), rel=1e-5)

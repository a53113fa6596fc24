"""Rows that travel with the package are the committed ones; long figures are drawn from them."""

import io
import shutil
from concurrent.futures import Future
from pathlib import Path

import pandas as pd
import pytest

from gradlab import figures
from gradlab.figures import committed, draw, function
from gradlab.figures.packaged import PACKAGED, packed

FOLDER = Path(__file__).parents[2] / "figures"
LONGEST = 300_000  # bytes of rows in the package, all figures together


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_rows_are_the_committed_ones(name: str) -> None:
    """Otherwise call gradlab.figures.packaged.pack()."""
    expected = pd.read_csv(io.StringIO(packed(name, FOLDER)), low_memory=False)
    pd.testing.assert_frame_equal(committed(name), expected, check_exact=True)


def test_rows_of_prediction_leave_out_the_whole_gradient_and_standard_errors() -> None:
    whole = pd.read_csv(FOLDER / "prediction.csv", low_memory=False)
    shown = whole[whole["gradient"] != "whole"]
    found = committed("prediction")
    pd.testing.assert_frame_equal(found, shown[found.columns].reset_index(drop=True))
    missing = set(whole) - set(found)
    assert missing == {f"progress {averaged} se" for averaged in (1, 10, 100, 1000)}


def test_packaged_rows_are_small() -> None:
    files = [*Path(figures.__file__).parent.glob("*/committed.csv.xz")]
    assert sorted(path.parent.name for path in files) == sorted(PACKAGED)
    assert sum(path.stat().st_size for path in files) < LONGEST


def test_rows_that_do_not_travel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no rows of 'atlas' travel .*known: zoo, prediction"):
        committed("atlas")


@pytest.fixture
def only_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the one long figure in the catalogue, and make its computing an error."""
    monkeypatch.setattr(figures, "FIGURES", {"prediction": "gradlab.figures.prediction"})
    monkeypatch.setattr(figures, "processes", _Here)


class _Here:
    """A pool that works at once, in this process."""

    def __init__(self, workers: int) -> None:
        assert workers == 1

    def __enter__(self) -> "_Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, task, *arguments):
        done: Future = Future()
        done.set_result(task(*arguments))
        return done


def computing(seed: int) -> pd.DataFrame:
    raise AssertionError("this takes an hour")


@pytest.mark.thorough  # test_redraw.py draws from committed rows
@pytest.mark.parametrize("there", [True, False], ids=["rows-in-the-folder", "empty-folder"])
@pytest.mark.few(1)
def test_a_long_figure_is_drawn_from_committed_rows(
    there, only_prediction, monkeypatch, tmp_path
) -> None:
    """Rows in the folder stay as they are; elsewhere those of the package stand."""
    rows_of = figures._of
    monkeypatch.setattr(
        figures, "_of", lambda name, which: computing if which == "rows" else rows_of(name, which)
    )
    if there:
        shutil.copy(FOLDER / "prediction.csv", tmp_path)
    (done,) = draw((), tmp_path)
    assert done.error is None
    assert done.notes.startswith("prediction: drawn from committed rows; `gradlab figures pred")
    assert "about an hour" in done.notes
    whole = (FOLDER / "prediction.csv").read_bytes()
    assert ((tmp_path / "prediction.csv").read_bytes() == whole) == there
    assert (tmp_path / "prediction.png").stat().st_size > 10_000
    # By its name it is computed.
    (named,) = draw("prediction", tmp_path)
    assert named.error == "AssertionError: this takes an hour"


@pytest.mark.thorough  # test_a_long_figure_is_drawn_from_committed_rows
def test_the_picture_of_packaged_rows_is_that_of_all() -> None:
    plot = function("prediction", "plot")
    whole = plot(pd.read_csv(FOLDER / "prediction.csv", low_memory=False))
    fewer = plot(committed("prediction"))
    for ax, other in zip(whole.axes, fewer.axes, strict=True):
        lines, others = ([line.get_xydata().tolist() for line in a.lines] for a in (ax, other))
        assert str(lines) == str(others)
        assert lines

"""The figure of verdicts: its rows, and that its cells say what they say."""

from pathlib import Path

import pandas as pd
import pytest

from gradlab import parse
from gradlab.figures import verdicts
from gradlab.verification import planted_errors

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

COMMITTED = Path(__file__).parents[2] / "figures" / "verdicts.csv"


@pytest.fixture
def two_planted(monkeypatch):
    monkeypatch.setattr(planted_errors, "PLANTED", planted_errors.PLANTED[:2])


@pytest.mark.usefixtures("two_planted")
@pytest.mark.thorough  # test_committed.py computes them, test_redraw.py draws
def test_rows_are_drawn_as_they_stand(tmp_path):
    rows = verdicts.rows(estimators=("ZGR", "ST", "GS"), kinds=("linear", "quadratic", "table"))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    figure = verdicts.plot(pd.read_csv(tmp_path / "rows.csv"))
    above, below = figure.axes
    cells = [text.get_text() for text in above.texts]
    assert cells[:6] == ["0", "0", "–", "0", "34%", "–"]
    keys = [text.get_text() for text in above.get_legend().get_texts()]
    assert "0: none, proved" in keys
    assert cells[6].endswith("%")
    names = [label.get_text() for label in above.get_yticklabels()]
    assert names == ["ZGR  [2]", "ST  [1]", "GS(τ=1)  [0]"]
    assert {label.get_text() for label in below.get_yticklabels()} == {
        p.name for p in planted_errors.PLANTED[:2]
    }


def committed() -> pd.DataFrame:
    rows = pd.read_csv(COMMITTED)
    return rows[rows["table"] == "ladder"]


@pytest.mark.parametrize("text", verdicts.ESTIMATORS)
def test_what_is_declared_holds_in_the_committed_rows(text):
    rows = committed()
    of = rows[rows["estimator"] == str(parse(text))]
    assert len(of) == 9
    assert of["holds"].all()
    claimed = of[of["degree"] <= of["declared"]]
    assert (claimed["outcome"] == "UNBIASED").all()
    assert (claimed.loc[claimed["method"] == "exact", "bias"] < 1e-9).all()


@pytest.mark.parametrize("loss", ["quadratic", "multiquadratic"])
def test_st_and_darn_err_alike_in_the_committed_rows(loss):
    rows = committed().set_index(["estimator", "loss"])["bias"]
    assert rows["ST", loss] == pytest.approx(rows["DARN", loss], rel=1e-9)
    assert rows["ST-ZGR(alpha=0.5)", loss] == pytest.approx(rows["ST", loss] / 2, rel=1e-9)

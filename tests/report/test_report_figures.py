"""What a report says of the rows of committed figures: every kind is known, drawn and answered."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.figures.atlas.plot import leads
from gradlab.report import ANSWERED, _section
from gradlab.report.pictures import pictures
from gradlab.report.scales import Axis, scale
from gradlab.report.sections import Section
from gradlab.report.sources import Source, kind_of, read
from gradlab.report.summed import best_section, domination_section
from gradlab.report.tables import data_of
from gradlab.report.theory import factors_section

FIGURES = Path(__file__).parents[2] / "figures"
FILES = sorted(FIGURES.glob("*.csv"))


def sections(file: Path) -> list[Section]:
    return [_section(source, None, None) for source in read([file])]


@pytest.mark.few(4)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_rows_of_every_figure_have_an_answer_pictures_and_known_columns(file):
    for found in sections(file):
        assert "no answer" not in found.lead
        assert found.charts
        assert {c for chart in found.charts for c in chart.lines} <= set(found.rows)
        # Every menu leaves something to draw at its first choice.
        for chart in found.charts:
            rows = found.rows
            for column in set(found.selects) - {"method", *chart.free}:
                rows = rows[rows[column] == rows[column].dropna().iloc[0]]
            assert rows[chart.ys[0].column].notna().any()


@pytest.mark.parametrize("name", ["prediction", "atlas", "difficulty"])
def test_the_report_knows_what_columns_mean(name):
    for found in sections(FIGURES / f"{name}.csv"):
        assert data_of(found.rows, found.shown, []).unknown == []
        assert set(found.shown) <= set(found.rows)


def test_prediction_is_answered_by_the_best_criterion_over_the_tasks():
    rows = pd.read_csv(FIGURES / "prediction.csv", low_memory=False)
    found = rows[(rows["kind"] == "correlation") & (rows["gradient"] == "estimated")]
    found = found[(found["per"] == "draw") & (found["outcome"] == "steps")]
    found = found[found["moment"] == "mean"]
    medians = found.groupby(["criterion", "averaged"], dropna=False)["rho"].median()
    (criterion, averaged), rho = medians.idxmax(), medians.max()
    (section,) = sections(FIGURES / "prediction.csv")
    lead = f"The {criterion} of {averaged:.0f} predicts the loss best: its rank correlation is "
    assert section.lead == f"{lead}{rho:.2f}, the median of 9 tasks.".replace("is 0.", "is .")
    first = section.rows.iloc[0]
    assert (first["task"], first["name"]) == ("median of 9 tasks", f"{criterion} of {averaged:.0f}")
    assert first["rho"] == pytest.approx(rho)
    assert first["low"] < first["rho"] < first["high"]
    reached = {row[0]: row[1:] for row in section.small[0].rows}
    assert reached["binarized MNIST 30x10"][0].startswith("ZGR: 129.3")
    assert [chart.by for chart in section.charts] == ["name", "task"]


def test_an_atlas_is_two_sections_with_the_numbers_of_the_gallery():
    rows = pd.read_csv(FIGURES / "atlas.csv", low_memory=False)
    domination, best = sections(FIGURES / "atlas.csv")
    assert domination.lead == (
        "ST-ZGR dominates 51 % of GR(k=inf), which dominates 53 % of it: raw, the median of 600 "
        "cases."
    )
    assert [row[2:4] for row in domination.small[0].rows][-1] == ["80 %", "0 %"]
    table = domination.rows.set_index(["series", "scale", "problem", "N", "C", "regime"])["lead"]
    wanted = leads(rows[rows["kind"] == "domination"])
    np.testing.assert_allclose(table.reindex(wanted.index).to_numpy(), wanted.to_numpy())
    wins = rows[(rows["kind"] == "best") & (rows["criterion"] == "one draw")]
    most = wins.groupby("series")["wins"].sum()
    assert best.lead == (
        f"By the error of one draw, {most.idxmax()} is best most often: in "
        f"{most.max() / 6:.0f} % of 600 cases."
    )
    assert any("ZGR-BIN is for variables of 2 classes" in note for note in best.notes)
    ratios = best.rows.query("series == 'LE' and criterion == 'progress'")["ratio"]
    assert (ratios >= 1).all()


def case(**columns) -> dict:
    row = {"problem": "mlp", "N": 4, "C": 4, "regime": "moderate", "logits_seed": 0}
    return row | {"scale": "raw", "series": "GR", "dominated_by": "ST-ZGR"} | columns


def test_shares_that_could_not_be_computed_are_counted_with_their_reasons():
    back = {"series": "ST-ZGR", "dominated_by": "GR"}
    rows = [case(share=0.5), case(share=0.1, **back)]
    rows += [case(share=np.nan, logits_seed=1, reason="the true gradient is 0")]
    section = domination_section(Source("a", pd.DataFrame(rows), "domination"))
    assert section.rows["lead"].tolist() == [pytest.approx(40.0)]
    assert section.notes[-1] == "1 share could not be computed: the true gradient is 0."


def test_errors_are_relative_to_the_smallest_of_their_own_case():
    about = {"regime": "moderate", "criterion": "one draw", "seeds": 2, "method": "exact"}
    errors = {"mlp": (1.0, 4.0), "cubic": (30.0, 10.0)}
    rows = pd.DataFrame(
        about | {"problem": p, "N": 2, "C": 2, "series": s, "error": e, "wins": 2 * (e == min(of))}
        for p, of in errors.items()
        for s, e in zip(["ST", "ZGR"], of, strict=True)
    )
    found = best_section(Source("a", rows, "best")).rows.set_index("series")
    assert found["ratio"].to_dict() == {"ST": 2.0, "ZGR": 2.5}  # medians of 1, 3 and of 4, 1
    assert found["wins"].to_dict() == {"ST": 2, "ZGR": 2}


def test_factors_that_change_with_the_probability_are_a_difficulty_bias():
    rows = pd.read_csv(FIGURES / "difficulty.csv")
    assert kind_of(rows) == "factors"
    (section,) = sections(FIGURES / "difficulty.csv")
    assert section.lead.startswith("GRPO, G = 2 and RLOO have the same factor at every")
    assert "84 enumerated factors" in section.answer[0]
    some = rows[rows["name"] == "GRPO, G = 4"]
    lead = factors_section(Source("a", some, "factors")).lead
    assert lead == "No estimator has the same factor at every success probability."


def test_pictures_of_figures_are_drawn():
    pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")
    for name in ("prediction", "difficulty"):
        (section,) = sections(FIGURES / f"{name}.csv")
        parts, script = pictures(name, section)
        assert len(script["charts"]) == len(section.charts)
        assert sum(str(part).count("<svg") > 0 for part in parts) > len(section.charts)


def test_the_sentence_of_what_is_answered_names_these_figures():
    assert all(name in ANSWERED for name in ("atlas", "prediction", "difficulty"))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([2, 4, 8], [2, 4, 8]),  # counts are ticks themselves
        ([0.086], [0.08, 0.09]),
        ([0.1, 0.2, 50.0], [0.1, 1, 10]),
    ],
)
def test_every_axis_has_ticks_that_tell_its_scale(values, ticks):
    found = scale(pd.Series(values), Axis("a", "a"), log=True).ticks
    assert len(found) > 1
    if len(values) > 1:
        assert found == ticks
    assert min(found) >= min(values) / 1.16
    assert max(found) <= max(values) * 1.16

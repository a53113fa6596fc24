"""What a report and the plane say of policy gradients, and of what is unknown about them."""

import numpy as np
import pandas as pd
import pytest

from gradlab import plot, report
from gradlab.report.policies import policies_section
from gradlab.report.sections import meaning_of
from gradlab.report.sources import Source, kind_of, read
from gradlab.sequences import Tabular, compare, tasks

NAMES = ["RLOO(g=4)", "GRPO(g=4)", "Dr.GRPO(g=4)", "RLOO(kl=k3, g=4)", "RLOO(g=1)"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return compare(NAMES, Tabular(3, 3), tasks.lengthy())


def section(rows: pd.DataFrame):
    return policies_section(Source("mine", rows, "policy"))


def test_rows_of_policies_are_a_kind_of_their_own(rows) -> None:
    assert kind_of(rows) == "policy"
    assert [source.kind for source in read([rows])] == ["policy"]


def test_the_answer_says_who_is_exact_and_how_biased_the_others_are(rows) -> None:
    found = section(rows)
    share = {name: f"{b:.0%}" for name, b in zip(rows["estimator"], _bias(rows), strict=True)}
    assert found.lead == (
        f"RLOO has no bias for J; others are biased, from {share['GRPO'].replace('%', ' %')} of "
        f"the gradient (GRPO) to {share['Dr.GRPO'].replace('%', ' %')} (Dr.GRPO)."
    )
    best = rows.set_index("estimator")["progress"].idxmax()
    assert f"{best} makes the most progress: {rows['progress'].max():.3f}" in found.answer[0]
    assert "At 4 sampled sequences per gradient and 10 gradients averaged" in found.answer[0]


def test_estimators_that_differ_by_a_factor_share_the_first_place(rows) -> None:
    scaled = compare(["RLOO", "centred", "GRPO"], Tabular(3, 3), tasks.parity())
    found = section(scaled).answer
    assert "RLOO and centred make the most progress" in found[0]
    assert found[1].startswith("Next is GRPO with ")


def test_the_target_of_rows_keeps_its_meaning(rows) -> None:
    assert meaning_of("target") == "objective whose gradient the truth is"
    pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")
    assert "objective whose gradient the truth is" in report.html([rows])


def _bias(rows: pd.DataFrame) -> "pd.Series[float]":
    return (rows["bias2"] / rows["truth2"]) ** 0.5


def test_none_exact_is_said(rows) -> None:
    assert section(rows.iloc[1:]).lead.startswith("None is exact for J: others are biased")


def test_the_table_has_bias_direction_and_noise(rows) -> None:
    (table,) = section(rows).small
    first = dict(zip(table.header, table.rows[0], strict=True))
    assert first["estimator"] == "RLOO"
    assert (first["G"], first["bias / |g|"], first["cosine"]) == ("4", "0", "1")
    assert len(table.rows) == 3  # those without numbers are in the sentences


def test_what_is_unknown_is_a_sentence(rows) -> None:
    notes = section(rows).notes
    assert "RLOO(kl=k3) is unknown: k3 needs a reference policy: give reference=" in notes
    assert "RLOO(g=1) is unknown: loo needs groups of at least 2 sequences, not 1" in notes
    assert section(rows.iloc[:3]).notes == []


def test_rows_without_any_number_are_said() -> None:
    nothing = compare(["RLOO(g=1)"], Tabular(3, 3), tasks.lengthy())
    found = section(nothing)
    assert found.lead == "Nothing could be measured; the reasons stand below."
    assert found.charts == []


def test_a_bias_that_draws_hide_is_unknown_below_a_limit() -> None:
    drawn = compare(["RLOO"], Tabular(3, 3), tasks.lengthy(), method="monte-carlo", draws=400)
    found = section(drawn.assign(bias2=0.0))
    assert found.lead == "No bias for J is told from 0 by the draws."
    assert found.notes == [
        "The draws do not tell the bias of RLOO from 0; it is unknown below that."
    ]


def test_a_gradient_of_0_is_said(rows) -> None:
    found = section(rows.iloc[:3].assign(truth2=0.0))
    assert found.lead == "The gradient of J is 0 or unknown, so that no bias is relative to it."
    assert any("is unknown" in note for note in found.notes)


def test_rows_without_costs_are_not_ranked(rows) -> None:
    found = section(rows.drop(columns="cost"))
    assert found.answer == [
        "The rows do not say what an estimate costs, so that none is ranked at equal cost."
    ]
    assert all(line[5] == "unknown" for line in found.small[0].rows)


def test_several_cases_have_a_table_each(rows) -> None:
    other = compare(NAMES[:2], Tabular(3, 3), tasks.parity(), rollout=Tabular(3, 3, seed=1))
    found = section(pd.concat([rows.iloc[:2], other], ignore_index=True))
    assert found.lead == "None is exact in all of 2 cases."
    assert len(found.small) == 2
    assert found.selects == ["problem", "rollout"]
    assert "sequences are sampled by a rollout policy: Tabular" in found.asked
    cheap = pd.concat([rows.iloc[:2], other]).drop(columns="cost")
    assert any("progress at equal sequences is unknown" in note for note in section(cheap).notes)
    same = section(pd.concat([rows.iloc[:2], other.assign(bias2=0.0)], ignore_index=True))
    assert same.lead == "RLOO has no bias in any of 2 cases."


def test_the_page_is_written_with_a_plane(rows, tmp_path) -> None:
    pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")
    text = report.write([rows], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "RLOO has no bias for J" in text
    assert "variance of one estimate" in text


def test_the_plane_draws_policies_and_says_what_it_leaves_out(rows) -> None:
    figure = plot.plane(rows)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:3] == ["RLOO", "GRPO", "Dr.GRPO"]
    assert "not drawn: 2 without numbers, see column reason" in texts
    drawn = np.concatenate([line.get_xdata() for line in figure.axes[0].lines])
    assert np.isclose(drawn, _bias(rows)[1]).any()
    texts = plot.plane(rows.iloc[:3]).legends[0].get_texts()
    assert not any("not drawn" in text.get_text() for text in texts)


@pytest.mark.parametrize("column", ["policy", "rollout", "target"])
def test_a_plane_is_of_one_policy_and_target(rows, column) -> None:
    several = pd.concat([rows.iloc[:2], rows.iloc[:2].assign(**{column: "another"})])
    with pytest.raises(ValueError, match=f"rows must be of one {column}, not 2"):
        plot.plane(several)

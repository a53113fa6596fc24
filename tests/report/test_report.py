"""What a report says, on every kind of rows, and that it is safe, small and whole."""

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import gradlab
from gradlab import report
from gradlab.citations import bibtex, bibtex_of_names
from gradlab.comparison.ranking import ranking
from gradlab.estimators import ESTIMATORS
from gradlab.problems import problem, regime
from gradlab.report.best import best_of, wins
from gradlab.report.judged import judged_section
from gradlab.report.looks import series_looks
from gradlab.report.markup import json_text, number_text
from gradlab.report.measured import is_measured, measured_section, prepared
from gradlab.report.ranked import ranked_section
from gradlab.report.reduction import reduced
from gradlab.report.sources import Source, kind_of, read
from gradlab.report.tables import data_of
from gradlab.report.theory import ends_section, laws_section
from gradlab.report.timed import timed_section
from gradlab.report.trained import training_section
from gradlab.verification.order import rungs
from report_rows import (
    HOSTILE,
    compared,
    ended,
    hostile,
    judged,
    obeyed,
    swept,
    timed,
    trained,
)

pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")


class Read(HTMLParser):
    """The elements of a page with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)

    def data(self) -> list[dict]:
        return [json.loads(text) for text in self.scripts if text.startswith('{"charts"')]


@pytest.fixture(scope="module")
def page() -> str:
    return report.html([compared()])


# ---- the answer -------------------------------------------------------------------------------


def test_the_answer_is_the_first_of_the_ranking():
    rows = prepared(compared())
    rows = rows[is_measured(rows)]
    budget = int(rows["cost"].max())
    first = ranking(rows, [budget], [10]).iloc[0]
    lead = measured_section(Source("a", compared(), "compare"), None, None).lead
    assert lead.startswith(f"At equal cost {first['estimator']} makes the most progress: ")
    assert f"{first['progress']:.3f}" in lead


@pytest.mark.parametrize("averaged", [1, 1000])
def test_budget_and_number_of_gradients_change_the_answer(averaged):
    rows = prepared(compared())
    rows = rows[is_measured(rows)]
    first = ranking(rows, [4], [averaged]).iloc[0]["estimator"]
    section = measured_section(Source("a", compared(), "compare"), 4, averaged)
    assert section.lead.startswith(f"At equal cost {first} ")


def test_wins_are_those_of_a_ranking_of_each_problem():
    rows = prepared(swept())
    counts = dict.fromkeys(rows["series"], 0)
    for _, part in rows.groupby(["problem", "logits_seed"]):
        table = ranking(part, [12], [10])
        counts[table.iloc[0]["series"]] += 1
    lead, _, (table,) = wins(rows, 12, 10)
    assert {row[0]: int(row[1]) for row in table.rows} == counts
    most = max(counts, key=lambda s: counts[s])
    assert lead.endswith(
        f"{most} makes the most progress most often: in {counts[most]} of 6 cases."
    )


def test_noise_does_not_win():
    rows = prepared(swept())
    best = wins(rows, 12, 10)[0].removeprefix("At equal cost ").partition(" ")[0]
    noisy = rows["cosine_se"].mask(rows["series"] == best, 0.4)
    lead = wins(rows.assign(cosine_se=noisy), 12, 10)[0]
    assert "makes the most progress most often" in lead
    assert not lead.startswith(f"At equal cost {best} ")


def test_squares_are_relative_to_the_gradient():
    rows = compared()
    found = prepared(rows)
    for name in ("bias2", "bias2_se", "variance", "mse"):
        wanted = rows[name] / rows["truth2"]
        np.testing.assert_allclose(found[f"rel_{name}"], wanted.where(rows["truth2"] > 0))


def test_too_few_draws_do_not_win():
    rows = prepared(compared())
    rows = rows[is_measured(rows)]
    best = ranking(rows, [12]).iloc[0]["series"]
    few = rows.assign(draws_needed=np.where(rows["series"] == best, 1e6, np.nan))
    lead, answer, _ = best_of(few, 12, 10)
    assert best not in lead
    assert any("too few draws" in text and best in text for text in answer)
    assert f"equal cost {best} " not in wins(pd.concat([few, few.assign(logits_seed=9)]), 12, 10)[0]


def test_a_recommendation_is_reported_in_its_own_words():
    f, logits = problem("mlp", 2, 3), regime("moderate", 2, 3)
    answer = gradlab.recommend(f, logits, evaluations=12, estimators=["ZGR", "RF", "LE", "DisARM"])
    ranked, moments = read([answer])
    section = ranked_section(ranked)
    assert section.lead.startswith(f"{answer.best[0]} makes the most progress: ")
    assert any("DisARM" in note for note in section.notes)
    assert moments.kind == "compare"
    assert section.told == answer.explain()
    # From its files, two of which are one section.
    asked = answer.curves[answer.curves["asked"]]
    assert ranked_section(replace(ranked, curves=None, rows=asked)).lead == section.lead


def verdict_rows(**columns) -> pd.DataFrame:
    rows = {"estimator": ["ZGR", "MINE"], "problem": "mlp", "outcome": ["BIASED", "BIASED"]}
    rows |= {"claimed": [False, True], "holds": [True, False], "method": ["exact", "draws"]}
    rows |= {"bias": [0.2, 0.3], "unit": "|g|", "draws": [np.nan, 978], "slope": 0.5}
    return pd.DataFrame(rows | columns)


@pytest.mark.parametrize("flags", [(True, False), ("True", "False"), (1.0, 0.0)])
def test_the_answer_names_verdicts_that_fail(flags):
    section = judged_section(Source("v", verdict_rows(holds=list(flags)), "verify"))
    assert section.lead == "MINE: BIASED. Not as declared, or as asked."
    evidence = dict(section.evidence)["MINE on mlp: BIASED"]
    assert "Bias 0.3 |g|. 978 draws." in evidence
    assert "It declares to be exact here." in evidence


@pytest.mark.parametrize("flags", [(True, True), ("True", "True"), ("", np.nan)])
def test_verdicts_that_do_not_fail_are_not_called_failures(flags):
    section = judged_section(Source("v", verdict_rows(holds=list(flags)), "verify"))
    assert section.lead.startswith("ZGR and MINE: BIASED.")
    assert "Not as declared" not in section.lead


def test_a_ladder_is_a_table_of_the_largest_bias():
    few = [rung for rung in rungs() if rung.regime == "moderate"]
    rows = gradlab.verify_order("ZGR", on=few).rows()
    (table,) = judged_section(Source("l", rows, kind_of(rows))).small
    (row,) = table.rows
    found = dict(zip(table.header, row, strict=True))
    assert (found["linear"], found["quadratic"], found["holds"]) == ("0", "0", "yes")
    assert found["cubic"].endswith("%")


def test_a_training_is_answered_by_its_smallest_test_loss():
    section = training_section(Source("t", trained(), "training"))
    # ZGR: (185 + 20 / 5 + seed) + 2, mean over two seeds.
    assert section.lead == "ZGR reaches the smallest test -ELBO: 191.5 ± 0.5 nats after 5 epochs."
    assert [row[:2] for row in section.small[0].rows] == [
        ["ZGR", "191.5 ± 0.5"],
        ["ST", "196.5 ± 0.5"],
    ]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (pd.DataFrame({"a": [1]}), "other"),
        (pd.DataFrame({"estimator": ["ST"], "bias2": [1.0], "variance": [1.0]}), "compare"),
        (pd.DataFrame(columns=["step", "estimator", "bias2", "variance"]), "probe"),
        (pd.DataFrame(columns=["planted", "outcome"]), "planted"),
        (timed(), "time"),
        (obeyed(), "laws"),
        (ended(), "ends"),
    ],
)
def test_kinds_are_known_by_columns(rows, kind):
    assert kind_of(rows) == kind


def bounded() -> pd.DataFrame:
    on = problem("mlp", 2, 2), regime("moderate", 2, 2)
    return gradlab.bounds.compare(*on, ["VIMCO", "LE", "ZGR"], k=(2, 4, 8))


def test_rows_of_bounds_are_drawn_against_the_number_of_samples():
    (source,) = read([bounded()])
    section = measured_section(source, None, None)
    assert "in 3 of 3 cases" in section.lead
    assert "3 numbers of samples K: 2, 4 and 8" in section.asked
    assert [chart.name for chart in section.charts] == ["samples", "plane"]
    assert section.charts[0].x.column == "K"
    assert "K" in section.shown
    assert "K" not in section.selects
    assert "at one K." in " ".join(section.answer)


def test_rows_of_one_number_of_samples_are_one_case():
    (source,) = read([bounded().query("K == 4")])
    section = measured_section(source, None, None)
    assert "LE makes the most progress" in section.lead
    assert [chart.name for chart in section.charts] == ["plane"]


def test_a_verdict_on_a_bound_is_reported():
    (source,) = read([gradlab.bounds.verify("OVIS(gamma=1)")])
    section = judged_section(source)
    assert section.lead == "OVIS(gamma=1): BIASED. As declared, or as asked."
    assert "K" in section.shown
    assert "BIASED in K" in source.told


def test_rows_of_few_columns_are_shown_and_not_ranked():
    text = report.html([pd.DataFrame({"estimator": ["ST"], "bias2": [1.0], "variance": [2.0]})])
    assert "they are shown, but not ranked at equal cost" in text


# ---- pictures of verdicts, times and theory --------------------------------------------------


def points_of(text: str, chart: str) -> list[dict]:
    """Return the points of the first section with the places that its picture reads."""
    data = Read(text).data()[0]
    names = [c["name"] for c in data["columns"]]
    values = [
        [None if v is None else v if c["number"] else c["texts"][v] for v in c["values"]]
        for c in data["columns"]
    ]
    assert chart in [c["name"] for c in data["charts"]]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def test_verdicts_are_drawn_with_their_bounds_beside_what_counts_as_none():
    points = {p["estimator"]: p for p in points_of(report.html([judged()]), "evidence")}
    found = {name: (p["from"], p["to"], p["allowed"]) for name, p in points.items()}
    assert found["ST"] == (0.7, 1.1, 0.05)
    assert found["RF(m=4)"] == (0.01, 0.044, 0.05)
    assert found["ZGR"] == (None, None, None)  # proved: no interval
    assert points["ARM"]["line"] is None
    (chart,) = judged_section(Source("v", judged(), "verify")).charts
    assert "Not drawn: 1 verdict without a bias." in chart.caption
    assert (chart.by, chart.marks, chart.ys[0].ends) == ("line", "allowed", ("from", "to"))


def test_of_many_verdicts_those_that_fail_are_drawn_first():
    many = pd.concat([judged()[:3].assign(problem=f"p{i}") for i in range(30)], ignore_index=True)
    many["bias"] += 0.001 * many.index
    section = judged_section(Source("v", many, "verify"))
    drawn = section.rows["line"].notna()
    assert drawn.sum() == 40
    assert (many.loc[drawn, "estimator"] == "ST").sum() == 30
    assert "Not drawn: 50 verdicts beside the 40 that matter most." in section.charts[0].caption


def test_a_ladder_is_drawn_by_kind_of_loss():
    few = [rung for rung in rungs() if rung.regime == "moderate"]
    rows = gradlab.verify_order("ZGR", on=few).rows()
    section = judged_section(Source("l", rows, kind_of(rows)))
    assert set(section.rows["line"].dropna()) <= set(rows["kind"])
    assert "cubic" in set(section.rows["line"])
    assert section.charts[0].marks == ""


def test_verdicts_by_draws_are_counted_under_both_of_their_names():
    for method in ("monte carlo", "draws"):
        section = judged_section(Source("v", verdict_rows(method=["exact", method]), "verify"))
        assert section.answer[-1].endswith("rounding: 1. By draws: 1.")


def test_times_are_answered_at_the_largest_size():
    section = timed_section(Source("t", timed(), kind_of(timed())))
    assert section.lead == (
        "At 32 variables of 16 classes ST is the fastest: 8 ms per pass, 0.50 times the time of "
        "F.gumbel_softmax(hard=True)."
    )
    assert [row[0] for row in section.small[0].rows] == ["ST", "F.gumbel_softmax(hard=True)"]
    assert section.small[0].rows[0][2] == "8 (7.2 to 9.6)"
    assert section.notes == ["Left out: GR(k=10): too slow"]
    assert [chart.name for chart in section.charts] == ["times", "by-classes"]
    assert "threads: 1" in section.asked


def test_times_that_overlap_are_named():
    rows = timed()
    rows.loc[rows["estimator"].str.startswith("GR"), ["ms", "ms_q25", "reason"]] = [9, 7, None]
    answer = timed_section(Source("t", rows, "time")).answer
    assert "The quartiles of GR(k=10) overlap with its quartiles." in answer


def test_no_time_at_all_is_a_sentence():
    rows = timed().assign(ms=np.nan, reason="too slow")
    assert timed_section(Source("t", rows, "time")).lead.startswith("Nothing could be timed")


def test_laws_are_answered_by_the_worst_slope():
    section = laws_section(Source("l", obeyed(), kind_of(obeyed())))
    assert section.lead == "The fitted slopes are within 0.02 of those that theory predicts."
    assert [row[-2:] for row in section.small[0].rows] == [["1", "0.980"], ["-1", "-1.010"]]


def test_ends_of_descent_are_counted_against_the_prediction():
    section = ends_section(Source("e", ended(), kind_of(ended())))
    assert section.lead.startswith("In 1 of 2 runs descent ends within 0.05")
    assert section.answer == ["Tucker: LE reaches the smallest loss, 0.201; the least is 0.2."]
    assert section.rows["foreseen"].tolist() == [0.1, 0.02]


def test_curves_and_probe_in_one_table_are_two_sections():
    probed = compared().query("method == 'exact'").assign(step=0, part="probe")
    rows = pd.concat([trained().assign(part="curve"), probed], ignore_index=True)
    assert [source.kind for source in read([rows])] == ["training", "probe"]


@pytest.mark.parametrize("rows", [pd.DataFrame({"task": ["a"], "rho": [0.5]}), compared().T])
def test_rows_of_no_known_kind_are_shown_and_what_is_known_is_named(rows):
    text = report.html([rows.reset_index()])
    assert "has no answer for rows of this kind" in text
    assert report.ANSWERED in text


# ---- faults and odd input ---------------------------------------------------------------------


def test_columns_that_gradlab_does_not_know_are_named():
    data = data_of(compared().assign(mine=range(len(compared())), other="x"), ["estimator"], [])
    assert any(
        "mine and other have no meaning that the report knows" in s for s in data.sentences()
    )


@pytest.mark.parametrize("text", ["", "estimator,bias2,variance\n", "\n\n"])
def test_an_empty_file_gets_a_sentence(tmp_path, text):
    file = tmp_path / "empty.csv"
    file.write_text(text)
    assert "There are no rows." in report.html([file])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.csv", None, "there is no "),
        ("rows.txt", b"a,b\n1,2\n", "is not rows of gradlab: give a .csv"),
        ("rows.csv", b"\xff\xfe\x00\x81", "is not a CSV file"),
        ("rows.csv", b'a\n"b,1\n2,3,4,5\n6', "is not a CSV file"),
        ("rows.db", b"not a store", "rows.db"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, content, told):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((report.ReportError, OSError), match=re.escape(told)) as caught:
        report.html([file])
    assert "\n" not in str(caught.value)


def test_other_things_are_refused(tmp_path):
    with pytest.raises(report.ReportError, match="not of int"):
        report.html([3])
    with pytest.raises(report.ReportError, match="nothing to report"):
        report.html([])
    with pytest.raises(report.ReportError, match=r"holds no \.csv"):
        report.html([tmp_path])


def test_without_the_extra_there_is_a_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(report.ReportError, match=r"pip install 'gradlab\[report\]'"):
        report.html([compared()])


# ---- safety -----------------------------------------------------------------------------------


def test_hostile_names_stay_text():
    found = Read(report.html([hostile()], title=HOSTILE))
    assert {tag for tag, _ in found.elements} & {"img", "iframe", "object", "link"} == set()
    assert not [name for _, has in found.elements for name in has if name.startswith("on")]
    (data,) = found.data()
    names = next(c for c in data["columns"] if c["name"] == "estimator")["texts"]
    assert f"{HOSTILE}0" in names


def test_json_holds_no_sign_that_ends_a_script():
    text = json_text({HOSTILE: [HOSTILE, "\ud800"]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert list(json.loads(text)) == [HOSTILE]
    text.encode()


def test_the_policy_allows_the_two_scripts_of_gradlab_and_no_request(page):
    found = Read(page)
    (policy,) = [a["content"] for t, a in found.elements if a.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    bodies = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies]
    assert len(hashes) == 2
    assert re.findall(r"'sha256-(.*?)'", policy) == hashes
    loads = [a for t, a in found.elements for n in ("src", "srcset", "data") if n in a]
    assert loads == []
    assert all(str(a.get("href", "#")).startswith("#") for t, a in found.elements if t != "use")


def test_what_is_not_finite_is_empty():
    assert [number_text(v) for v in (np.nan, np.inf, -np.inf, None)] == [""] * 4
    data = data_of(pd.DataFrame({"x": [1.0, np.nan, np.inf, -np.inf]}), ["x"], [])
    assert data.columns[0]["values"] == [1, None, None, None]
    assert not re.search(r"\b(NaN|Infinity)\b", json.dumps(Read(report.html([hostile()])).data()))


def test_whole_numbers_keep_their_digits():
    seeds = [1234567890123, 3]
    (seed, value) = data_of(pd.DataFrame({"seed": seeds, "x": [1.23456789, 2]}), [], []).columns
    assert seed["values"] == seeds
    assert value["values"] == [1.23457, 2]


def test_points_without_a_logarithm_are_counted():
    rows = compared().copy()
    rows.loc[rows["method"] == "exact", "bias2"] = [
        -1e-3,
        0.0,
        *[0.1] * (sum(rows["method"] == "exact") - 2),
    ]
    text = report.html([rows])
    drawn = prepared(rows)
    count = int((drawn["rel_bias2"] <= 1e-18).sum())
    assert count >= 2
    assert f"{count} points have bias² / |g|² of 0 or less" in text


# ---- size -------------------------------------------------------------------------------------


def many(copies: int) -> pd.DataFrame:
    rows = swept()
    noise = np.random.default_rng(0).lognormal(0, 0.3, (copies, len(rows)))
    parts = [
        rows.assign(logits_seed=3 * k + rows["logits_seed"], variance=rows["variance"] * noise[k])
        for k in range(copies)
    ]
    return pd.concat(parts, ignore_index=True)


def test_rows_that_differ_in_seeds_become_medians():
    rows = prepared(many(40))
    few, told = reduced(rows, 100, "sweep")
    assert len(few) <= 100
    assert f"{len(rows):,} rows are more than a page holds" in told
    keys = ["problem", "estimator"]
    medians = rows.groupby(keys)["variance"].median()
    np.testing.assert_allclose(few.set_index(keys)["variance"].reindex(medians.index), medians)
    assert few["merged"].sum() == len(rows)


@pytest.mark.slow  # pandas takes seconds for 200,000 rows; the medians have a fast test
def test_a_report_of_200_000_rows_is_small(tmp_path):
    rows = many(200_000 // len(swept()) + 1)
    file = report.write([rows], tmp_path / "report.html")
    assert file.stat().st_size <= report.LARGEST
    text = file.read_text()
    assert f"{len(rows):,} rows are more than a page holds" in text
    assert "makes the most progress most often" in text


@pytest.mark.thorough  # test_rows_that_differ_in_seeds_become_medians
def test_a_report_shrinks_until_it_fits(monkeypatch, page):
    monkeypatch.setattr(report, "LARGEST", len(page.encode()) - 1)
    rows = many(30)
    text = report.html([rows])
    monkeypatch.setattr(report, "LARGEST", 10**9)
    assert len(text) < len(report.html([rows]))


# ---- looks and citations ----------------------------------------------------------------------


def test_colours_are_those_of_the_figures():
    from gradlab.plots.style import color

    looks = series_looks(["ST", "ZGR", "GS-ST", "Mine"])
    assert {s: looks[s].color for s in ("ST", "ZGR", "GS-ST")} == {
        s: color(s) for s in ("ST", "ZGR", "GS-ST")
    }
    assert len({(look.color, look.shape) for look in looks.values()}) == 4


@pytest.mark.parametrize("name", ESTIMATORS)
def test_citations_need_no_torch_and_are_the_same(name):
    assert bibtex_of_names([f"{name}(tau=1)"]) == bibtex([name])


def test_the_page_cites_its_estimators(page):
    keys = re.findall(r"^@\w+\{(\w+),", bibtex(["ST", "ZGR", "GR", "RF", "ARSM"]), re.M)
    assert [key for key in keys if f"{{{key}," not in page] == []


def test_runs_of_a_probe_are_told_apart():
    rows = compared().query("method == 'exact' and tau != tau").assign(step=0)
    runs = pd.concat([rows.assign(trained=t, seed=s) for t in ("ST", "ZGR") for s in range(3)])
    section = measured_section(Source("p", runs, "probe"), None, None)
    assert section.lead.endswith("in 6 of 6 steps.")
    assert {"trained", "seed"} <= set(section.selects)
    assert {"trained", "seed"} <= set(section.charts[0].lines)


def test_cases_without_a_gradient_are_not_counted_silently():
    rows = prepared(swept())
    rows.loc[rows["logits_seed"] == 2, ["truth2", "cosine"]] = [0.0, np.nan]
    lead, answer, _ = wins(rows, 12, 10)
    assert lead.endswith(" of 4 cases.")
    assert any(text.startswith("2 cases of 6 not counted") for text in answer)


def test_a_problem_that_decides_its_size_has_one_menu():
    rows = swept().assign(size_of=1)
    rows.loc[rows["problem"] == "cubic", "C"] = 4
    assert measured_section(Source("s", rows, "sweep"), 4, 10).selects == ["problem", "logits_seed"]
    rows.loc[rows["logits_seed"] == 1, "C"] = 5
    assert "size" in measured_section(Source("s", rows, "sweep"), 4, 10).selects

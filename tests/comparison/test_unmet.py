"""Sparse losses: what draws have not met is said, and nothing is ranked on its strength."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.cli import main
from gradlab.comparison.comparing import compare
from gradlab.comparison.ranking import best_temperature, ranking
from gradlab.comparison.recommending import recommend
from gradlab.comparison.unmet import VISITS, draws_for, rare_draws, rare_states
from gradlab.estimators import ARSM, GumbelSoftmax, LeaveOneOut
from gradlab.exact.moments import Enumeration
from gradlab.exact.truth import exact_moments
from gradlab.moments import Moments
from gradlab.nn.probe import GradientProbe

pytestmark = pytest.mark.usefixtures("unchecked")

# ---- members of the kind ----------------------------------------------------------------------


def uniform(variables: int, classes: int = 4) -> torch.Tensor:
    return torch.zeros(variables, classes, dtype=torch.float64)


def at_first(x: torch.Tensor) -> torch.Tensor:
    """Return 1 at the state of all classes 0."""
    return x[..., 0].prod(-1)


def weighted(x: torch.Tensor) -> torch.Tensor:
    """Return a linear f."""
    variables, classes = x.shape[-2:]
    weight = torch.linspace(-1, 1, variables * classes, dtype=x.dtype).reshape(variables, classes)
    return (x * weight).sum((-2, -1))


def opposite(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0].prod(-1) - x[..., 1].prod(-1)


def gradient_only(x: torch.Tensor) -> torch.Tensor:
    """Return a sum of classes whose gradient is 0 but at one state."""
    corner = (x[..., 0].sum(-1) - x.shape[-2] + 0.5).relu()
    return weighted(x.detach()) + 50 * (corner - corner.detach())


RARE_LOGITS = torch.tensor([[-6.9, 0.0]] * 3, dtype=torch.float64)  # (1e-3)^3
PEAKED = torch.tensor([[12.0, 0.0, 0.0]] * 3, dtype=torch.float64)
MASKED = torch.tensor([[0.0, 0.5, -math.inf]] * 4, dtype=torch.float64)

SPARSE = {
    "one of 4^5": (at_first, uniform(5)),
    "one of 4^6": (at_first, uniform(6)),
    "one of 4^8": (at_first, uniform(8)),
    "one of 2^14": (at_first, uniform(14, 2)),
    "reward 1000 at one of 4^6": (lambda x: 1000 * at_first(x), uniform(6)),
    "a millionth at one of 4^6": (lambda x: 1e-6 * at_first(x), uniform(6)),
    "with a small smooth part": (lambda x: at_first(x) + 0.001 * weighted(x), uniform(8)),
    "with an offset": (lambda x: at_first(x) + 100, uniform(6)),
    "two of opposite sign": (opposite, uniform(7)),
    "constant but one of 1e-9": (at_first, RARE_LOGITS),
    "the other class of peaked logits": (lambda x: x[..., 0, 1], PEAKED),
}
NOT_SPARSE = {
    "zero": (lambda x: 0 * weighted(x), uniform(5)),
    "constant": (lambda x: 3 + 0 * weighted(x), uniform(5)),
    "huge where masked": (lambda x: weighted(x) + 1e6 * x[..., 2].prod(-1), MASKED),
    "linear": (weighted, uniform(5)),
}
sparse = pytest.mark.parametrize("name", SPARSE)
plain = pytest.mark.parametrize("name", NOT_SPARSE)

DRAWN = ["ARSM", "GS(tau=0.5)"]
EXACT = ["RF(m=4)", "REINFORCE"]


def without_top_up(monkeypatch):
    monkeypatch.setattr("gradlab.comparison.draws_enough._EXTRA", 0)


# ---- compare ----------------------------------------------------------------------------------


@sparse
@pytest.mark.few(4)
def test_rows_of_few_draws_are_marked(name):
    f, logits = SPARSE[name]
    on = Enumeration(f, logits)
    rows = compare(on, estimators=[*DRAWN, *EXACT], draws=320)
    drawn = rows["method"] == "monte carlo"
    assert set(rows["series"][~drawn]) == {"RF(m=4)", "REINFORCE(baseline=0)"}
    marked = rows[drawn]
    assert (marked["draws_needed"] > marked["draws"]).all()
    assert marked["note"].str.contains(r"met .*in 320 draws: the states that carry half").all()
    assert rows.loc[~drawn, ["note", "draws_needed"]].isna().all(axis=None)
    # What has not been met is larger than what is said to be the error.
    assert (marked[["variance_se", "mse_se", "bias2_se"]] > 0).all(axis=None)


@sparse
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.few(12)
def test_the_errors_of_draws_cover_what_is_exact(name, seed):
    f, logits = SPARSE[name]
    on = Enumeration(f, logits)
    rows = compare(on, estimators=EXACT, draws=2000, method="both", seed=seed)
    for _, part in rows.groupby("series"):
        exact, drawn = part.to_dict("records")
        for column in ("variance", "mse"):
            error = abs(drawn[column] - exact[column])
            # Of f = 100 the state adds millionths to E f^2, which no baseline takes away.
            assert error <= 3 * drawn[f"{column}_se"] + 1e-5 * exact[column], column


@plain
@pytest.mark.few(2)
def test_others_are_not_marked(name):
    f, logits = NOT_SPARSE[name]
    rows = compare(f, logits, ["ARSM", *EXACT], draws=2000, method="monte-carlo")
    assert rows["draws_needed"].isna().all()
    if name == "zero":
        assert rows["note"].isna().all()


def test_a_batch_is_marked_by_its_rarest_elements():
    logits = torch.stack([uniform(6)] * 3)
    rows = compare(at_first, logits, ["ARSM", "RF(m=4)"], draws=320)
    alone = compare(at_first, logits[0], ["ARSM"], draws=320)
    # Each draw of the batch meets three states.
    assert rows["draws_needed"][0] == pytest.approx(alone["draws_needed"][0] / 3, rel=0.01)
    assert rows["method"][1] == "exact"


def test_the_exact_gradient_has_missed_nothing():
    truth = exact_moments_of_reference()

    def exact(f, logits, n, generator):
        return truth.expand(n, *truth.shape)

    rows = compare(at_first, uniform(6), [exact], draws=64)
    assert rows["draws_needed"].isna().all()


def exact_moments_of_reference():
    return exact_moments(LeaveOneOut(4), at_first, uniform(6)).mean


def test_a_gradient_at_one_state_alone_is_exact_or_noted():
    f, logits = gradient_only, uniform(6)
    rows = compare(f, logits, ["ST", "RF(m=4)", "GS(tau=0.5)"], draws=2000)
    by_name = rows.set_index("series")
    assert list(by_name["method"]) == ["exact", "exact", "monte carlo"]
    # Values are smooth, so that REINFORCE is met by all; ST only at the state.
    assert by_name["variance"]["ST"] == pytest.approx(50**2 / 16 * 0.75 * 6 * 4.0**-6, rel=0.01)


def test_what_is_left_to_draws_is_noted():
    logits = uniform(30)
    rows = compare(at_first, logits, ["ARSM"], draws=320, reference="RF(m=4)", reference_draws=640)
    told = "all 320 draws are equal: events rarer than 0.02 may be missed"
    assert rows["note"][0].endswith(told)

    def heavy(x):
        return x[..., :2, 0].prod(-1) * 100 + weighted(x)

    rows = compare(heavy, logits, ["RF(m=2)"], draws=160, reference="RF(m=4)", reference_draws=640)
    assert "the variance is carried by" in rows["note"][0]


def test_draws_of_the_reference_tell_how_rare_the_others_are():
    f = lambda x: 1000 * x[..., :5, 0].prod(-1)  # noqa: E731
    settings = {"draws": 64, "reference": "RF(m=4)", "reference_draws": 20_000}
    rows = compare(f, uniform(30), ["ARSM"], **settings)
    # Met by about 80 of its draws, four states each: 64 draws of 7 states meet it .4 times.
    assert 300 < rows["draws_needed"][0] < 4000
    assert "what carries the variance of the reference RF(m=4)" in rows["note"][0]


def test_the_draws_that_are_needed():
    rare = rare_states(Enumeration(at_first, uniform(4)))
    assert rare.evaluations == pytest.approx(2 * VISITS * 4**4, rel=0.01)
    assert draws_for(ARSM(), rare, (4, 4)) == math.ceil(rare.evaluations / 7)
    assert draws_for(LeaveOneOut(5), rare, (4, 4)) == math.ceil(rare.evaluations / 5)
    assert draws_for(GumbelSoftmax(), rare, (4, 4)) == rare.evaluations
    assert rare_states(Enumeration(at_first, uniform(30))) is None
    assert rare_states(Enumeration(at_first, uniform(4)), states=100) is None
    blank = Moments(uniform(4), uniform(4)[:, 0], 100.0)
    assert rare_draws(blank, LeaveOneOut(4), (4, 4)).evaluations == math.inf


# ---- recommend --------------------------------------------------------------------------------


# In every run one of each way to be sparse; compare marks all of them above.
RANKED = {"one of 4^5", "with a small smooth part", "two of opposite sign"}
RANKED |= {"constant but one of 1e-9", "the other class of peaked logits"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in RANKED else pytest.mark.slow) for n in SPARSE]
)
@pytest.mark.few(1)
def test_what_is_not_met_is_not_ranked(name, monkeypatch):
    without_top_up(monkeypatch)
    f, logits = SPARSE[name]
    answer = recommend(f, logits, evaluations=16, estimators=[*DRAWN, *EXACT], draws=320)
    ranked = answer.table[answer.table["rank"].notna()]
    assert set(ranked["method"]) == {"exact"}
    assert set(ranked["series"]) == {"RF(m=4)", "REINFORCE(baseline=0)"}
    (reason,) = answer.table.loc[answer.table["series"] == "ARSM", "reason"]
    assert reason.startswith("not measured: ")
    assert "would need" in reason
    text = answer.explain()
    assert "in 320 draws" in " ".join(text.split())
    assert "nan" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "declares to be exact here, but" not in text


@plain
@pytest.mark.few(1)
def test_others_are_ranked(name):
    f, logits = NOT_SPARSE[name]
    answer = recommend(f, logits, evaluations=16, estimators=["ARSM", *EXACT], draws=2000)
    assert answer.table["rank"].notna().sum() == 3
    assert "nan" not in answer.explain()


@pytest.mark.thorough  # what_is_not_met_is_not_ranked, of all estimators
def test_all_estimators_at_one_of_many_states(monkeypatch):
    without_top_up(monkeypatch)
    some = [
        "ARSM",
        "ARS",
        "LE",
        "EMA",
        "LEARNED",
        "RELAX",
        "RF(m=2)",
        "ST",
        "ZGR",
        "GST-p",
        "REBAR",
    ]
    answer = recommend(
        at_first, uniform(5), evaluations=32, draws=64, estimators=some, temperatures=[0.3, 1.0]
    )
    ranked = answer.table[answer.table["rank"].notna()]
    assert set(ranked["method"]) == {"exact"}
    assert answer.table.loc[answer.table["rank"].isna(), "reason"].notna().all()


def test_more_draws_are_made_where_they_are_few_enough():
    f, logits = SPARSE["one of 4^5"]
    answer = recommend(f, logits, evaluations=16, estimators=["ARSM", "RF(m=4)"], draws=320)
    by_name = answer.table.set_index("series")
    assert by_name["rank"].notna().all()
    needed = draws_for_arsm(f, logits)
    assert by_name["draws"]["ARSM"] == needed > 320
    # |g| = 1.5e-3: what 320 draws did not meet is there now.
    assert by_name["rmse"]["ARSM"] > 1
    assert by_name["rmse_se"]["ARSM"] > 0.05
    assert f"by {needed:,} draws each" in " ".join(answer.explain().split())


def draws_for_arsm(f, logits):
    return draws_for(ARSM(), rare_states(Enumeration(f, logits)), (4, 5))


def test_nothing_measured_is_an_error_with_a_way_out(monkeypatch):
    without_top_up(monkeypatch)
    f, logits = SPARSE["one of 4^8"]
    with pytest.raises(ValueError, match=r"ARSM: not measured: not met in .*draws=280865") as told:
        recommend(f, logits, evaluations=16, estimators=["ARSM"])
    assert "give estimators whose moments are exact, such as RF(m=4)" in str(told.value)


def test_left_to_draws_a_blind_ranking_says_so():
    given = {"evaluations": 16, "estimators": ["ARSM", "RF(m=4)"], "draws": 320}
    answer = recommend(at_first, uniform(30), **given)
    assert answer.notes[0].startswith("No draw of the reference, RF(m=4), 6,400 draws, differed")
    assert "all 320 draws are equal" in answer.explain()


@pytest.mark.thorough  # the blind ranking is the same path
def test_left_to_draws_those_that_met_too_little_rank_only_among_themselves():
    def f(x):
        return 1e4 * x[..., :6, 0].prod(-1) + weighted(x)

    given = {"evaluations": 16, "estimators": ["ARSM", "RF(m=4)"], "draws": 320, "seed": 1}
    answer = recommend(f, uniform(30), **given)
    assert answer.notes[0].startswith("No estimator has met what carries the variance")
    assert answer.table["rank"].notna().all()


LOSS = """
def sparse(x):
    return x[..., 0].prod(-1) + .001 * x[..., 1].sum(-1)

def zero(x):
    return 0 * x.sum((-2, -1))
"""


@pytest.mark.thorough  # test_what_is_not_met_is_not_ranked
def test_the_command_line_lists_what_is_not_met(tmp_path, capsys, monkeypatch):
    without_top_up(monkeypatch)
    (tmp_path / "my.py").write_text(LOSS)
    np.save(tmp_path / "logits.npy", np.zeros([6, 4]))
    common = ["--logits", str(tmp_path / "logits.npy"), "--evaluations", "16", "--draws", "640"]
    chosen = ["ARSM", "RF(m=4)", "--workers", "1"]
    code = main(["recommend", "--loss", f"{tmp_path / 'my.py'}:sparse", *common, *chosen])
    told = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "Best: RF(m=4). One gradient is the mean of 4 draws." in told
    assert "not measured ARSM: not met in 640 draws: the states that carry half" in told
    code = main(["recommend", "--loss", f"{tmp_path / 'my.py'}:sparse", *common, "ARSM"])
    assert code == 2
    assert "no estimator could be measured: ARSM" in capsys.readouterr().err
    assert main(["recommend", "--loss", f"{tmp_path / 'my.py'}:zero", *common, *chosen]) == 0


def test_the_command_line_of_compare_shows_the_notes(tmp_path, capsys):
    (tmp_path / "my.py").write_text(LOSS)
    command = ["compare", "--problem", "quadratic", "--size", "4x4", "--regime", "peaked"]
    main([*command, "--draws", "32", "ARSM"])
    assert "\nnotes\nARSM: " in capsys.readouterr().out


# ---- rows -------------------------------------------------------------------------------------


def rows_of(**needed) -> pd.DataFrame:
    shared = {"problem": "toy", "logits_seed": None, "tau": math.nan, "method": "monte carlo"}
    shared |= {"reason": None, "truth2": 1.0, "bias2": 0.0, "bias2_se": 0.0, "draws": 100}
    shared |= {"variance_se": 0.01, "mse_se": 0.01, "cosine": 1.0, "cosine_se": 0.0}
    shared |= {"scale_free_variance_se": 0.01}
    return pd.DataFrame(
        [
            shared
            | {"estimator": name, "series": name, "variance": v, "mse": v, "cost": cost}
            | {"scale_free_variance": v, "draws_needed": needed.get(name, math.nan)}
            for name, v, cost in (("A", 1e-6, 2.0), ("B", 1.0, 4.0))
        ]
    )


def test_rows_of_too_few_draws_are_not_ranked():
    assert list(ranking(rows_of(), [8])["series"]) == ["A", "B"]
    assert list(ranking(rows_of(A=1000), [8])["series"]) == ["B"]
    assert list(best_temperature(rows_of(A=1000), [1])["series"]) == ["B"]


@pytest.mark.parametrize("read", [lambda rows: ranking(rows, [8]), best_temperature])
def test_rows_without_any_that_counts_are_named(read):
    told = "rows hold no estimator whose draws have met .* A with draws=1000, or take one"
    with pytest.raises(ValueError, match=told):
        read(rows_of(A=1000, B=2000))


def test_a_ranking_of_nothing_measured_is_named():
    with pytest.raises(ValueError, match="rows must not be empty"):
        ranking(rows_of()[:0], [8])
    with pytest.raises(ValueError, match="rows hold no measured estimator: A: too large"):
        ranking(rows_of().assign(reason="too large"), [8])


@pytest.mark.parametrize("budgets", [[], [1]])
def test_budgets_that_pay_for_nothing_are_named(budgets):
    told = "budgets must pay for a draw of one estimator at least: the cheapest, A, costs 2 "
    with pytest.raises(ValueError, match=told):
        ranking(rows_of(), budgets)


# ---- the probe --------------------------------------------------------------------------------


def test_the_probe_marks_what_its_draws_have_not_met():
    logits = torch.stack([uniform(5)] * 2)
    probe = GradientProbe(["ARSM", "GS(tau=0.5)", "RF(m=4)"], draws=64)
    probe(0, at_first, logits)
    by_name = probe.rows.set_index("series")
    assert by_name["method"]["RF(m=4)"] == "exact"
    assert by_name["draws_needed"].notna().tolist() == [True, True, False]
    assert "in 64 draws: the states" in by_name["note"]["ARSM"]
    assert by_name["variance_se"]["ARSM"] > 0


def test_the_probe_notes_draws_that_are_all_equal():
    logits = torch.stack([uniform(12)] * 2)
    probe = GradientProbe(["ARSM"], draws=64, reference_draws=64)
    probe(0, at_first, logits)
    assert probe.rows["truth"][0] == "RF(m=4), 64 draws"
    assert probe.rows["note"][0] == "all 64 draws are equal: events rarer than 0.1 may be missed"


def test_the_probe_says_nothing_of_a_plain_loss():
    logits = torch.stack([uniform(3)] * 2)
    probe = GradientProbe(["ARSM"], draws=512)
    probe(0, weighted, logits)
    assert probe.rows[["note", "draws_needed"]].isna().all(axis=None)

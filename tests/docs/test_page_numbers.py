"""Every number that a page of docs/ says of a figure is in the committed rows of that figure."""

import re
from functools import cache

import pandas as pd
import pytest

import gradlab
from gradlab.exact import enumeration
from gradlab.nn import probe
from gradlab.plots.names import short
from gradlab.training.runs import summary
from pages import ROOT, sentences, text

WHICH = sentences("docs/which-estimator.md")


@cache
def rows(figure: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{figure}.csv", low_memory=False)


def relative(part: pd.DataFrame, column: str = "bias2") -> "pd.Series[float]":
    """Return the root of a column in lengths of the gradient."""
    return (part[column] / part["truth2"]) ** 0.5


def percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")


def points(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


# --- which estimator -------------------------------------------------------------------------


def test_costs_are_those_of_the_estimators() -> None:
    le = gradlab.parse("LE")
    said = f"{le.calls(3, 4)} for 4 variables of 3 classes, {le.calls(10, 30)} for 30 variables"
    assert said in WHICH
    f, logits = gradlab.problems.problem("cubic", 4, 3), gradlab.problems.regime("moderate", 4, 3)
    cost = gradlab.compare(f, logits, ["ZGR", "REINFORCE", "RF(m=4)"])["cost"]
    assert (12 / cost).tolist() == [4, 12, 3]
    assert "four draws of ZGR, 12 of REINFORCE, or three of RF(m=4)" in WHICH


def test_atlas_says_which_estimator_makes_the_most_progress() -> None:
    best = rows("atlas")
    best = best[(best["kind"] == "best") & (best["criterion"] == "progress")]
    wins = best.groupby("series")["wins"].sum()
    assert wins.idxmax() == "LE"
    others = 600 - wins.max()
    assert f"with LE in {wins.max():.0f} of the 600. In the other {others:.0f} something" in WHICH


def test_zoo_says_who_makes_the_most_progress() -> None:
    zoo = rows("zoo")
    zoo = zoo[zoo["reason"].isna()]
    best = zoo.loc[zoo.groupby(["problem", "series", "fits"], sort=False)["progress"].idxmax()]
    first = best.loc[best.groupby("problem", sort=False)["progress"].idxmax()].set_index("problem")
    found = {name.partition("(")[0]: series for name, series in first["series"].items()}
    expected = {"quadratic": "LE", "cubic": "SAS(k=3)", "mlp": "LEARNED", "vae": "UNORD(k=4)"}
    assert found == expected
    assert first["declared_unbiased"].all()
    progress = best.set_index(best["problem"].str.partition("(")[0])["progress"]
    quadratic, vae = progress["quadratic"], progress["vae"]
    assert f"all {len(quadratic)} candidates reach more than half" in WHICH
    assert (quadratic > 0.5).all()
    assert (
        f"On the VAE {(vae > 0.5).sum()} of {len(vae)} do, and {(vae < 0.1).sum()} reach" in WHICH
    )


def test_prediction_says_how_well_progress_predicts() -> None:
    found = rows("prediction")
    found = found[(found["kind"] == "correlation") & (found["gradient"] == "estimated")]
    found = found[(found["per"] == "draw") & (found["outcome"] == "steps")]
    found = found[found["moment"] == "mean"].set_index("task")
    progress = found.query("criterion == 'progress' and averaged == 10")["rho"]
    error = found.query("criterion == 'error' and averaged == 1")["rho"]
    assert len(progress) == 9
    assert sorted(found.query("criterion == 'progress'")["estimators"].unique()) == [6, 16]
    assert found.loc["binarized MNIST 30x10", "estimators"].unique().tolist() == [6]
    assert "16 estimators were trained on eight tasks, and six on MNIST" in WHICH
    assert f"a median of {points(progress.median())} over the nine tasks" in WHICH
    assert f"the error of one gradient it is {points(error.median())}" in WHICH
    assert f"weak on MNIST ({points(progress['binarized MNIST 30x10'])})" in WHICH


def test_budget_says_when_unbiased_draws_overtake() -> None:
    crossing = rows("budget").groupby("problem")["crossing"].first()
    cubic, network, quadratic, vae = (
        crossing[crossing.index.str.startswith(name)].item()
        for name in ("cubic", "mlp", "quadratic", "vae")
    )
    assert f"after {cubic:.0f} evaluations on the cubic" in WHICH
    assert f"after {network:.0f} on the network" in WHICH
    assert vae == gradlab.LeaveOneOut(4).calls(4, 4)
    assert "from the start on the VAE" in WHICH
    assert pd.isna(quadratic)
    assert "On the quadratic it stays larger" in WHICH


def test_biases_are_those_of_the_rows() -> None:
    exact = rows("quadratics").query("method == 'exact'")
    quadratic = relative(exact).groupby(exact["series"])
    assert quadratic.max()["ZGR"] < 1e-12
    assert f"ST has a median of {percent(quadratic.median()['ST'])} of the gradient" in WHICH
    cubic = rows("budget").query("problem.str.startswith('cubic')").groupby("estimator").first()
    bias = relative(cubic)
    assert f"ST is off by {percent(bias['ST'])}, ZGR by {percent(bias['ZGR'])}, " in WHICH
    assert f"GS-ST(tau=0.5) by {percent(bias['GS-ST(tau=0.5)'])}." in WHICH


def test_trained_vaes_are_those_of_the_rows() -> None:
    last = summary(rows("vae-mnist"), ["test_nelbo"]).set_index("estimator")["test_nelbo"]
    assert last.idxmin() == "ZGR"
    assert f"{last['ZGR']:.1f} nats and the unbiased RF(m=4) {last['RF(m=4)']:.1f}" in WHICH


def test_times_are_those_of_the_rows() -> None:
    ratio = rows("timing").query("N == 32").set_index(["series", "C"])["ratio"]
    assert (
        f"ZGR takes {ratio['ZGR', 256]:.2f} of the time of `F.gumbel_softmax(hard=True)`, "
        f"GS-ST {ratio['GS-ST', 256]:.2f} and GR(k=10) {ratio['GR(k=10)', 256]:.1f}"
    ) in WHICH
    assert f"at C = 16 it takes {ratio['ARSM', 16]:.0f} times as long" in WHICH
    assert set(rows("timing")["batch"]) == {128}


def test_biases_at_many_classes_are_those_of_the_rows() -> None:
    part = rows("classes").query("problem.str.startswith('mlp') and N == 1 and C == 64")
    bias = relative(part).groupby(part["estimator"]).median()
    assert f"{percent(bias['ST'])} of the gradient for ST, {percent(bias['ZGR'])} for ZGR" in WHICH
    assert f"and {percent(bias['GS-ST(tau=0.5)'])} for GS-ST(tau=0.5)" in WHICH


def test_variances_on_bits_are_those_of_the_rows() -> None:
    bits = rows("baselines").query("problem == 'three bits' and logit == 0 and reason.isna()")
    cost = bits[bits["fits"] == 0].set_index("estimator")["cost_variance"]
    (fitted,) = bits[bits["estimator"].str.startswith("REINFORCE") & (bits["fits"] > 0)][
        "cost_variance"
    ]
    plain = cost["REINFORCE(baseline=0)"]
    ratio = {name: f"{plain / cost[name]:.0f}" for name in ("ARMS(m=4)", "RF(m=4)", "DisARM")}
    assert f"ARMS(m=4) divides the variance of REINFORCE by {ratio['ARMS(m=4)']}, " in WHICH
    assert f"RF(m=4) by {ratio['RF(m=4)']} and DisARM by {ratio['DisARM']}." in WHICH
    assert f"constant baseline divides it by {plain / fitted:.0f}." in WHICH
    assert f"{cost['ZGR'] / cost['RF(m=4)']:.0f} times the variance of RF(m=4)" in WHICH


def test_directions_in_deep_networks_are_those_of_the_rows() -> None:
    deep = rows("depth").query("depth == 8")
    cosine = deep.groupby(["steps", "distance", "series"])["cosine"].mean()
    near, first, trained = cosine[0, 0], cosine[0, 7], cosine[100, 7]
    assert near.min() > 0.99
    assert first["GS-ST"] == pytest.approx(first["GR(k=10)"])
    assert (
        f"the cosine is {points(first['ST'])} for ST, {points(first['ZGR'])} for ZGR and "
        f"{points(first['GR(k=10)'])} for GS-ST and GR. After 100 steps of training it is "
        f"{points(trained['ST'])}, {points(trained['ZGR'])} and {points(trained['GR(k=10)'])}."
    ) in WHICH
    assert (deep[deep["series"] == "RF(m=4)"]["bias2"] == 0).all()


# --- temperature -----------------------------------------------------------------------------


def test_biases_at_temperatures_are_those_of_the_rows() -> None:
    page = sentences("docs/temperature.md")
    exact = rows("temperature").query("method == 'exact' and problem.str.startswith('mlp')")
    exact = exact.set_index(exact["series"] + exact["tau"].map(" {:.3g}".format))
    bias, deviation = (relative(exact, column) for column in ("bias2", "variance"))
    cold, hot, zgr = "GS-ST 0.1", "GS-ST 1", "ZGR nan"
    assert f"a bias of {percent(bias[cold])} of the gradient at tau = 0.1" in page
    assert f"a standard deviation of {deviation[cold]:.1f} |g|" in page
    assert f"At tau = 1 the bias is {percent(bias[hot])}, " in page
    assert f"the standard deviation {deviation[hot]:.2f} |g|." in page
    assert f"ZGR has {percent(bias[zgr])} and {deviation[zgr]:.2f} |g|" in page


# --- verdicts --------------------------------------------------------------------------------

PLANTED = rows("verdicts")["planted"].dropna()


@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_those_of_the_committed_rows(name: str) -> None:
    found = rows("verdicts")
    row = found[found["planted"] == name].iloc[0]
    assert row["outcome"] in ("BIASED", "REFUSED")
    assert row["right_outcome"] == "UNBIASED"
    bias = f"{row['bias']:.0%}" if row["outcome"] == "BIASED" else "refused"
    cells = f"{bias} | {row['draws']:,.0f} | {row['right_draws']:,.0f} |"
    assert f"| {name} | {cells}" in text("docs/is-my-gradient-right.md")


@pytest.mark.slow  # over a second: a verdict by draws
def test_comments_of_the_verdict_example_are_what_it_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = text("docs/is-my-gradient-right.md")
    (example,) = re.findall(r"```python\nimport gradlab, torch(.*?)```", page, re.S)
    exec("import gradlab, torch" + example, {})
    shown = capsys.readouterr().out
    # The last digits of a bias that is 0 up to rounding depend on the machine.
    proved = r"UNBIASED, proved: bias (\S+) \|g\|, "
    (written,) = re.findall(proved, page)
    (printed,) = re.findall(f"^ZGR on quadratic.*: {proved}", shown)
    assert 0 <= float(written) < 1e-14
    assert 0 <= float(printed) < 1e-14
    assert "leave_one_out on quadratic(N=2, C=3, seed=0): BIASED" in shown
    assert "ZGR is EXACT TO DEGREE 2" in shown


# --- real models -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", rows("vae-mnist")["estimator"].unique())
def test_table_of_trained_models_is_that_of_the_committed_rows(name: str) -> None:
    columns = ["train_nelbo", "test_nelbo", "test_bound", "seconds"]
    row = summary(rows("vae-mnist"), columns).set_index("estimator").loc[name]
    cells = [f"{row[c]:.1f} ± {row[f'{c}_spread']:.1f}" for c in columns[:3]]
    line = f"| {name} | {' | '.join(cells)} | {row['seconds'] / 60:.1f} |"
    assert line in text("docs/real-models.md")


def test_order_of_trained_models_is_that_of_the_page() -> None:
    last = summary(rows("vae-mnist"), ["test_nelbo"]).sort_values("test_nelbo")
    listed = re.findall(r"^\| (\S.*?) \| \d+\.\d ± ", text("docs/real-models.md"), re.M)
    assert list(last["estimator"]) == listed
    order = [short(name) for name in listed]
    assert order[:3] == ["ZGR", "GR(τ=0.5, k=10)", "RF(4)"]
    assert "ZGR is best, then GR, then RF(4)." in sentences("docs/real-models.md")
    slowest = summary(rows("vae-mnist"), ["seconds"]).set_index("estimator")["seconds"]
    assert slowest.idxmax() == "ARSM"
    assert order.index("ARSM") > order.index("RF(4)")


# --- exact -----------------------------------------------------------------------------------


def test_limits_are_those_of_the_code() -> None:
    page = text("docs/exact.md")
    states = enumeration.MAX_CONFIGURATIONS
    assert states == 2**24 == 4**12
    assert 10**7 <= states < 10**8
    assert (
        f"2²⁴ = {states:,} states, such as 24 bits, 12 variables of 4 classes, or 7 of 10" in page
    )
    assert probe.LARGEST_STATES == 4**6 == 2**12
    assert f"{probe.LARGEST_STATES:,} states, such as 12 bits or 6 variables of 4 classes" in page
    largest = enumeration._MOMENT_ELEMENTS
    assert largest == 2**25 == 2 * 256**3
    assert 30 * 103**3 <= largest < 30 * 104**3
    assert "2²⁵, such as 2 variables of 256 classes or 30 of 103" in page
    assert probe.PATIENCE == 2
    assert "2 s in the probe" in page


def test_estimators_without_exact_moments_are_named() -> None:
    (named,) = re.findall(r"All, but for (.*?)\. These", sentences("docs/exact.md"))
    found = gradlab.catalogue.estimator_rows()
    drawn = found[found["moments"] == "draws"]["estimator"].str.partition("(")[0]
    assert set(re.split(r",\s+| and ", named)) == {*drawn, "fitted RELAX"}


@pytest.mark.parametrize(
    "name", re.findall(r"^\| (`\w+Error`.*?) \|", text("docs/how-to/own-loss.md"), re.M)
)
def test_faults_of_a_loss_are_those_of_the_contract(name: str) -> None:
    for fault in re.findall(r"`(\w+)`", name):
        assert issubclass(getattr(gradlab.loss, fault), gradlab.loss.LossError)


def test_every_fault_of_a_loss_has_a_way_out() -> None:
    faults = {name for name in gradlab.loss.__all__ if name.endswith("Error")} - {"LossError"}
    assert faults <= set(re.findall(r"`(\w+)`", text("docs/how-to/own-loss.md")))

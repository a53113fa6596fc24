"""The gallery shows every committed figure, and its sentences are those of the committed rows."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import typer

from gradlab.figures import FIGURES
from gradlab.training.runs import summary

ROOT = Path(__file__).parents[2]
FIGURES_FOLDER = ROOT / "figures"
GALLERY = (ROOT / "docs" / "gallery.md").read_text()
TEXT = " ".join(GALLERY.split())
ENTRY = re.compile(
    r"^### ([\w-]+)\n\n```{committed-figure} ([\w-]+)\n(.*?)```\n\n(.*?)(?=^##|\Z)", re.S | re.M
)
ENTRIES = {title: (name, commands, text) for title, name, commands, text in ENTRY.findall(GALLERY)}
COMMITTED = sorted(file.stem for file in FIGURES_FOLDER.glob("*.csv"))


def committed(figure: str) -> pd.DataFrame:
    return pd.read_csv(FIGURES_FOLDER / f"{figure}.csv", low_memory=False)


def percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def entry(figure: str) -> str:
    """Return the sentences on a figure, on one line."""
    return " ".join(ENTRIES[figure][2].split())


def relative_bias(rows: pd.DataFrame) -> pd.Series:
    return (rows["bias2"] / rows["truth2"]).pow(0.5)


@pytest.mark.parametrize("figure", COMMITTED)
def test_every_committed_figure_has_an_entry_with_a_finding(figure: str) -> None:
    name, _, text = ENTRIES[figure]
    assert name == figure
    assert len(text.split(".")[0].split()) > 5


def test_no_entry_is_of_a_figure_that_is_not_there() -> None:
    assert sorted(ENTRIES) == COMMITTED


@pytest.mark.parametrize("figure", COMMITTED)
def test_the_files_of_an_entry_are_committed(figure: str) -> None:
    assert all((FIGURES_FOLDER / f"{figure}.{kind}").exists() for kind in ("csv", "pdf"))


@pytest.mark.parametrize("figure", COMMITTED)
def test_the_command_of_an_entry_is_one(figure: str) -> None:
    commands = ENTRIES[figure][1].splitlines()
    if figure in FIGURES:
        assert commands == []  # `gradlab figures NAME` makes it
    for command in commands:
        read(command)
    assert figure in FIGURES or commands


def read(command: str) -> None:
    """Read a command line up to the point where it would run; raise if an option is wrong."""
    from gradlab.cli import app

    program, *words = shlex.split(command)
    if program == "python":
        assert (ROOT / (words[1].replace(".", "/") + ".py")).exists()
        return
    assert program == "gradlab"
    context = typer.main.get_command(app)
    while hasattr(context, "commands"):
        context = context.commands[words.pop(0)]
    context.make_context("gradlab", words)


def test_a_wrong_command_is_seen() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        read("gradlab time --no-such-option 3")


@pytest.mark.parametrize("figure", ["vae-mnist", "fashion"])
def test_the_command_of_a_training_is_that_of_its_rows(figure: str) -> None:
    rows, words = committed(figure), shlex.split(ENTRIES[figure][1])
    option = dict(pairwise(words))
    assert words[3 : words.index("--seeds")] == list(rows["estimator"].unique())
    assert int(option["--seeds"]) == rows["seed"].nunique()
    assert int(option["--epochs"]) == rows["epochs"].max()
    assert option["--images"] == rows["data"].iloc[0]
    assert float(option.get("--lr", 1e-4)) == rows["lr"].iloc[0]


def test_the_command_of_the_probe_is_that_of_its_rows() -> None:
    rows, words = committed("vae-probed"), shlex.split(ENTRIES["vae-probed"][1])
    option = dict(pairwise(words))
    assert words[3] == rows["trained"].iloc[0]
    steps = rows["step"].drop_duplicates().sort_values()
    assert (steps.diff().dropna() == int(option["--probe"])).all()
    named = re.findall(r"[^,(]+(?:\([^)]*\))?", option["--probe-estimators"])
    assert named == list(rows["estimator"].unique())
    assert option["--latent"] == f"{rows['N'].iloc[0]}x{rows['C'].iloc[0]}"
    assert rows["N"].iloc[0] == 6
    assert 4**6 == 4096
    assert "4096 states" in entry("vae-probed")


def test_the_structures() -> None:
    rows = committed("structures")
    rows = rows.assign(bias=rows["bias2"] / rows["truth2"], sd=rows["variance"] / rows["truth2"])
    keys = ["estimator", "target", "degree", "structure"]
    median = rows.groupby(keys)[["bias", "sd"]].median().clip(lower=0) ** 0.5
    bias, sd = median["bias"], median["sd"]
    family, own, text = "exponential family", "perturb-and-MAP", entry("structures")
    for name, order in (("ST", 1), ("DARN", 1), ("ZGR", 2)):
        exact = bias[name, family].groupby("degree").agg(["min", "max"])
        assert (exact["max"].loc[:order] < 1e-12).all()
        assert (exact["min"].loc[order + 1 :] > 0.1).all()
    assert "On all four ZGR is exact up to degree 2, ST (of subsets: SIMPLE)" in text
    assert "SIMPLE) and DARN up to degree 1." in text
    st = bias["ST", family, 2]
    assert st.idxmin() == "3-subsets of 6"
    assert st.idxmax().startswith("chain")
    least, most = percent(st.min()), percent(st.max())
    said = f"At degree 2 ST misses a median {least} of the gradient on subsets and {most} on the"
    assert said in text
    misses = {
        target: f"{percent(at.min())} to {percent(at.max())}"
        for target in (own, family)
        for at in [bias["I-MLE(lam=0.3)", target, 1]]
    }
    assert (
        f"I-MLE(0.3) is biased on linear f already: by {misses[own]} of the gradient of its own "
        f"law, and by {misses[family]} of that of the exponential family" in text
    )
    relaxed = bias["TopK(tau=0.5)", "sampling without replacement", 1].iloc[0]
    assert f"Relaxed top-k misses {percent(relaxed)} of the gradient" in text
    ratio = sd["ZGR", family, 3] / sd["ST", family, 3]
    times = f"{ratio.min():.1f} to {ratio.max():.1f}"
    assert f"At degree 3 one draw of ZGR has {times} times the standard deviation of ST." in text
    assert (sd["RF(m=4)", family, 3] < sd["ZGR", family, 3] / 2).all()
    assert bias["RF(m=4)", family].max() == 0


def test_the_trade_off() -> None:
    rows = committed("trade-off")
    rows = rows[(rows["kind"] == "domination") & (rows["scale"] == "raw")]
    cubic = rows[(rows["problem"] == "cubic") & (rows["regime"] == "moderate")]
    shares = [part.groupby("series")["share"] for part in (rows, cubic)]
    (gr, st), (gr_cubic, st_cubic) = (
        (by.median()["GR(k=inf)"], by.median()["ST-ZGR"]) for by in shares
    )
    whole = shares[0].agg(lambda share: (share == 1).mean())
    text = entry("trade-off")
    assert len(rows) == 2 * 160
    assert f"median of {percent(gr)}" in text
    assert f"and {percent(st)} of the ST-ZGR curve" in text
    assert f"({percent(gr_cubic)} against {percent(st_cubic)})" in text
    assert all(f"{percent(share)} of the problems" in text for share in whole)


def test_the_quadratics() -> None:
    rows = committed("quadratics")
    exact = rows[rows["method"] == "exact"]
    relative = relative_bias(exact).groupby(exact["series"])
    assert f"a median {percent(relative.median()['ST'])} of" in entry("quadratics")
    assert percent(relative.median()["ST"]) == percent(relative.median()["DARN"])
    assert relative.max()["ZGR"] < 1e-12


def test_the_degrees() -> None:
    rows = committed("degree")
    relative = relative_bias(rows)
    least = relative.groupby([rows["series"], rows["degree"]]).median().unstack()
    exact = (least < 1e-12).apply(lambda row: row[row].index.max(), axis=1)
    assert {"ST": 1, "DARN": 1, "ZGR": 2}.items() <= exact.to_dict().items()
    assert not (least.loc[["GR(k=inf)", "GS-ST"], 1:] < 1e-12).any().any()


def test_the_cold_limit() -> None:
    rows = committed("cold-limit")
    slopes = rows.groupby(["series", "quantity", "power"])["slope"].agg(["min", "max", "median"])
    of_mean = slopes.loc["GS-ST", "mean", 1]
    text = entry("cold-limit")
    assert f"fitted slopes are {of_mean['min']:.2f} to {of_mean['max']:.2f}" in text
    assert f"with a slope of {slopes.loc[('GS-ST', 'mean', 2), 'median']:.2f}" in text
    assert f"slope of {slopes.loc[('GS-ST', 'variance', -1), 'median']:.2f}." in text


VERDICTS = committed("verdicts")


def test_the_planted_errors() -> None:
    planted = VERDICTS[VERDICTS["planted"].notna()]
    assert set(planted["outcome"]) == {"BIASED", "REFUSED"}
    assert (planted["right_outcome"] == "UNBIASED").all()
    assert f"All {len(planted)} planted errors" in entry("verdicts")
    assert (planted["draws"] < 1000).mean() > 0.5


def test_the_zoo() -> None:
    rows = _measured("zoo")
    bias2 = rows["bias2"].mask(rows["declared_unbiased"], 0.0).clip(lower=0)
    rows["mse"] = (bias2 + rows["cost_variance"]) / rows["truth2"]
    best = rows.loc[rows.groupby(["problem", "series", "fits"], sort=False)["mse"].idxmin()]
    least = best.loc[best.groupby("problem", sort=False)["mse"].idxmin()]
    assert least["series"].tolist() == ["LE", "SAS(k=3)", "LEARNED", "UNORD(k=4)"]
    assert (least["fits"] > 0).tolist() == [False, False, True, False]
    of_vae = best[best["problem"].str.startswith("vae")]
    text = f"on the VAE {(of_vae['mse'] > 1).sum()} of {len(of_vae)} err"
    assert text in entry("zoo")


def _measured(figure: str) -> pd.DataFrame:
    rows = committed(figure)
    return rows[rows["reason"].isna()].copy()


def test_the_baselines() -> None:
    rows = _measured("baselines").query("problem == 'three bits' and logit == 0")
    cost = rows[rows["fits"] == 0].set_index("estimator")["cost_variance"]
    cost.index = cost.index.str.replace(r"REINFORCE.*", "REINFORCE", regex=True)
    fitted = rows[rows["estimator"].str.startswith("REINFORCE") & (rows["fits"] > 0)]
    ratio = cost["REINFORCE"] / cost["RF(m=4)"]
    text = entry("baselines")
    assert f"REINFORCE's by {ratio:.0f} at equal" in text
    assert f"constant by {cost['REINFORCE'] / fitted['cost_variance'].item():.0f};" in text
    assert f"has {cost['ZGR'] / cost['RF(m=4)']:.0f} times the variance of RF(4)" in text


def test_the_budget() -> None:
    rows = committed("budget")
    crossing = rows.groupby(rows["problem"].str.partition("(")[0])["crossing"].first()
    text = entry("budget")
    assert f"about {crossing['cubic']:.0f} evaluations of f on the cubic" in text
    assert f"about {round(crossing['mlp'], -1):.0f} on the network" in text
    assert pd.isna(crossing["quadratic"])
    last = rows[rows["problem"].str.startswith("vae")].groupby("estimator").last()
    assert last["evaluations"].round().eq(10_000).all()
    reached = last["progress"]
    assert f"RF(4) to {reached['RF(m=4)']:.1%}".replace("%", " %") in text
    assert f"ZGR to {percent(reached['ZGR'])} and ST to {percent(reached['ST'])}." in text


def test_the_classes() -> None:
    rows = committed("classes").query("kind == 'quadratic' and N == 1 and C >= 4")
    bias = relative_bias(rows).groupby([rows["series"], rows["C"]]).median().unstack()
    gr, st = bias.loc["GR(k=inf)"], bias.loc["ST"]
    text = entry("classes")
    assert f"between {percent(gr.min())} and {percent(gr.max())} of" in text
    assert f"from 4 to {bias.columns.max()} classes" in text
    assert f"grows from {percent(st.iloc[0])} to {percent(st.iloc[-1])}." in text


def test_the_bounds() -> None:
    rows = committed("bounds").dropna(subset="bias2")
    rows["snr"] = (rows["truth2"] / rows["scale_free_variance"]) ** 0.5
    rows["bias"] = relative_bias(rows)
    of = rows.groupby(["spread", "series", "K"])[["snr", "variance", "bias"]].median()
    even, uneven = of.loc[0.5], of.loc[3.0]
    vimco, ovis = even.loc["VIMCO", "snr"], even.loc["OVIS(gamma=0)", "snr"]
    how_to = " ".join((ROOT / "docs" / "how-to" / "bounds.md").read_text().split())
    assert rows["logits_seed"].nunique() == 5
    assert even.index.names == ["series", "K"]
    gallery = entry("bounds")
    assert (
        "With even weights (log w has a standard deviation of 0.5 nats) the signal-to-noise of "
        f"VIMCO falls from {vimco[2]:.2f} at K = 2 to {vimco[64]:.3f} at K = 64." in gallery
    )
    assert f"That of OVIS(gamma=0) rises from {ovis[2]:.2f} to {ovis[64]:.1f}, and LE" in gallery
    assert "and LE has the smallest variance of all at every K." in gallery
    assert (
        "With uneven weights (3 nats) VIMCO has less variance than OVIS(gamma=0) up to" in gallery
    )
    assert "than OVIS(gamma=0) up to K = 8." in gallery
    assert (
        "With a standard deviation of log w of 0.5 nats its signal-to-noise rises from "
        f"{ovis[2]:.2f} at K = 2 to {ovis[64]:.1f} at K = 64." in how_to
    )
    assert f"falls from {vimco[2]:.2f}" in how_to
    assert f"to {vimco[64]:.3f}" in how_to
    variance = even["variance"].unstack("series")
    assert (variance.idxmin(axis=1) == "LE").all()
    ratio = uneven["variance"].unstack("series")[["VIMCO", "OVIS(gamma=0)"]].dropna()
    less = ratio["VIMCO"] < ratio["OVIS(gamma=0)"]
    assert less[less].index.tolist() == [2, 4, 8]
    bias = even["bias"].unstack("series")
    published = bias["OVIS(gamma=1)"]
    assert (
        f"OVIS as published (gamma = 1) errs by {published[2]:.2f} gradients at K = 2 and by "
        f"{published[64]:.0f} at K = 64, with even weights; ZGR by {bias['ZGR'][2]:.2f} and "
        f"{bias['ZGR'][64]:.1f}." in gallery
    )
    assert f"{bias['ZGR'][2]:.2f} gradients at K = 2" in how_to
    assert f"but {bias['ZGR'][64]:.1f} at K = 64" in how_to
    unbiased = ["PLAIN", "VIMCO", "VIMCO-A", "OVIS(gamma=0)", "OVIS-MC(s=1)", "LE"]
    assert bias[unbiased].max().max() < 1e-9


def test_the_times() -> None:
    rows = committed("timing").query("timed == 'layer' and N == 32")
    ratio = rows.pivot_table(index="series", columns="C", values="ratio")
    text = entry("timing")
    assert ((ratio.loc[["ST", "ZGR"], 2] - 1).abs() < 0.1).all()
    assert (ratio.loc[["ST", "ZGR"], 64] < 1 / 3).all()
    rao = ratio.loc["GR(k=10)"]
    assert f"GR(k=10) takes {rao.min():.1f} to {rao.max():.1f} times as long" in text


def test_the_snapshots() -> None:
    rows = committed("snapshots")
    error = (rows["mse"] / rows["truth2"]).pow(0.5)
    table = error.groupby([rows["series"], rows["steps"]]).median().unstack()
    first, last = table.iloc[:, 0], table.iloc[:, -1]
    text = entry("snapshots")
    assert first.idxmin() == "ST"
    assert f"of one draw, {first['ST']:.2f} gradients" in text
    assert f"After {table.columns[-1]} steps" in text
    assert (last > 1).all()
    assert f"ST by {last['ST']:.1f} and RF(4) by {last['RF(m=4)']:.0f}." in text


def test_the_depths() -> None:
    rows = committed("depth")
    rows = rows[(rows["depth"] == rows["depth"].max()) & (rows["steps"] == 0)]
    cosine = rows.groupby(["series", "distance"])["cosine"].median().unstack()
    text = entry("depth")
    assert cosine.columns.max() == 7
    st, zgr = cosine.loc["ST"], cosine.loc["ZGR"]
    assert f"a median cosine of {st[0]:.2f} with" in text
    assert f"and {st[7]:.2f} seven layers" in text
    assert f"these are {zgr[0]:.2f} and {zgr[7]:.2f}." in text


def test_the_quantized_network() -> None:
    rows = committed("fashion")
    last = rows[rows["epoch"] == rows["epoch"].max()]
    error = last.groupby("estimator")["test_mode_error"]
    mean, spread = error.mean(), error.max() - error.min()
    low, high = mean.idxmin(), mean.idxmax()
    said = f"{mean.min():.1%} ({low}) and {mean.max():.1%} ({high})".replace("%", " %")
    assert said in entry("fashion")
    assert mean.max() - mean.min() < spread.max()


TRAINED = committed("vae-mnist")


@pytest.mark.parametrize("name", TRAINED["estimator"].unique())
def test_the_table_of_trained_models(name: str) -> None:
    columns = ["train_nelbo", "test_nelbo", "test_bound", "seconds"]
    row = summary(TRAINED, columns).set_index("estimator").loc[name]
    cells = [f"{row[c]:.1f} ± {row[f'{c}_spread']:.1f}" for c in columns[:3]]
    assert f"| {name} | {' | '.join(cells)} | {row['seconds'] / 60:.1f} |" in GALLERY


def test_the_order_of_trained_models() -> None:
    last = summary(TRAINED, ["test_nelbo"]).sort_values("test_nelbo")
    order = ["ZGR", "GR(tau=0.5, k=10)", "RF(m=4)", "GS-ST(tau=0.5)", "ARSM", "ST"]
    assert list(last["estimator"]) == order


ATLAS = committed("atlas")


@pytest.mark.parametrize("scale", ["raw", "scale-free"])
@pytest.mark.parametrize("series", ["GR(k=inf)", "GR(k=10)"])
def test_dominance_in_the_atlas(series: str, scale: str) -> None:
    rows = ATLAS[(ATLAS["kind"] == "domination") & (ATLAS["scale"] == scale)]
    of_rao = rows[(rows["series"] == series) & (rows["dominated_by"] == "ST-ZGR")]["share"]
    of_line = rows[(rows["series"] == "ST-ZGR") & (rows["dominated_by"] == series)]["share"]
    assert len(of_rao) == len(of_line) == 600
    shown = f"{series}, {scale} | {percent(of_rao.median())} | {percent(of_line.median())} |"
    assert shown in GALLERY
    if (series, scale) == ("GR(k=inf)", "raw"):
        whole = [percent((share == 1).mean()) for share in (of_rao, of_line)]
        assert f"{whole[0]} (ST-ZGR) and {whole[1]} (GR)" in TEXT


def test_winners_of_the_atlas() -> None:
    best = ATLAS[ATLAS["kind"] == "best"]
    wins = best.groupby(["criterion", "series"])["wins"].sum().astype(int)
    text = entry("atlas")
    error, progress = wins["12 evaluations"].nlargest(4), wins["progress"].nlargest(6)
    assert list(error.index) == ["LE", "GS", "ST-T", "ST"]
    told = f"LE has the smallest in {error['LE']} problems, GS in {error['GS']}, "
    assert f"{told}ST-T in {error['ST-T']} and ST in {error['ST']}." in text
    same = {"EMA(baseline=0, decay=0.9)", "LEARNED", "REINFORCE(baseline=0)", "RELAX"}
    assert set(progress.index) == {"LE", *same, "GR(k=inf)"}
    assert progress[list(same)].nunique() == 1
    assert f"the most progress with LE, in {progress['LE']} of the 600 problems" in text
    assert f"REINFORCE follows with {progress['RELAX']} (" in text
    assert f"GR(k=inf) with {progress['GR(k=inf)']}." in text
    of_norm = best[(best["problem"] == "norm:1.5") & (best["series"] == "LE")]
    of_norm = of_norm[of_norm["criterion"] != "one draw"]
    assert (of_norm["wins"] == of_norm["seeds"]).all()
    assert (of_norm["error"] < 1e-12).all()


def test_the_prediction() -> None:
    rows = committed("prediction")
    rows = rows[(rows["kind"] == "correlation") & (rows["gradient"] == "estimated")]
    rows = rows[(rows["per"] == "draw") & (rows["outcome"] == "steps")]
    text = entry("prediction")
    assert rows["task"].nunique() == 9
    assert set(rows["estimators"]) == {16, 6}

    def rho(criterion: str, averaged: float | None, moment: str = "mean") -> pd.Series:
        part = rows[(rows["criterion"] == criterion) & (rows["moment"] == moment)]
        part = part[part["averaged"].isna() if averaged is None else part["averaged"] == averaged]
        return part.set_index("task")["rho"]

    def shown(value: float) -> str:
        return f"{value:.2f}".removeprefix("0")

    progress = rho("progress", 10)
    assert f"has a median of {shown(progress.median())} over the nine tasks" in text
    assert f"gradient it is {shown(rho('error', 1).median())}, and" in text
    assert f"the cosine {shown(rho('cosine', None).median())}." in text
    weak = progress["quantized 5x4"], progress["binarized MNIST 30x10"]
    assert f"network ({shown(weak[0])}) and is weak on MNIST ({shown(weak[1])})" in text
    assert rho("progress", 10, "start").median() < 0.5
    assert progress.median() == max(
        rho(name, number).median()
        for name in ("progress", "error")
        for number in (1, 10, 100, 1000)
    )

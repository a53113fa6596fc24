"""What holds of the committed rows: one function for each thing that pages say of them."""

from functools import cache

import pandas as pd

from pages import ROOT


@cache
def rows(figure: str) -> pd.DataFrame:
    """Return the committed rows of a figure."""
    return pd.read_csv(ROOT / "figures" / f"{figure}.csv", low_memory=False)


def exact(figure: str) -> pd.DataFrame:
    table = rows(figure)
    return table[table["method"] == "exact"]


def points_on_lines() -> bool:
    """Draws of the figure temperature are within their errors of the exact rows."""
    table = rows("temperature")
    drawn = table[table["method"] != "exact"]
    assert drawn["series"].nunique() == 9
    both = drawn.merge(exact("temperature"), on=["problem", "estimator"], suffixes=("", "exact"))
    both = both[both["effective_draws"] > 300]
    scores = [(both[c] - both[f"{c}exact"]) / both[f"{c}_se"] for c in ("bias2", "variance")]
    return len(both) > 100 and bool(max(score.abs().max() for score in scores) < 4)


def cold_laws() -> bool:
    """The excess of variance over ZGR falls as 1/tau and as 1/k; the bias is that of ZGR."""
    table = exact("temperature")
    excess, near = {}, []
    for problem, part in table.groupby("problem"):
        zgr = part[part["series"] == "ZGR"].iloc[0]
        for series in ("GS-ST", "GR(k=10)", "GR(k=100)"):
            cold = part[part["series"] == series].sort_values("tau").head(2)
            excess[problem, series] = (cold["variance"] - zgr["variance"]).tolist()
            near.append(abs(cold["bias2"].iloc[0] - zgr["bias2"]) / zgr["truth2"])
            step = cold["tau"].iloc[1] / cold["tau"].iloc[0]
    small = [p for p in table["problem"].unique() if not p.startswith("vae")]
    in_tau = all(abs(a / b / step - 1) < 0.1 for (p, _), (a, b) in excess.items() if p in small)
    in_k = all(abs(excess[p, "GS-ST"][0] / excess[p, "GR(k=10)"][0] / 10 - 1) < 0.1 for p in small)
    return bool(in_tau and in_k and max(near) < 0.1)


def halves() -> bool:
    mean = rows("cold-limit").query("quantity == 'mean'")
    powers = mean.groupby(mean["problem"].str.partition("(")[0])["power"].first()
    return powers.to_dict() == {"mlp": 1, "quadratic": 1, "multilinear": 2}


def leads(figure: str, scale: str, by: str = "GR(k=inf)") -> "pd.Series[float]":
    """Return by how much the share of GR that is dominated exceeds that of ST-ZGR, by problem."""
    table = rows(figure).query("kind == 'domination' and scale == @scale")
    keys = [c for c in ("problem", "N", "C", "regime", "logits_seed") if table[c].notna().all()]
    first = table[(table["series"] == by) & (table["dominated_by"] == "ST-ZGR")]
    second = table[(table["series"] == "ST-ZGR") & (table["dominated_by"] == by)]
    lead = first.set_index(keys)["share"] - second.set_index(keys)["share"]
    return lead.groupby("problem").median()


def atlas_raw() -> bool:
    lead = leads("atlas", "raw")
    ahead = {"quadratic", "mlp", "softplus"}
    return set(lead[lead > 0].index) == ahead and set(lead.index) - ahead == {"cubic", "norm:1.5"}


def atlas_moderate() -> bool:
    """Where ST-ZGR trails, it trails most at moderate logits."""
    table = rows("atlas").query("kind == 'domination' and scale == 'raw'")
    table = table[table["problem"].isin(["cubic", "norm:1.5"])]
    keys = ["problem", "N", "C", "regime", "logits_seed"]
    first = table.query("series == 'GR(k=inf)' and dominated_by == 'ST-ZGR'").set_index(keys)
    second = table.query("series == 'ST-ZGR' and dominated_by == 'GR(k=inf)'").set_index(keys)
    lead = (first["share"] - second["share"]).groupby(["problem", "regime"]).median().unstack()
    return bool((lead.idxmin(axis=1) == "moderate").all())


def atlas_k10() -> bool:
    table = rows("atlas").query("kind == 'domination' and N == N")
    cells = []
    for scale in ("raw", "scale-free"):
        part = table[table["scale"] == scale]
        keys = ["problem", "N", "C", "regime", "logits_seed"]
        first = part.query("series == 'GR(k=10)' and dominated_by == 'ST-ZGR'").set_index(keys)
        second = part.query("series == 'ST-ZGR' and dominated_by == 'GR(k=10)'").set_index(keys)
        lead = (first["share"] - second["share"]).groupby(keys[:-1]).median()
        cells.append((lead > 0).mean())
    return bool(min(cells) > 0.8)


def atlas_size() -> bool:
    table = rows("atlas").query("kind == 'domination'")
    sizes = table[["N", "C"]].drop_duplicates()
    found = (table["problem"].nunique(), len(sizes), table["regime"].nunique())
    return (*found, table["logits_seed"].nunique()) == (5, 4, 3, 10)


def probed(figure: str, column: str) -> pd.DataFrame:
    table = rows(figure)
    table = table[table["truth2"].notna()]
    return table.pivot(index="step", columns="estimator", values=column)


def vae_bias() -> bool:
    bias = probed("vae", "relative_bias")
    first, last = bias.iloc[0], bias.iloc[-1]
    told = [first["ST"], last["ST"], first["ZGR"], last["ZGR"]]
    return [f"{value:.0%}" for value in told] == ["19%", "100%", "11%", "16%"]


def vae_progress() -> bool:
    last = probed("vae", "progress").iloc[-1].sort_values(ascending=False)
    found = [(name, f"{value:.2f}") for name, value in last.head(2).items()]
    return found == [("RF(m=4)", "0.63"), ("ARSM", "0.33")]


def mnist_bias() -> bool:
    median = probed("vae-probed", "relative_bias").median()
    names = ["ST", "GS-ST(tau=0.5)", "ZGR"]
    return [f"{median[name]:.0%}" for name in names] == ["114%", "67%", "25%"]


def mnist_progress() -> bool:
    progress = probed("vae-probed", "progress")
    return progress.iloc[0].idxmax() == "ST" and set(progress.iloc[1:].idxmax(axis=1)) == {
        "RF(m=4)"
    }


def ends(toy: str) -> "pd.Series[float]":
    table = rows("toys")
    plain = (
        (table["toy"] == toy) & table["least"].notna() & (table["fitted"].astype(str) == "False")
    )
    return table[plain].set_index("series")["q"]


def toys() -> bool:
    reached = ends("Tucker, t = 0.45")
    names = ("ST", "GS-ST", "ZGR", "LE")
    told = [float(f"{reached[name]:.2g}") for name in names]
    return [round(value, 3 if value < 0.01 else 2) for value in told] == [0.46, 0.43, 0.02, 0.003]


def toy_biased() -> bool:
    """ST ends where theory says that its mean leads, and that is no better than where it began."""
    table = rows("toys").query("toy == 'Tucker, t = 0.45' and series == 'ST'")
    end = table.dropna(subset="least").iloc[0]
    start = table.sort_values("step").iloc[0]
    return bool(abs(end["q"] - end["limit"]) < 0.02 and end["loss"] > 0.9 * start["loss"])


def trade_off_ahead() -> bool:
    lead = leads("trade-off", "raw")
    return set(lead[lead > 0].index) >= {"quadratic", "mlp", "vae"}


def same_of_bits() -> bool:
    table = rows("baselines").query("problem == 'three bits' and logit == 0 and estimator == 'ZGR'")
    return bool((table["bias2"] / table["truth2"] < 1e-20).all())


def default_predicts() -> bool:
    table = rows("prediction").query(
        "kind == 'correlation' and per == 'draw' and outcome == 'steps' and criterion == 'progress'"
    )
    table = table[(table["gradient"] == "estimated") & (table["moment"] == "mean")]
    return bool(table.groupby("averaged")["rho"].median().idxmax() == 10)


def momentum() -> bool:
    return [round((1 + m) / (1 - m), 9) for m in (0, 0.5, 0.9)] == [1, 3, 19]


def near_loss() -> bool:
    table = rows("depth").query("depth == 8 and steps == 0 and distance == 0")
    return bool(table.groupby("series")["cosine"].mean().min() > 0.99)


def no_noise_at_once() -> bool:
    table = rows("snapshots")
    error = (table["mse"] / table["truth2"]) ** 0.5
    return bool(error.groupby([table["series"], table["steps"]]).median().unstack()[200].min() > 1)


def verdict_zeros() -> bool:
    table = rows("verdicts")
    table = table[table["planted"].isna() & (table["outcome"] == "UNBIASED")]
    table = table[table["method"] == "exact"]
    return len(table) > 10 and bool((table["bias"] < 1e-9).all())


def first_look() -> bool:
    planted = rows("verdicts").dropna(subset="planted")
    found = planted["draws"].between(900, 1100).mean()
    return bool(len(planted) == 22 and found > 0.5)


def degrees() -> bool:
    table = rows("degree")
    bias = (table["bias2"] / table["truth2"]) ** 0.5
    largest = bias.groupby([table["series"], table["degree"]]).max().unstack()
    exact = (largest < 1e-12).drop(columns=0)
    st, zgr = ([1], [1, 2])
    found = {name: list(row[row].index) for name, row in exact.iterrows()}
    both = found["ST"] == found["DARN"] == st and found["ZGR"] == zgr
    return both and found["GR(k=inf)"] == found["GS-ST"] == []


def timing() -> bool:
    table = rows("timing").query("timed == 'layer' and N == 32")
    ratio = table.pivot_table(index="series", columns="C", values="ratio").loc[["ST", "ZGR"]]
    return bool(((ratio[2] - 1).abs() < 0.1).all() and (ratio[64] < 1 / 3).all())


def studied() -> bool:
    table = rows("prediction").query("kind == 'loss'")
    counts = table.groupby("task")[["estimator", "seed"]].nunique()
    rates = table.groupby(["task", "estimator"])["lr"].nunique().unstack().max(axis=1)
    mnist = counts.index.str.contains("MNIST")
    few, many = counts[mnist], counts[~mnist]
    sizes = (len(many), many["estimator"].max(), few["estimator"].item())
    return sizes == (8, 16, 6) and set(many["seed"]) == {3} and set(rates[~mnist]) == {3}


def mnist_settings() -> bool:
    table = rows("vae-mnist")
    found = {name: table[name].unique().tolist() for name in ("latent", "epochs", "data")}
    found["seeds"] = table["seed"].nunique()
    asked = {"latent": ["30x10"], "epochs": [30], "data": ["binarized-mnist"], "seeds": 2}
    return found == asked and table["machine"].str.contains("EPYC").all()


def mnist_order() -> bool:
    table = rows("vae-mnist")
    last = table[table["epoch"] == table["epoch"].max()].groupby("estimator")
    loss, seconds = last["test_nelbo"].mean(), last["seconds"].mean()
    return seconds.idxmax() == "ARSM" and bool(loss["ARSM"] > loss["RF(m=4)"])


def fashion() -> bool:
    table = rows("fashion")
    last = table[table["epoch"] == table["epoch"].max()].groupby("estimator")["test_mode_error"]
    mean, spread = last.mean(), last.max() - last.min()
    said = (f"{mean['ST']:.1%}", f"{mean['ZGR']:.1%}", table["epoch"].max())
    return said == ("11.5%", "12.5%", 2) and bool(mean.max() - mean.min() < spread.max())


def norms() -> bool:
    best = rows("atlas").query("kind == 'best' and problem == 'norm:1.5' and series == 'LE'")
    best = best[best["criterion"] != "one draw"]
    return bool((best["wins"] == best["seeds"]).all() and (best["error"] < 1e-12).all())


def constants() -> bool:
    from gradlab.comparison.eligibility import GRADIENT_COST
    from gradlab.figures.atlas.rows import BUDGET, GRADIENTS, MARGIN

    return (BUDGET, GRADIENTS, MARGIN, GRADIENT_COST) == (12, 100, 1e-6, 3)


def defaults() -> bool:
    import inspect

    import gradlab

    given = inspect.signature(gradlab.verify).parameters
    return (given["delta"].default, given["alpha"].default) == (0.05, 0.001)


def widths() -> bool:
    from gradlab.plots.panels import WIDTHS

    return WIDTHS == {"column": 3.25, "page": 6.75}


def script_size() -> bool:
    import pytest

    pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")
    from gradlab.report.document import _bundle

    return 850_000 < len(_bundle()) < 950_000


def leads_of(figure: str) -> pd.DataFrame:
    table = rows(figure).query("kind == 'domination' and scale == 'raw'")
    return table[table["series"] == "ST-ZGR"]

"""The README's claims about code: its table of estimators, its example, its figures."""

import re
from pathlib import Path

import pandas as pd
import pytest

import gradlab
from gradlab.catalogue import estimator_rows
from gradlab.training.runs import summary

README = (Path(__file__).parents[2] / "README.md").read_text()
TABLE = {
    cells[0]: cells
    for line in README.splitlines()
    if line.startswith("| ") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 6
}


def test_table_lists_every_estimator() -> None:
    assert set(TABLE) - {"name"} == set(gradlab.ESTIMATORS)


@pytest.mark.parametrize("name", gradlab.ESTIMATORS)
def test_table_row_agrees_with_code(name: str) -> None:
    estimator = gradlab.ESTIMATORS[name]()
    _, constructor, exact, calls, needs_gradient, source = TABLE[name]
    built = eval(
        constructor.strip("`"), vars(gradlab) | {c.__name__: c for c in gradlab.ESTIMATORS.values()}
    )
    assert built == estimator
    order = {"constants": 0, "degree 1": 1, "degree 2": 2, "every f": float("inf")}[exact]
    assert estimator.order == order
    assert estimator.calls(3) == int(calls)
    assert estimator.needs_gradient == (needs_gradient == "yes")
    assert estimator.reference == source


def test_readme_names_all_that_have_no_exact_moments() -> None:
    (named,) = re.findall(r"known for all but (.*?),?\s+which are measured", README, re.S)
    rows = estimator_rows()
    drawn = rows[rows["moments"] == "draws"]["estimator"].str.partition("(")[0]
    assert set(re.split(r",\s+| and ", named)) == {*drawn, "fitted RELAX"}


def test_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\nimport torch, gradlab(.*?)```", README, re.S)
    exec("import torch, gradlab" + example, {})
    assert "ZGR" in capsys.readouterr().out


def test_example_of_own_losses_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(
        r"```python\n(import torch\nfrom torch import nn\n.*?)```", README, re.S
    )
    exec(example, {})
    shown = capsys.readouterr().out
    assert "torch.Size([3, 4, 3])" in shown
    assert "RF(m=4)" in shown


@pytest.mark.parametrize("name", re.findall(r"\(`(\w+Error)`", README))
def test_faults_that_readme_names_exist(name: str) -> None:
    assert issubclass(getattr(gradlab.loss, name), gradlab.loss.LossError)


def test_own_estimator_example_is_zgr() -> None:
    (example,) = re.findall(r"```python\n(@dataclasses.*?)```", README, re.S)
    scope: dict[str, object] = {}
    exec("import dataclasses, gradlab\n" + example, scope)
    mine = scope["Mine"]()  # type: ignore[operator]
    from gradlab.problems import problem, regime

    f, logits = problem("cubic", 2, 3), regime("moderate", 2, 3)
    ours = gradlab.exact_moments(gradlab.ZGR(), f, logits)
    assert (gradlab.exact_moments(mine, f, logits).mean - ours.mean).abs().max() < 1e-14


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parents[2] / link).exists()


def test_findings_are_those_of_the_committed_rows() -> None:
    rows = pd.read_csv(Path(__file__).parents[2] / "figures" / "trade-off.csv")
    rows = rows[(rows["kind"] == "domination") & (rows["scale"] == "raw")]
    cubic = rows[(rows["problem"] == "cubic") & (rows["regime"] == "moderate")]
    shares = [part.groupby("series")["share"] for part in (rows, cubic)]
    (gr, st), (gr_cubic, st_cubic) = (
        (by.median()["GR(k=inf)"], by.median()["ST-ZGR"]) for by in shares
    )
    whole = shares[0].agg(lambda share: (share == 1).mean())
    text = " ".join(README.split())
    assert len(rows) == 2 * 160
    assert f"median of {gr:.0%}".replace("%", " %") in text
    assert f"and {st:.0%} of the ST-ZGR curve".replace("%", " %", 1) in text
    assert f"({gr_cubic:.0%} against {st_cubic:.0%})".replace("%", " %") in text
    assert all(f"{share:.0%}".replace("%", " %") + " of the problems" in text for share in whole)
    quadratics = pd.read_csv(Path(__file__).parents[2] / "figures" / "quadratics.csv")
    exact = quadratics[quadratics["method"] == "exact"]
    relative = (exact["bias2"] / exact["truth2"]).pow(0.5).groupby(exact["series"])
    assert f"median {relative.median()['ST']:.0%}".replace("%", " %") in text
    assert f"median {relative.median()['DARN']:.0%}".replace("%", " %") in text
    assert relative.max()["ZGR"] < 1e-12


VERDICTS = pd.read_csv(Path(__file__).parents[2] / "figures" / "verdicts.csv")


@pytest.mark.parametrize("name", VERDICTS["planted"].dropna())
def test_planted_errors_are_those_of_the_committed_rows(name: str) -> None:
    row = VERDICTS[VERDICTS["planted"] == name].iloc[0]
    assert row["outcome"] in ("BIASED", "REFUSED")
    assert row["right_outcome"] == "UNBIASED"
    bias = f"{row['bias']:.0%}" if row["outcome"] == "BIASED" else "refused"
    cells = f"{bias} | {row['draws']:,.0f} | {row['right_draws']:,.0f} |"
    assert f"| {name} | {cells}" in README


def test_verdict_example_says_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\nimport gradlab, torch(.*?)```", README, re.S)
    exec("import gradlab, torch" + example, {})
    shown = capsys.readouterr().out
    # The last digits of a bias that is 0 up to rounding depend on the machine.
    proved = r"UNBIASED, proved: bias (\S+) \|g\|, "
    (written,) = re.findall(proved, README)
    (printed,) = re.findall(f"^ZGR on quadratic.*: {proved}", shown)
    assert 0 <= float(written) < 1e-14
    assert 0 <= float(printed) < 1e-14
    assert "leave_one_out on quadratic(N=2, C=3, seed=0): BIASED" in shown
    assert "ZGR is EXACT TO DEGREE 2" in shown


@pytest.mark.slow
def test_probe_example_runs(capsys: pytest.CaptureFixture[str], unchecked: None) -> None:
    (example,) = re.findall(r"```python\nimport torch\nfrom gradlab.nn(.*?)```", README, re.S)
    exec("import torch\nfrom gradlab.nn" + example, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 * 3
    assert all(" nan" not in line.lower() for line in lines)


TRAINED = pd.read_csv(Path(__file__).parents[2] / "figures" / "vae-mnist.csv")


@pytest.mark.parametrize("name", TRAINED["estimator"].unique())
def test_table_of_trained_models_is_that_of_the_committed_rows(name: str) -> None:
    columns = ["train_nelbo", "test_nelbo", "test_bound", "seconds"]
    row = summary(TRAINED, columns).set_index("estimator").loc[name]
    cells = [f"{row[c]:.1f} ± {row[f'{c}_spread']:.1f}" for c in columns[:3]]
    assert f"| {name} | {' | '.join(cells)} | {row['seconds'] / 60:.1f} |" in README


def test_order_of_trained_models_is_that_of_the_readme() -> None:
    last = summary(TRAINED, ["test_nelbo"]).sort_values("test_nelbo")
    order = ["ZGR", "GR(tau=0.5, k=10)", "RF(m=4)", "GS-ST(tau=0.5)", "ARSM", "ST"]
    assert list(last["estimator"]) == order


ATLAS = pd.read_csv(Path(__file__).parents[2] / "figures" / "atlas.csv")


@pytest.mark.parametrize("scale", ["raw", "scale-free"])
@pytest.mark.parametrize("series", ["GR(k=inf)", "GR(k=10)"])
def test_findings_of_the_atlas_are_those_of_its_rows(series: str, scale: str) -> None:
    rows = ATLAS[(ATLAS["kind"] == "domination") & (ATLAS["scale"] == scale)]
    of_rao = rows[(rows["series"] == series) & (rows["dominated_by"] == "ST-ZGR")]["share"]
    of_line = rows[(rows["series"] == "ST-ZGR") & (rows["dominated_by"] == series)]["share"]
    assert len(of_rao) == len(of_line) == 600
    shown = f"{series}, {scale} | {of_rao.median():.0%} | {of_line.median():.0%} |"
    assert shown.replace("%", " %") in README
    if (series, scale) == ("GR(k=inf)", "raw"):
        whole = [f"{(share == 1).mean():.0%}".replace("%", " %") for share in (of_rao, of_line)]
        assert f"{whole[0]} (ST-ZGR) and {whole[1]} (GR)" in README


def test_winners_of_the_atlas_are_those_of_its_rows() -> None:
    best = ATLAS[ATLAS["kind"] == "best"]
    wins = best.groupby(["criterion", "series"])["wins"].sum().astype(int)
    text = " ".join(README.split())
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


def test_what_readme_says_of_prediction_is_in_its_rows() -> None:
    rows = pd.read_csv(Path(__file__).parents[2] / "figures" / "prediction.csv", low_memory=False)
    rows = rows[(rows["kind"] == "correlation") & (rows["gradient"] == "estimated")]
    rows = rows[(rows["per"] == "draw") & (rows["outcome"] == "steps")]
    text = " ".join(README.split())
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
    assert f"with the cosine {shown(rho('cosine', None).median())}." in text
    weak = progress["quantized 5x4"], progress["binarized MNIST 30x10"]
    assert f"network ({shown(weak[0])}) and is weak on MNIST ({shown(weak[1])})" in text
    assert rho("progress", 10, "start").median() < 0.5
    assert progress.median() == max(
        rho(name, number).median()
        for name in ("progress", "error")
        for number in (1, 10, 100, 1000)
    )

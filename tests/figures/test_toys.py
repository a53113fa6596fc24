"""The optimization toys: descent ends where the mean of the estimator says."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cases import generator
from gradlab import exact_gradient, exact_moments, exact_value, parse
from gradlab.estimators import ESTIMATORS, ZGR
from gradlab.figures.toys import plot
from gradlab.figures.toys import rows as figure
from gradlab.figures.toys.descent import TOYS, expected_loss, optimize
from gradlab.figures.toys.drift import Drift, descent
from gradlab.problems import NormPower

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

TUCKER = TOYS["Tucker, t = 0.45"]
SMALL = NormPower(5, 2, 1.5, 0.45)


def start(f=TUCKER, runs=8):
    return torch.zeros(runs, f.N, 2, dtype=torch.float64)


def ends(estimator, f=TUCKER, **options):
    """Return the mean probability of b = 1 at the end."""
    return float(torch.softmax(optimize(estimator, f, start(f), **options)[-1], -1)[..., 1].mean())


class Flipped(ZGR):
    """ZGR with the wrong sign."""

    def pullback(self, p, x, v):
        return -super().pullback(p, x, v)


def test_the_expected_loss_is_that_of_enumeration():
    logits = torch.randn(2, 3, 4, generator=generator(), dtype=torch.float64)
    f = NormPower(3, 4, 3, (0.1, 0.5, 0.7))
    expected = torch.stack([exact_value(f, one) for one in logits])
    torch.testing.assert_close(expected_loss(f, logits), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("ZGR", 0, 0.05), ("RF", 0, 0.02), ("DARN", 0, 0.2), ("ST", 0.4, 0.5), ("GS-ST", 0.38, 0.5)],
)
@pytest.mark.few(2)
def test_descent_on_one_bit_ends_where_theory_says(text, low, high):
    assert low <= ends(parse(text)) <= high


def test_the_wrong_sign_leads_to_the_wrong_vertex():
    assert ends(Flipped()) > 0.95
    assert Drift(Flipped(), TUCKER).limit() == 1


@pytest.mark.parametrize(
    ("text", "p", "points"),
    [
        ("ST", 2, [(0.45, True)]),
        ("DARN", 2, [(0.55, False)]),
        ("ST-ZGR", 2, [(0.4, True)]),
        ("ST", 3, [(0.45**2 / (0.45**2 + 0.55**2), True)]),
        ("ST", 1.5, [(0.45**0.5 / (0.45**0.5 + 0.55**0.5), True)]),
        ("ZGR", 1.5, []),
        ("ZGR", 3, []),
        ("RF", 1.5, []),
    ],
)
def test_fixed_points_are_those_of_the_formulas(text, p, points):
    drift = Drift(parse(text), NormPower(1, 2, p, 0.45))
    assert drift.exact
    assert [stays for _, stays in drift.fixed_points] == [stays for _, stays in points]
    assert [q for q, _ in drift.fixed_points] == pytest.approx([q for q, _ in points], abs=1e-9)
    stable = [q for q, stays in points if stays]
    assert drift.limit() == pytest.approx(stable[0] if stable else 0.0, abs=1e-9)


@pytest.mark.parametrize("text", ["ST", "ZGR", "GR(tau=0.5, k=4)", "RF"])
def test_the_mean_of_a_bit_does_not_depend_on_the_others(text):
    logits = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    mean = exact_moments(parse(text), SMALL, logits).mean[:, 1]
    odds, q = (logits[:, 1] - logits[:, 0]).numpy(), torch.softmax(logits, -1)[:, 1].numpy()
    share = Drift(parse(text), SMALL).share[0]
    at = np.linspace(-8, 8, len(share))
    assert (q * (1 - q) * np.interp(odds, at, share) / 5).tolist() == pytest.approx(
        mean.tolist(), rel=1e-2
    )


@pytest.mark.parametrize(("p", "factor"), [(1.5, 0.5008), (2, 1.0), (3, 1.9934)])
def test_the_mean_of_zgr_is_the_slope_times_a_constant(p, factor):
    f, logits = NormPower(1, 2, p, 0.45), torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    ratio = exact_moments(ZGR(), f, logits).mean / exact_gradient(f, logits)
    assert ratio.flatten().tolist() == pytest.approx([factor] * 2, abs=1e-4)


def test_a_mean_that_noise_hides_has_no_limit():
    drift = Drift(parse("GS"), NormPower(1, 2, 2, 0.45))
    assert not drift.exact
    assert 0.3 < drift.limit() < 0.45
    drift.__dict__["share"] = np.zeros(65), np.ones(65)
    drift.__dict__.pop("_clear")
    drift.__dict__.pop("fixed_points")
    assert math.isnan(drift.limit())


def test_normal_gradients_end_like_those_of_the_estimator():
    estimator = parse("EMA")
    path = descent(Drift(estimator, TUCKER), np.zeros(64), 150, 0.08, 64, generator())
    assert path.shape == (151, 64)
    assert path[-1].mean() == pytest.approx(ends(estimator), abs=0.01)


def test_the_seed_decides_the_run():
    first, again, other = (
        optimize(ZGR(), SMALL, start(SMALL, 1), 20, seed=seed, every=10) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 1, 5, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first[1:], other[1:])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"steps": 0}, "steps"), ({"batch": 0}, "batch"), ({"every": 0}, "every"), ({"lr": 0}, "lr")],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        optimize(ZGR(), TUCKER, start(), **given)


def test_what_cannot_be_used_says_why():
    f = NormPower(128, 2, 2, 0.45)
    with pytest.raises(ValueError, match=r"SAS.* cannot be used: .*2\^128"):
        optimize(parse("SAS"), f, start(f, 1))


@pytest.fixture(scope="module")
def rows():
    toys = {
        name: f for name, f in TOYS.items() if name in ("Tucker, t = 0.45", "polynomial, p = 3")
    }
    return figure.rows(estimators=["ST", "RF", "SAS", "REINFORCE"], toys=toys, steps=20, workers=1)


@pytest.mark.thorough  # test_redraw.py draws it
@pytest.mark.usefixtures("unchecked")
def test_the_figure_reads_its_rows(rows):
    read = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    few = [tick.get_text() for tick in plot.plot(read).axes[0].get_yticklabels()]
    assert few == ["RF(2)", "REINFORCE", "ST"]
    drawn = plot.plot_all(read)
    names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert names == ["RF(2)", "REINFORCE", "REINFORCE fitted", "SAS(k=1)", "ST"]
    assert [text.get_text() for text in drawn.axes[1].texts] == ["refused"]


def test_rows_of_what_is_refused_hold_the_reason(rows):
    refused = rows[rows["reason"].notna()]
    assert refused["estimator"].tolist() == ["SAS(k=1)"]
    assert "2^128" in refused["reason"].iloc[0]


def test_the_committed_rows_hold_every_estimator():
    committed = pd.read_csv(Path(__file__).parents[2] / "figures" / "toys.csv")
    assert set(ESTIMATORS) == {text.partition("(")[0] for text in committed["estimator"]}


@pytest.fixture(scope="module")
def committed():
    rows = pd.read_csv(Path(__file__).parents[2] / "figures" / "toys.csv")
    return rows[rows["batch"].notna()]


def test_committed_runs_end_where_theory_says(committed):
    # Sixteen bits, and those that a side of an unstable point decides, tell their mean less well.
    loose = (committed["N"] == 1) | committed["fixed_points"].astype(str).str.contains("!")
    error = (committed["q"] - committed["predicted"]).abs()
    assert len(committed) > 200
    # The theory has normal noise, as a mean of many estimates has.
    many = committed["batch"] > 20
    assert error[~loose & many].max() < 0.04
    assert error[~loose & ~many].max() < 0.12
    assert error[loose].max() < 0.2
    assert error.median() < 0.005


@pytest.mark.parametrize("text", ["ZGR", "RF(m=2)", "LE", "DisARM"])
def test_with_little_noise_the_committed_runs_end_at_the_optimum(committed, text):
    found = committed[(committed["estimator"] == text) & (committed["snr"] > 0.3)]
    assert len(found) >= 3
    assert found["q"].max() < 0.03


def test_st_stops_at_the_target_in_the_committed_runs(committed):
    found = committed[(committed["estimator"] == "ST") & (committed["p"] == 2)]
    assert found["q"].tolist() == pytest.approx(found["target"].tolist(), abs=0.03)

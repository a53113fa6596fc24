"""The probe at a layer of subsets, permutations or trees."""

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.distributions import Chain, KSubset, Permutation
from gradlab.distributions.base import with_gradient
from gradlab.nn.probe_structures import StructuredLayer

A = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 0.3
LOGITS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
NAMES = ["ST", "ZGR", "RF(m=4)", "REINFORCE(baseline=0.4)", "EMA", "LEARNED"]


def f(x: Tensor) -> Tensor:
    return ((x @ A.to(x)) * x).sum(-1)


def three_of(p: Tensor) -> KSubset:
    return KSubset(p, 3)


def sample(logits: Tensor, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    return with_gradient(drawn, drawn.sample((), generator), 1.0)


def exact(name: str) -> tuple[float, float]:
    """Return squared bias and variance of the whole batch, element by element."""
    bias2, variance = 0.0, 0.0
    for row in LOGITS:
        moments = gradlab.exact_moments(gradlab.parse(name), f, row, distribution=three_of)
        truth = gradlab.exact_gradient(f, row, distribution=three_of)
        bias2 += float((moments.mean - truth).square().sum())
        variance += float(moments.variance)
    return bias2, variance


@pytest.mark.thorough  # test_probe.py has rows of several elements
def test_rows_are_those_of_all_elements_together() -> None:
    probe = gradlab.GradientProbe([*NAMES, sample, "GS"], every=1, draws=4000)
    state = torch.get_rng_state()
    probe(0, f, LOGITS, distribution=three_of)
    assert torch.equal(torch.get_rng_state(), state)
    rows = probe.rows.set_index("estimator")
    assert set(rows["truth"]) == {"enumeration"}
    length2 = sum(
        float(gradlab.exact_gradient(f, row, distribution=three_of).square().sum())
        for row in LOGITS
    )
    assert rows["truth2"].dropna().unique() == pytest.approx([length2], rel=1e-5)
    for name in NAMES:
        bias2, variance = exact(name)
        row = rows.loc[str(gradlab.parse(name))]
        assert abs(row["bias2"] - bias2) < 6 * row["bias2_se"]
        assert abs(row["variance"] - variance) < 6 * row["variance_se"]
        assert row["method"] == "monte carlo"
    assert abs(rows.loc["sample", "bias2"]) < 6 * rows.loc["sample", "bias2_se"]
    assert rows.loc["GS(tau=1)", "reason"].startswith("GS(tau=1) is not known where x is drawn")


def test_the_layer_is_found_in_its_distribution() -> None:
    probe = gradlab.GradientProbe(["ST"], every=1, draws=64)
    probe(0, f, LOGITS, distribution=three_of)
    probe(0, f, KSubset(LOGITS, 3))
    first, second = probe.rows.drop(columns="seconds").to_dict("records")
    assert str(first) == str(second)


def test_where_the_states_are_too_many_draws_measure_the_truth() -> None:
    logits = torch.zeros(3, 40)
    probe = gradlab.GradientProbe(["ST"], every=1, draws=64, reference_draws=64)
    probe(0, lambda x: x[..., 0] + x[..., 1], logits, distribution=lambda p: KSubset(p, 20))
    assert probe.rows["truth"].tolist() == ["RF(m=4), 64 draws"]


def test_permutations_have_parameters_of_two_axes() -> None:
    logits = torch.zeros(2, 3, 3)
    probe = gradlab.GradientProbe(["ST", "RF(m=2)"], every=1, draws=256)
    probe(0, lambda x: x[..., 0, 1], Permutation(logits))
    assert probe.rows["reason"].isna().all()
    assert probe.rows["truth2"][0] > 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            torch.distributions.OneHotCategorical(logits=LOGITS),
            "parameters of OneHotCategorical cannot be found: give logits",
        ),
        (
            Chain(torch.zeros(5, 3, 2), torch.zeros(5, 2, 2, 2)),
            "parameters of Chain cannot be found: give logits",
        ),
    ],
)
def test_what_cannot_be_found_says_what_is_needed(layer, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        gradlab.GradientProbe(["ST"], every=1)(0, f, layer)


@pytest.mark.parametrize(
    ("loss", "logits", "distribution", "message"),
    [
        (f, LOGITS, lambda p: KSubset(p.sum(0), 3), r"batch shape \[5\], not \[\]"),
        (f, LOGITS, lambda p: torch.distributions.Normal(p, 1.0), "no finite support"),
        (f, LOGITS / 0, three_of, "hold NaN|hold .inf"),
        (f, LOGITS, lambda p: KSubset(p, 7), "k must be between 1 and the 6 elements"),
        (lambda x: x.sum((-2, -1)), LOGITS, three_of, "one value for each element"),
        (lambda x: f(x) + torch.rand(()), LOGITS, three_of, "random"),
    ],
)
def test_faults_at_a_structured_layer_are_sentences(loss, logits, distribution, message) -> None:
    with pytest.raises(ValueError, match=message):
        gradlab.GradientProbe(["ST"], every=1)(0, loss, logits, distribution=distribution)


def test_draws_of_a_function_are_not_what_trains() -> None:
    layer = StructuredLayer(f, LOGITS, three_of)
    draws = lambda f, logits, n, generator: logits.expand(n, *logits.shape)  # noqa: E731
    probe = gradlab.GradientProbe([draws], every=1, draws=64)
    probe(0, f, LOGITS, distribution=three_of)
    assert "returns draws only" in probe.rows["reason"][0]
    assert layer.gradient().shape == (5, 6)

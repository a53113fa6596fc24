"""Estimators of bounds: text forms, claims, training, rows and verdicts."""

import dataclasses
import math

import pandas as pd
import pytest
import torch

import brute_force
from gradlab import bounds, with_parameters
from gradlab.bounds.base import FAMILIES
from gradlab.bounds.log_sums import log_sum_of_others, mean_of_others
from gradlab.comparison.rows import BOUNDED
from gradlab.estimators import ESTIMATORS as OTHERS
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.problems import problem, regime

CASE = brute_force.CASES["2 x 2"]
ALL = [cls() for cls in bounds.ESTIMATORS.values()] + [bounds.OVIS(1), bounds.OVISMonteCarlo(None)]
each = pytest.mark.parametrize("estimator", ALL, ids=str)


@each
def test_the_text_form_is_read_back(estimator):
    assert bounds.parse(str(estimator)) == estimator
    assert bounds.parse(type(estimator).__name__) == type(estimator)()
    assert all(type(bounds.parse(alias)) is type(estimator) for alias in estimator.aliases)


@each
def test_declarations_are_complete(estimator):
    assert estimator.family in FAMILIES
    assert set(FAMILIES) <= {cls.family for cls in OTHERS.values()}
    assert estimator.reference
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimator.name = "other"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("VIMKO", "did you mean 'VIMCO'"),
        ("OVIS(s=2)", "OVIS has no argument 's'"),
        ("OVIS-MC(s=0)", "s must be an int"),
        ("OVIS(gamma=inf)", "gamma must be a finite number"),
        ("VIMCO(", "cannot read estimator"),
    ],
)
def test_a_wrong_text_is_refused(text, told, unchecked):
    with pytest.raises(ValueError, match=told):
        bounds.parse(text)


@each
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.few(24)
def test_what_is_declared_unbiased_is_and_what_is_not_is_not(estimator, k):
    if estimator.refusal(k, 2, 2):
        pytest.skip("not defined for one sample")
    verdict = bounds.verify(estimator, CASE.log_joint, CASE.logits, k)
    is_exact_here = estimator.unbiased or (k == 1 and str(estimator) == "ZGR")
    assert verdict.unbiased == is_exact_here
    assert verdict.holds


@each
def test_the_backward_of_the_surrogate_is_one_draw(estimator):
    logits = CASE.logits.requires_grad_()
    source = torch.Generator()
    estimator.surrogate(CASE.log_joint, logits, 3, source.manual_seed(5)).backward()
    drawn = estimator.draw(CASE.log_joint, CASE.logits, 3, 1, source.manual_seed(5))
    torch.testing.assert_close(logits.grad, drawn[0])


@each
def test_the_surrogate_is_the_bound_and_gives_parameters_their_gradient(estimator):
    # Both are means over samples of q: the exact values are those of enumeration.
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    logits = CASE.logits.expand(4000, 2, 2).clone().requires_grad_()

    def log_joint(z):
        return scale * CASE.log_joint(z)

    exact = bounds.exact_value(log_joint, CASE.logits, 3)
    (slope,) = torch.autograd.grad(exact, scale)
    values = estimator.surrogate(log_joint, logits, 3, torch.Generator().manual_seed(0))
    values.mean().backward()
    values, exact = values.detach(), exact.detach()
    assert values.shape == (4000,)
    assert abs(float(values.mean() - exact)) < 5 * float(values.std()) / 4000**0.5
    assert abs(float(scale.grad - slope)) < 0.05 * abs(float(slope))
    moments = bounds.exact_moments(estimator, log_joint, CASE.logits, 3)
    off = 4000 * logits.grad - moments.mean
    assert float(off.mean(0).norm()) < 5 * (moments.variance / 4000) ** 0.5


def first(z):
    """log p of one variable, for any batch."""
    return z[..., 0, 0]


@each
def test_training_in_float32_keeps_its_dtype_and_masks(estimator):
    logits = torch.tensor([[0.1, -math.inf], [0.2, 0.3]], requires_grad=True)
    value = estimator.surrogate(first, logits.unsqueeze(-2), 2)
    assert value.dtype == torch.float32
    value.sum().backward()
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[0, 1]) == 0


@each
def test_calls_are_counted(estimator):
    seen = 0

    def log_joint(z):
        nonlocal seen
        seen += z[..., 0, 0].numel()
        return CASE.log_joint(z)

    estimator.draw(log_joint, CASE.logits, 3, 1)
    extra = 3 if estimator.needs_gradient else 3 if estimator.name == "LE" else 0
    # Slopes and the class itself are asked for beside the values.
    assert seen - extra <= estimator.calls(3, 2, 2) <= seen


def test_one_sample_has_no_others():
    for text in ("VIMCO", "VIMCO-A", "OVIS"):
        with pytest.raises(ValueError, match="needs k >= 2, not 1"):
            bounds.parse(text).draw(CASE.log_joint, CASE.logits, 1, 4)


def test_a_sum_over_too_many_states_is_refused():
    with pytest.raises(ValueError, match=r"all 3\^20 states, more than 4096"):
        bounds.parse("OVIS-MC(s=inf)").draw(lambda z: z[..., 0, 0], torch.zeros(20, 3), 2, 4)


def test_a_draw_that_does_not_fit_the_memory_is_refused():
    with pytest.raises(ValueError, match="at 11415 points of 40 x 20 numbers") as caught:
        bounds.parse("LE").draw(lambda z: z[..., 0, 0], torch.zeros(40, 20), 15, 1)
    assert "OVIS(gamma=0)" in str(caught.value)


def test_sums_without_one_keep_their_digits():
    log_w = torch.tensor([-800.0, 0.0, 700.0, 700.0, -math.inf], dtype=torch.float64)
    found = log_sum_of_others(log_w)
    for k in range(5):
        rest = torch.cat([log_w[:k], log_w[k + 1 :]])
        torch.testing.assert_close(found[k], rest.logsumexp(0), rtol=1e-15, atol=0)
        torch.testing.assert_close(mean_of_others(log_w)[k], rest.mean())
    dominant = torch.tensor([0.0, -60.0, -61.0], dtype=torch.float64)
    exact = -60 + math.log1p(math.exp(-1))
    assert abs(float(log_sum_of_others(dominant)[0]) - exact) < 1e-14


# Facts on a case of five classes whose weights are even enough for OVIS.
LOG_P = torch.tensor([-4.6, -4.1, -4.4, -5.0, -4.9], dtype=torch.float64)


def even(z):
    return z[..., 0, :] @ LOG_P.to(z)


AT = torch.tensor([[0.3, -0.2, 0.1, -0.4, 0.2]], dtype=torch.float64)


def variances(k):
    texts = ["PLAIN", "VIMCO", "VIMCO-A", "OVIS", "OVIS(gamma=1)", "OVIS-MC(s=inf)", "LE"]
    return {t: float(bounds.exact_moments(t, even, AT, k).variance) for t in texts}


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_order_of_variances_is_that_of_the_published_table(k):
    v = variances(k)
    assert v["LE"] < v["OVIS-MC(s=inf)"] < v["OVIS"] < v["VIMCO"] <= v["VIMCO-A"] + 1e-15
    assert v["VIMCO-A"] < v["PLAIN"]
    assert v["OVIS"] < v["OVIS(gamma=1)"]
    # The two means of one other weight are the same.
    assert (abs(v["VIMCO"] - v["VIMCO-A"]) < 1e-15) == (k == 2)


@pytest.mark.parametrize(("k", "share"), [(2, 0.885), (3, 1.780), (4, 2.681)])
def test_ovis_as_published_is_biased_by_more_than_the_gradient(k, share):
    at = torch.zeros(1, 5, dtype=torch.float64)
    g = bounds.exact_gradient(even, at, k)
    found = bounds.exact_moments("OVIS(gamma=1)", even, at, k)
    assert abs((found.bias2(g) / float(g.square().sum())) ** 0.5 - share) < 0.001
    assert bounds.exact_moments("OVIS", even, at, k).bias2(g) < 1e-24


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_the_bias_of_ovis_as_published_tends_to_k_minus_1_gradients(k):
    # Weights 1 + e: the mean of sum v h is (1 - 1/K) E e h, and the gradient is E e h / K.
    at = torch.zeros(1, 5, dtype=torch.float64)
    g = bounds.exact_gradient(lambda z: 0.01 * even(z), at, k)
    found = bounds.exact_moments("OVIS(gamma=1)", lambda z: 0.01 * even(z), at, k)
    assert abs((found.bias2(g) / float(g.square().sum())) ** 0.5 / (k - 1) - 1) < 0.01


def test_uneven_weights_make_vimco_better_than_ovis():
    uneven = problem("mlp", 2, 2, 0), regime("moderate", 2, 2, 0)
    vimco, ovis = (bounds.exact_moments(t, *uneven, 4).variance for t in ("VIMCO", "OVIS"))
    assert vimco < 0.8 * ovis


def snr(text, k):
    moments = bounds.exact_moments(text, even, AT, k)
    return float(moments.mean.norm()) / float(moments.variance) ** 0.5


@pytest.mark.parametrize(
    ("text", "slope"), [("PLAIN", -1.5), ("VIMCO", -0.5), ("OVIS", 0.5), ("LE", 0.5)]
)
@pytest.mark.few(1)
def test_signal_to_noise_against_k_has_the_known_slope(text, slope):
    found = math.log2(snr(text, 32) / snr(text, 16))
    assert abs(found - slope) < 0.1


def test_the_bound_rises_with_k_to_log_p():
    values = [float(bounds.exact_value(even, AT, k)) for k in (1, 2, 4, 16)]
    log_p = float(LOG_P.logsumexp(0))
    assert values == sorted(values)
    assert values[-1] < log_p < values[-1] + 0.01


def test_zgr_is_exact_on_quadratics_for_one_sample_only():
    g1, g2 = (bounds.exact_gradient(CASE.log_joint, CASE.logits, k) for k in (1, 2))
    assert bounds.exact_moments("ZGR", CASE.log_joint, CASE.logits, 1).bias2(g1) < 1e-26
    assert bounds.exact_moments("ZGR", CASE.log_joint, CASE.logits, 2).bias2(g2) > 1e-6
    assert bounds.exact_moments("ST", CASE.log_joint, CASE.logits, 1).bias2(g1) > 1e-6


# Rows.
MLP = problem("mlp", 2, 2, 0), regime("moderate", 2, 2, 0)


def test_rows_have_the_columns_of_the_schema_and_what_is_measured_one_by_one():
    rows = bounds.compare(*MLP, ["VIMCO", "LE", "ZGR"], k=(2, 8), logits_seed=0)
    assert list(rows) == BOUNDED
    assert rows[["estimator", "K"]].values.tolist() == [
        [name, k] for k in (2, 8) for name in ("VIMCO", "LE", "ZGR")
    ]
    row = rows.iloc[5]
    moments = bounds.exact_moments("ZGR", *MLP, 8)
    assert row["variance"] == moments.variance
    assert row["bias2"] == moments.bias2(bounds.exact_gradient(*MLP, 8))
    assert row["bound"] == float(bounds.exact_value(*MLP, 8))
    assert rows["cost"].tolist()[:3] == [2, 6, 6]
    assert rows["problem"].unique().tolist() == ["mlp(N=2, C=2, seed=0)"]


def test_rows_by_both_methods_agree_and_repeat():
    rows = bounds.compare(*MLP, ["VIMCO", "OVIS-MC(s=2)"], k=2, method="both", draws=4000)
    assert rows["method"].tolist() == ["exact", "monte carlo"] * 2
    exact, drawn = rows.iloc[0], rows.iloc[1]
    assert abs(drawn["variance"] - exact["variance"]) < 5 * drawn["variance_se"]
    again = bounds.compare(*MLP, ["VIMCO", "OVIS-MC(s=2)"], k=2, method="both", draws=4000)
    pd.testing.assert_frame_equal(rows.drop(columns="seconds"), again.drop(columns="seconds"))


def test_what_cannot_be_measured_is_a_row_with_its_reason():
    table = problem("table", 2, 2, 0)
    rows = bounds.compare(table, MLP[1], ["ZGR", "VIMCO", Overriding()], k=1)
    reasons = rows["reason"].tolist()
    assert "not differentiable" in reasons[0]
    assert "needs k >= 2" in reasons[1]
    assert pd.isna(reasons[2])
    assert rows["method"].tolist() == ["exact", "exact", "monte carlo"]
    assert "Overriding overrides draw" in rows["note"][2]


class Overriding(bounds.Plain):
    """PLAIN with a method of its own."""

    def draw(self, *args, **options):
        return super().draw(*args, **options)


def test_where_nothing_can_be_enumerated_a_reference_measures_the_truth():
    large = problem("mlp", 20, 3, 0), regime("moderate", 20, 3, 0)
    with pytest.raises(TooLargeError):
        bounds.compare(*large, ["VIMCO"], k=2)
    rows = bounds.compare(*large, ["LE"], k=2, draws=64, reference="VIMCO", reference_draws=256)
    assert rows["truth"][0] == "VIMCO, 256 draws"
    assert rows["method"][0] == "monte carlo"
    assert pd.isna(rows["bound"][0])
    assert abs(rows["bias2"][0]) < 5 * rows["bias2_se"][0]
    with pytest.raises(ValueError, match="must be unbiased, which ZGR is not"):
        bounds.compare(*large, ["LE"], k=2, reference="ZGR")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"estimators": "VIMCO"}, TypeError, r"such as \[VIMCO\]"),
        ({"estimators": []}, ValueError, "must not be empty"),
        ({"k": []}, ValueError, "at least one number"),
        ({"k": 2.0}, ValueError, "k must be an int of at least 1, not 2.0"),
        ({"k": True}, ValueError, "k must be an int of at least 1, not True"),
        ({"k": "34"}, ValueError, "k must be an int of at least 1, not '3'"),
        ({"k": (2, 0)}, ValueError, "k must be an int of at least 1, not 0"),
        ({"method": "fast"}, ValueError, "method must be one of"),
        ({"estimators": [3]}, TypeError, "not int"),
    ],
)
def test_wrong_arguments_are_refused(given, error, told, unchecked):
    with pytest.raises(error, match=told):
        bounds.compare(*MLP, **{"estimators": ["VIMCO"], "k": 2} | given)


def test_a_loss_of_the_logits_is_refused():
    f, logits = MLP
    marked = with_parameters(lambda x, logits: f(x))
    for call in (bounds.exact_value, bounds.exact_gradient):
        with pytest.raises(TypeError, match="z alone: the bound subtracts"):
            call(marked, logits, k=2)


# Verdicts.
def test_a_verdict_says_unbiased_in_k():
    verdict = bounds.verify("VIMCO")
    assert verdict.explain() == (
        "VIMCO: unbiased in K. No bias at K = 2, 3, 4 on 3 problems, by enumeration."
    )
    assert verdict.table["judged"].unique().tolist() == ["draw and training"]


def test_a_verdict_names_the_bias():
    verdict = bounds.verify("OVIS(gamma=1)", even, AT, [2, 3])
    assert verdict.holds
    assert not verdict.unbiased
    assert verdict.explain().startswith("OVIS(gamma=1): BIASED in K, as it declares. The bias is 0")


class Claiming(bounds.OVIS):
    """OVIS that declares to be unbiased at every gamma."""

    unbiased = True


def test_a_false_claim_does_not_hold():
    verdict = bounds.verify(Claiming(1.0))
    assert not verdict.holds
    assert "against what it declares" in verdict.explain()


class Noisy(bounds.Plain):
    """An estimate that is another one each time it is made."""

    made = 0

    def estimate(self, on):
        Noisy.made += 1
        return super().estimate(on) * (1 + 1e-3 * (Noisy.made % 2))


def test_training_that_is_not_the_draw_is_seen():
    verdict = bounds.verify(Noisy(), *MLP, 1)
    assert not verdict.holds
    assert "the backward of surrogate is not the draw" in verdict.explain()


def test_a_verdict_needs_the_formula_that_runs_and_both_arguments():
    with pytest.raises(NotExactError):
        bounds.verify(Overriding())
    with pytest.raises(TypeError, match="together"):
        bounds.verify("VIMCO", even)

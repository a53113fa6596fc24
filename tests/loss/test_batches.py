"""Logits [B, N, C]: every call equals a loop over the B elements; float32 code works as it is."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradlab
from gradlab import compare, exact_gradient, exact_moments, exact_value, monte_carlo, verify
from gradlab.exact.moments import EnumeratedBatch
from gradlab.exact.tabulated import Tabulated
from gradlab.nn.probe import GradientProbe
from gradlab.problems import problem, regime
from gradlab.verification.verdict import BIASED, UNBIASED
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")

ESTIMATORS = ["ST", "ZGR", "GR(tau=0.5, k=3)", "RF(m=2)", "REINFORCE", "LE", "ReinMax-Rao(k=2)"]
MASKED = {"none": {}, "one": {(1, 0, 2): -math.inf}, "large": {(0, 1, 0): -1e8, (2, 0, 1): -1e9}}


def targets(batch: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, 2, 3, generator=torch.Generator().manual_seed(7), dtype=dtype)


def loss(dtype: torch.dtype = torch.float64, batch: int = 3):
    """Return f of a batch, each element with a target of its own, and its logits."""
    of_each = targets(batch, dtype)

    def f(x):
        return ((x - of_each) * of_each.cos()).square().sum((-2, -1)) * (x[..., 0, 0] + 1)

    logits = torch.randn(batch, 2, 3, generator=torch.Generator().manual_seed(8), dtype=dtype)
    return f, logits


def one(f, batch: int, b: int):
    """Return f of element b alone, by repeating x: the slow way."""
    return lambda x: f(x.unsqueeze(-3).expand(*x.shape[:-2], batch, *x.shape[-2:]))[..., b]


def masked(logits, name):
    logits = logits.clone()
    for place, value in MASKED[name].items():
        logits[place] = value
    return logits


# ---- equal to a loop --------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKED)
def test_value_and_gradient_are_those_of_a_loop(mask):
    f, logits = loss()
    logits = masked(logits, mask)
    value, gradient = exact_value(f, logits), exact_gradient(f, logits)
    assert value.shape == (3,)
    assert gradient.shape == (3, 2, 3)
    for b in range(3):
        torch.testing.assert_close(value[b], exact_value(one(f, 3, b), logits[b]))
        wanted = exact_gradient(one(f, 3, b), logits[b])
        torch.testing.assert_close(gradient[b], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", MASKED)
@pytest.mark.parametrize("text", ESTIMATORS)
@pytest.mark.few(8)
def test_moments_are_those_of_a_loop(text, mask):
    f, logits = loss()
    logits = masked(logits, mask)
    found = exact_moments(gradlab.parse(text), f, logits)
    for b in range(3):
        wanted = exact_moments(gradlab.parse(text), one(f, 3, b), logits[b])
        torch.testing.assert_close(found.mean[b], wanted.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            found.variance_per_variable[b], wanted.variance_per_variable, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("text", ESTIMATORS)
@pytest.mark.few(3)
def test_draws_agree_with_the_exact_moments(text):
    f, logits = loss()
    exact = exact_moments(gradlab.parse(text), f, logits)
    drawn = monte_carlo(text, f, logits, 12_000, seed=3)
    assert drawn.mean.shape == (3, 2, 3)
    varies = drawn.mean_se > 0
    far = scores(drawn.mean[varies], exact.mean[varies], drawn.mean_se[varies])
    assert far.abs().max() < limit(15)
    wrong = scores(1.5 * drawn.mean[varies], exact.mean[varies], drawn.mean_se[varies])
    assert wrong.abs().max() > limit(15)
    score = scores(drawn.variance, exact.variance, drawn.variance.se)
    assert abs(score) < limit(15)


def test_rows_of_compare_are_sums_over_the_elements():
    f, logits = loss()
    rows = compare(f, logits, ESTIMATORS, problem="own")
    assert set(rows["batch"]) == {3}
    assert set(rows["method"]) == {"exact"}
    each = [compare(one(f, 3, b), logits[b], ESTIMATORS, problem="own") for b in range(3)]
    for column in ("truth2", "bias2", "variance", "mse"):
        total = sum(table[column] for table in each)
        assert rows[column].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-9, abs=1e-12)
    drawn = compare(f, logits, ["ARSM", "ZGR"], draws=500, method="monte-carlo")
    assert drawn["reason"].isna().all()


def test_a_table_that_is_too_large_gives_the_same(monkeypatch):
    f, logits = loss()
    whole = EnumeratedBatch(f, logits)
    monkeypatch.setattr("gradlab.exact.tabulated._TABLE", 9 * 3 + 1)  # values only
    values_only = EnumeratedBatch(f, logits)
    monkeypatch.setattr("gradlab.exact.tabulated._TABLE", 1)
    for other in (values_only, EnumeratedBatch(f, logits)):
        torch.testing.assert_close(other.gradient, whole.gradient, rtol=0, atol=1e-12)
        zgr = other.moments(gradlab.ZGR())
        torch.testing.assert_close(zgr.mean, whole.moments(gradlab.ZGR()).mean, rtol=0, atol=1e-12)


def test_each_state_is_evaluated_once():
    f, logits = loss()
    seen = []

    def watched(x):
        seen.append(x[..., 0, 0].numel())
        return f(x)

    on = EnumeratedBatch(watched, logits)
    asked = sum(seen)
    for text in ("RF(m=2)", "REINFORCE", "LE"):
        on.moments(gradlab.parse(text))
    assert sum(seen) - asked <= 9 * 3
    assert Tabulated(on.objective, logits).states == 9


# ---- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["RF(m=2)", "REINFORCE", "LE"])
def test_a_batch_is_proved_and_what_trains_with_it(text):
    verdict = verify(text, *loss())
    assert verdict.outcome == UNBIASED
    assert verdict.judged == "training"
    assert verdict.method == "exact"
    assert verdict.target.shape == (3, 2, 3)


@pytest.mark.thorough  # its cases without a batch: tests/verification
def test_a_batch_by_draws():
    f, logits = loss()
    assert verify("ARSM", f, logits, alpha=1e-8, delta=0.1).outcome == UNBIASED
    assert verify("ST", f, logits).outcome == BIASED

    def own(f, logits, generator):
        return f(gradlab.zgr(logits, generator=generator))

    def halved(f, logits, generator):
        values = gradlab.LeaveOneOut().surrogate(f, logits, generator)
        return values.detach() + (values - values.detach()) / 2

    assert verify(own, f, logits, against="ZGR", alpha=1e-8, delta=0.1).outcome == UNBIASED
    wrong = verify(halved, f, logits, alpha=1e-8)
    assert wrong.outcome == BIASED
    assert wrong.slope == pytest.approx(0.5, abs=8 * wrong.slope.se)
    with pytest.raises(ValueError, match="are a batch already"):
        verify(own, f, logits, batch=4)


# ---- float32 as it is --------------------------------------------------------------------------


def modules():
    torch.manual_seed(5)
    mlp = nn.Sequential(nn.Flatten(-2), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(-2))
    conv = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 1))
    table = nn.Embedding(3, 4)
    return {
        "linear": mlp.requires_grad_(False),
        "trained": nn.Sequential(nn.Flatten(-2), nn.Linear(6, 1), nn.Flatten(-2)),
        "conv": gradlab.as_loss(conv, layout="C N"),
        "lstm": gradlab.as_loss(
            nn.LSTM(3, 4, batch_first=True), output=lambda out: out[0].sum((-2, -1))
        ),
        "embedding": lambda x: (x @ table.weight).sum(-2).square().sum(-1),
    }


@pytest.mark.parametrize("name", ["linear", "trained", "conv", "lstm", "embedding"])
@pytest.mark.few(1)
def test_float32_modules_on_float32_logits_just_work(name):
    f, logits = modules()[name], regime("moderate", 2, 3, 0).float()
    gradient = exact_gradient(f, logits)
    assert gradient.dtype == torch.float64
    assert exact_moments(gradlab.ZGR(), f, logits).mean.shape == (2, 3)
    verdict = verify("RF(m=2)", f, logits)
    assert verdict.outcome == UNBIASED
    assert verdict.method == "exact"
    assert 1e-8 < verdict.limit / verdict.unit[0] < 1e-4  # the last bits of float32
    rows = compare(f, logits, ["ZGR", "GS", "RF(m=2)"], draws=200)
    assert set(rows["dtype"]) == {"float32"}
    assert rows["reason"].isna().all()
    few = ["ZGR", "RF(m=2)", "ARSM"]
    assert gradlab.recommend(f, logits, evaluations=8, estimators=few, draws=64).best
    probe = GradientProbe(["ZGR", "RF(m=2)"])
    probe(0, f, logits.unsqueeze(0).expand(4, 2, 3))
    assert probe.rows["reason"].isna().all()


def test_the_precision_of_f_decides_what_a_proof_may_leave():
    weight = targets(1)[0]

    def f(x):
        return (x.to(torch.float32) * weight.float()).sum((-2, -1)).exp()

    coarse = verify("RF(m=2)", f, regime("moderate", 2, 3, 0))
    fine = verify(
        "RF(m=2)", lambda x: (x * weight).sum((-2, -1)).exp(), regime("moderate", 2, 3, 0)
    )
    assert coarse.limit > 1e6 * fine.limit
    assert coarse.outcome == fine.outcome == UNBIASED


INNER = {
    "ends in float64": lambda v: v.exp().double(),
    "scaled in float64": lambda v: v.exp().double() * 3.1 + 0.7,
    "summed in float64": lambda v: v.exp().double().square() - v.sin().double(),
}


@pytest.mark.parametrize("outer", INNER.values(), ids=list(INNER))
@pytest.mark.parametrize("text", ["RF(m=2)", "REINFORCE", "LE"])
@pytest.mark.few(3)
def test_float32_that_a_loss_hides_is_found(outer, text):
    weight = targets(1)[0].float()

    def f(x):
        return outer((x.float() * weight).sum((-2, -1)))

    for seed in range(4):
        verdict = verify(text, f, regime("moderate", 2, 3, seed))
        assert verdict.outcome == UNBIASED, str(verdict)
        # Of whole numbers, which float32 holds too, nothing is loosened.
        whole = verify(text, lambda x: (x[..., 0] * 1000).sum(-1), regime("moderate", 2, 3, seed))
        assert whole.limit < 1e-9


@pytest.mark.thorough  # test_float32_that_a_loss_hides_is_found
def test_an_error_in_float32_only_is_found_with_float32_logits():
    def clipped(f, logits, generator):
        # 1e-10 is lost beside 1 in float32, but for where the loss is scaled up by it.
        scale = 1 + 1e7 * torch.finfo(logits.dtype).eps * 0.2
        return scale * f(gradlab.zgr(logits, generator=generator))

    f, logits = problem("quadratic", 2, 3, 0), regime("moderate", 2, 3, 0)
    options = {"alpha": 1e-6, "delta": 0.05}
    assert verify(clipped, f, logits, **options).outcome == UNBIASED
    assert verify(clipped, f, logits.float(), **options).outcome == BIASED


def test_per_row_targets_by_as_loss():
    target = torch.tensor([0, 2, 1])
    net = nn.Linear(6, 3).double()
    f = gradlab.as_loss(
        net,
        layout="flat",
        target=target,
        loss=lambda out, t: F.cross_entropy(out, t, reduction="none"),
    )
    _, logits = loss()
    gradient = exact_gradient(f, logits)
    for b in range(3):
        alone = gradlab.as_loss(
            net,
            layout="flat",
            target=target[b : b + 1],
            loss=lambda out, t: F.cross_entropy(out, t, reduction="none"),
        )
        torch.testing.assert_close(gradient[b : b + 1], exact_gradient(alone, logits[b : b + 1]))

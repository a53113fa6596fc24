"""ZGR is exact on quadratics for every distribution with finitely many states; ST is not."""

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent
from torch.distributions import OneHotCategorical as TorchOneHot

import gradlab
from gradlab.distributions import Finite, WithoutReplacement
from gradlab.exact.moments import NotExactError
from gradlab.exact.structures import Structured
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.problems import problem, regime
from structures import CASES, Case, logits_of

STRUCTURES = [
    *CASES,
    Case("bits", (4,), lambda p: Bernoulli(logits=p), lambda: None, None),
    Case("3 of 6 without replacement", (6,), lambda p: WithoutReplacement(p, 3), None, None),
    Case("rows", (3, 3), lambda p: TorchOneHot(logits=p), lambda: None, None),
    Case(
        "independent rows",
        (2, 4),
        lambda p: Independent(TorchOneHot(logits=p), 1),
        lambda: None,
        None,
    ),
    Case("one row shared by three", (4,), lambda p: TorchOneHot(logits=p.expand(3, 4)), None, None),
    Case("rows of tanh", (2, 3), lambda p: TorchOneHot(logits=2 * p.tanh()), None, None),
]
every_structure = pytest.mark.parametrize("case", STRUCTURES, ids=str)


def autoregressive(theta: Tensor) -> Finite:
    """Two bits, the second of which depends on the first: a table of four states."""
    first, second = theta[0], theta[1:3]
    log = torch.nn.functional.logsigmoid
    states = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    table = [
        log(-first) + log(-second[0]),
        log(-first) + log(second[0]),
        log(first) + log(-second[1]),
        log(first) + log(second[1]),
    ]
    return Finite(states, torch.stack(table))


def polynomial(degree: int, on: torch.Size, seed: int = 0):
    """Return a random polynomial in all entries of x, dense up to the degree."""
    source = torch.Generator().manual_seed(seed)
    size = on.numel()
    tensors = [
        torch.randn([size] * d, generator=source, dtype=torch.float64) for d in range(1, degree + 1)
    ]

    def f(x: Tensor) -> Tensor:
        z = x.flatten(-len(on)) if len(on) > 1 else x
        total = z @ tensors[0].to(z)
        for tensor in tensors[1:]:
            total = total + _contract(z, tensor.to(z))
        return total

    return f


def _contract(z: Tensor, tensor: Tensor) -> Tensor:
    letters = "abcd"[: tensor.ndim]
    return torch.einsum(
        ",".join(f"...{i}" for i in letters) + f",{letters}->...", *[z] * tensor.ndim, tensor
    )


def on(case: Case, degree: int, seed: int = 0, scale: float = 1.5) -> Structured:
    logits = logits_of(case, scale, seed=seed)
    drawn = case.make(logits)
    f = polynomial(degree, drawn.batch_shape + drawn.event_shape, seed)
    return Structured(f, logits, case.make)


def relative_bias(enumerated: Structured, estimator: str) -> float:
    found = enumerated.moments(gradlab.parse(estimator)).mean
    truth = enumerated.gradient
    return float((found - truth).norm() / truth.norm())


@every_structure
@pytest.mark.parametrize("estimator", ["ST", "ZGR", "DARN", "ST-ZGR(alpha=0.3)"])
@pytest.mark.few(21)
def test_all_are_exact_on_linear_functions(case: Case, estimator: str) -> None:
    assert relative_bias(on(case, 1), estimator) < 1e-12


@every_structure
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.few(16)
def test_zgr_is_exact_on_quadratics_and_its_halves_are_not(case: Case, seed: int) -> None:
    enumerated = on(case, 2, seed)
    assert relative_bias(enumerated, "ZGR") < 1e-12
    halves = [relative_bias(enumerated, name) for name in ("ST", "DARN")]
    assert halves[0] == pytest.approx(halves[1], rel=1e-6)
    assert halves[0] > 1e-3


@every_structure
@pytest.mark.few(5)
def test_zgr_is_not_exact_on_cubics(case: Case) -> None:
    assert relative_bias(on(case, 3), "ZGR") > 1e-4


@every_structure
@pytest.mark.parametrize("estimator", ["REINFORCE(baseline=0.7)", "RF(m=2)", "RF(m=5)"])
@pytest.mark.few(15)
def test_score_functions_are_exact_on_everything(case: Case, estimator: str) -> None:
    assert relative_bias(on(case, 3), estimator) < 1e-12


def test_zgr_is_exact_on_quadratics_of_a_hierarchy() -> None:
    theta = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
    enumerated = Structured(polynomial(2, torch.Size([2])), theta, autoregressive)
    assert relative_bias(enumerated, "ZGR") < 1e-12
    assert relative_bias(enumerated, "ST") > 1e-3


@every_structure
@pytest.mark.few(5)
def test_the_gradient_is_that_of_the_value(case: Case) -> None:
    enumerated = on(case, 3)
    logits = enumerated.parameters
    step = torch.randn(
        logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    f, make = enumerated.f, case.make
    ends = [float(exact_value(f, logits + s * step, distribution=make)) for s in (-1e-5, 1e-5)]
    slope = (ends[1] - ends[0]) / 2e-5
    found = exact_gradient(f, logits, distribution=make)
    assert float((found * step).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@every_structure
@pytest.mark.parametrize("estimator", ["ST", "ZGR", "REINFORCE", "RF(m=2)", "RF(m=5)"])
@pytest.mark.few(8)
def test_draws_agree_with_exact_moments(case: Case, estimator: str) -> None:
    from significance import limit

    enumerated = on(case, 3, scale=0.5)  # no state so rare that errors of draws miss it
    chosen = gradlab.parse(estimator)
    exact = enumerated.moments(chosen)
    found = gradlab.monte_carlo(
        chosen, enumerated.f, enumerated.parameters, 4000, distribution=case.make
    )
    z = (found.mean - exact.mean) / found.mean_se.clamp_min(1e-12)
    assert float(z.abs().max()) < limit(200)
    variance = found.variance
    assert abs(variance.value - exact.variance) <= 7 * variance.se + 1e-9


OWN = ("ST", "ZGR", "DARN", "ST-ZGR(alpha=0.3)", "RF(m=4)", "REINFORCE(baseline=0.3)")


@pytest.mark.parametrize("estimator", OWN)
def test_torchs_own_class_gives_the_numbers_of_the_default(estimator: str) -> None:
    f, logits = problem("mlp", 3, 3), regime("moderate", 3, 3)
    chosen = gradlab.parse(estimator)
    default = exact_moments(chosen, f, logits)
    found = exact_moments(chosen, f, logits, distribution=lambda p: TorchOneHot(logits=p))
    assert torch.allclose(found.mean, default.mean, atol=1e-14)
    assert float(found.variance) == pytest.approx(float(default.variance), rel=1e-12)
    truth = exact_gradient(f, logits, distribution=lambda p: TorchOneHot(logits=p))
    assert torch.allclose(truth, exact_gradient(f, logits), atol=1e-14)


def test_indices_serve_score_functions() -> None:
    logits = torch.tensor([0.1, 0.7, -0.4], dtype=torch.float64)
    f = lambda k: (k - 1.0).square()  # noqa: E731
    enumerated = Structured(f, logits, lambda p: Categorical(logits=p))
    p = logits.softmax(-1)
    values = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(enumerated.gradient, p * (values - p @ values), atol=1e-15)
    assert relative_bias(enumerated, "RF(m=3)") < 1e-12
    with pytest.raises(ValueError, match="has no mean"):
        enumerated.moments(gradlab.ZGR())


def unnormalized(p: Tensor):
    """A distribution whose log_prob is not normalized."""

    class Wrong(TorchOneHot):
        def log_prob(self, value: Tensor) -> Tensor:
            return super().log_prob(value) + 0.1

    return Wrong(logits=p)


def normalized_here_only(p: Tensor):
    """A distribution whose log_prob is normalized at these parameters, but not beside them."""

    class Wrong(TorchOneHot):
        def log_prob(self, value: Tensor) -> Tensor:
            return (value * (p - p.detach().logsumexp(-1))).sum(-1)

    return Wrong(logits=p)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: torch.distributions.Normal(p, 1.0), ValueError, "no finite support"),
        (lambda p: torch.distributions.Poisson(p.exp()), ValueError, "no finite support"),
        (lambda p: p, TypeError, "must return a torch.distributions.Distribution, not Tensor"),
        (lambda p: TorchOneHot(logits=p.detach()), ValueError, "not differentiable"),
        (unnormalized, ValueError, "sum to 1.1"),
        (normalized_here_only, ValueError, "mean of the score"),
        (lambda p: Bernoulli(logits=p.expand(25, 3)), ValueError, "draw instead"),
    ],
)
def test_what_is_not_a_finite_distribution_is_refused(make, error, message: str) -> None:
    with pytest.raises(error, match=message):
        Structured(lambda x: x.flatten(-1)[..., 0], torch.zeros(3), make)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x, "one value for each x"),
        (lambda x: x.sum(-1) + torch.rand(()), "random"),
        (lambda x: x.sum(-1) * len(x), "batch"),
        (lambda x: x.sum(-1) / 0, "NaN|inf"),
    ],
)
def test_the_gate_is_passed_here_too(f, message: str) -> None:
    with pytest.raises(gradlab.loss.LossError, match=message):
        exact_value(f, torch.zeros(4), distribution=lambda p: gradlab.distributions.KSubset(p, 2))


def test_estimators_without_a_formula_are_refused() -> None:
    enumerated = on(CASES[0], 2)
    with pytest.raises(NotExactError, match=r"GS\(tau=1\) is not known .* use ST, ZGR"):
        enumerated.moments(gradlab.parse("GS(tau=1)"))


def test_arguments_are_given_once() -> None:
    enumerated = on(CASES[0], 2)
    assert torch.equal(exact_gradient(enumerated), enumerated.gradient)
    with pytest.raises(TypeError, match="its own parameters"):
        exact_gradient(enumerated, torch.zeros(3))
    with pytest.raises(TypeError, match="give a loss f and the parameters"):
        exact_value(lambda x: x, distribution=CASES[0].make)


def test_rows_of_compare() -> None:
    case = CASES[1]
    enumerated = on(case, 2)
    rows = gradlab.compare(
        enumerated.f,
        enumerated.parameters,
        ["ST", "ZGR", "RF(m=4)", "GS(tau=1)"],
        distribution=case.make,
    ).set_index("estimator")
    assert rows.loc["ZGR", "bias2"] < 1e-20 < rows.loc["ST", "bias2"]
    assert rows.loc["RF(m=4)", "cost"] == 4
    assert rows.loc["ZGR", "cost"] == 3
    assert "is not known" in rows.loc["GS(tau=1)", "reason"]
    drawn = gradlab.compare(
        enumerated.f,
        enumerated.parameters,
        ["ST"],
        distribution=case.make,
        method="monte-carlo",
        draws=4000,
    )
    bias2 = drawn.loc[0, "bias2"]
    assert abs(bias2 - rows.loc["ST", "bias2"]) < 7 * drawn.loc[0, "bias2_se"]


def test_rows_follow_seed_method_and_averaged() -> None:
    case = CASES[1]
    enumerated = on(case, 2)

    def rows(**options) -> pd.DataFrame:
        given = enumerated.f, enumerated.parameters, ["ST", "RF(m=4)"]
        return gradlab.compare(*given, distribution=case.make, draws=64, **options)

    assert rows(method="both")["method"].tolist() == ["exact", "monte carlo"] * 2
    one, other = (rows(method="monte-carlo", seed=seed) for seed in (1, 2))
    assert (one["bias2"] != other["bias2"]).all()
    assert (one["bias2"] == rows(method="monte-carlo", seed=1)["bias2"]).all()
    few, many = (rows(averaged=number).iloc[1] for number in (1, 1000))
    assert (few["averaged"], many["averaged"]) == (1, 1000)
    # RF(m) is unbiased: |g|^2 / (|g|^2 + variance / n).
    for row, number in ((few, 1), (many, 1000)):
        wanted = row["truth2"] / (row["truth2"] + row["variance"] / number)
        assert row["progress"] == pytest.approx(wanted)


def test_an_offset_of_the_loss_costs_no_digits() -> None:
    case = CASES[1]
    weights = torch.arange(7.0, dtype=torch.float64)
    plain, far = (
        Structured(lambda x, c=c: x @ weights.to(x) + c, logits_of(case), case.make).gradient
        for c in (0.0, 2.0**30)  # all values are exact
    )
    assert float((far - plain).abs().max()) < 1e-13


@pytest.mark.parametrize("estimator", ["ST", "DARN", "REINFORCE(baseline=0.7)", "RF(m=3)"])
def test_moments_in_blocks_are_those_of_one_block(estimator: str, monkeypatch) -> None:
    case = CASES[1]
    whole = on(case, 3).moments(gradlab.parse(estimator))
    monkeypatch.setattr("gradlab.exact.structures._BLOCK_ELEMENTS", 60)
    blocks = on(case, 3)
    sizes = [part.stop - part.start for part in blocks._parts]
    assert len(sizes) > 3
    assert sum(sizes) == len(blocks.states)
    found = blocks.moments(gradlab.parse(estimator))
    assert found.mean.numpy() == pytest.approx(whole.mean.numpy(), rel=1e-12)
    assert float(found.variance) == pytest.approx(float(whole.variance), rel=1e-12)

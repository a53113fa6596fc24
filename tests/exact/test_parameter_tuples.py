"""Losses that see the parameters of a distribution, and tuples of parameters."""

import pytest
import torch
from torch.distributions import Bernoulli, Independent
from torch.distributions import OneHotCategorical as TorchOneHot

import gradlab
from gradlab import exact_gradient, exact_moments, exact_value, with_parameters
from gradlab.distributions import Chain, Finite, KSubset, OneHotCategorical, Permutation
from gradlab.exact.structures import Structured
from gradlab.loss import (
    BatchDependentError,
    ChangesInputError,
    HoldsLogitsError,
    NotFiniteError,
    StatefulLossError,
)

pytestmark = pytest.mark.usefixtures("unchecked")


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tied(theta):
    """Three rows that share one row of logits."""
    return Independent(TorchOneHot(logits=theta.expand(3, 3)), 1)


def hierarchy(theta):
    states = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    log = torch.nn.functional.logsigmoid
    first = torch.stack([log(-theta[0]), log(theta[0])]).repeat_interleave(2)
    second = torch.stack([log(-theta[1]), log(theta[1]), log(-theta[2]), log(theta[2])])
    return Finite(states, first + second)


CASES = {
    "subset": (lambda theta: KSubset(theta, 2), random(5, seed=1)),
    "permutation": (Permutation, random(3, 3, seed=2)),
    "one row": (OneHotCategorical, random(4, seed=3)),
    "torch's own": (lambda theta: TorchOneHot(logits=theta), random(2, 3, seed=4)),
    "bits": (lambda theta: Independent(Bernoulli(logits=theta), 1), random(4, seed=5)),
    "tied": (tied, random(3, seed=6)),
    "hierarchy": (hierarchy, random(3, seed=7)),
}


def loss(name, term):
    distribution, theta = CASES[name]
    shape = distribution(theta).sample().shape
    weight = random(*shape, seed=8)
    axes = tuple(range(-len(shape), 0))

    @with_parameters
    def f(x, theta):
        h = (x * weight).sum(axes)
        extra = theta.square().sum() if term == "norm" else h * theta.flatten()[0].sin()
        return h.tanh() + extra + 0.3 * h * theta.flatten()[-1]

    return f


@pytest.mark.parametrize("term", ["norm", "product"])
@pytest.mark.parametrize("name", CASES)
def test_two_routes_agree_for_every_distribution(name, term):
    distribution, theta = CASES[name]
    f, theta = loss(name, term), theta.clone().requires_grad_()
    g = exact_gradient(f, theta, distribution=distribution)
    value = exact_value(f, theta, distribution=distribution)
    (other,) = torch.autograd.grad(value, theta)
    torch.testing.assert_close(other, g, rtol=0, atol=1e-10)
    # By hand: the sum over all states.
    on = Structured(f, theta, distribution)
    leaf = theta.detach().clone().requires_grad_()
    drawn = distribution(leaf)
    states = on.states.reshape(-1, *on.shape)
    log_p = torch.stack([drawn.log_prob(x).sum() for x in states])
    (wanted,) = torch.autograd.grad(log_p.exp() @ f(states, leaf), leaf)
    torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["subset", "tied", "hierarchy"])
def test_the_value_is_differentiable_twice_for_distributions(name):
    distribution, theta = CASES[name]
    f, theta = loss(name, "product"), theta.clone().requires_grad_()
    of = lambda theta: exact_value(f, theta, distribution=distribution)  # noqa: E731
    assert torch.autograd.gradgradcheck(of, (theta,))


@pytest.mark.parametrize("text", ["ST", "ZGR", "REINFORCE", "RF(m=2)", "RF(m=4)"])
@pytest.mark.parametrize("name", ["subset", "tied"])
def test_moments_are_those_of_draws(name, text):
    distribution, theta = CASES[name]
    f, estimator = loss(name, "product"), gradlab.parse(text)
    exact = exact_moments(estimator, f, theta, distribution=distribution)
    drawn = gradlab.monte_carlo(estimator, f, theta, 20_000, distribution=distribution)
    apart = drawn.bias2(exact.mean)
    assert abs(apart.value) < 4 * apart.se
    assert abs(drawn.variance.value - exact.variance.value) < 4 * drawn.variance.se
    # Without the graph of theta in f both are others.
    constant = with_parameters(lambda x, given: f(x, given.detach()))
    alone = exact_moments(estimator, constant, theta, distribution=distribution)
    assert float((alone.mean - exact.mean).norm()) > 0.01
    assert abs(alone.variance.value - exact.variance.value) > 5e-3


def test_one_categorical_has_the_moments_that_it_has_without_a_distribution():
    logits, weight = random(1, 4, seed=9), random(4, seed=10)

    def f(x, logits):
        return (x * weight * logits.softmax(-1)).sum(-1).tanh()

    as_rows = with_parameters(lambda x, logits: f(x, logits).squeeze(-1))
    as_one = with_parameters(f)
    for text in ("ZGR", "ST", "RF(m=3)", "REINFORCE"):
        estimator = gradlab.parse(text)
        one = exact_moments(estimator, as_one, logits[0], distribution=OneHotCategorical)
        rows = exact_moments(estimator, as_rows, logits)
        torch.testing.assert_close(one.mean, rows.mean[0], rtol=0, atol=1e-13)
        assert one.variance.value == pytest.approx(rows.variance.value, abs=1e-13)


PAIR = random(3, 2, seed=11), random(2, 2, 2, seed=12)
CHAIN = lambda pair: Chain(*pair)  # noqa: E731


@with_parameters
def of_pair(x, pair):
    unary, pairwise = pair
    return x[..., 0, 0] * x[..., 2, 1] * unary[0, 1] + (x.sum(-2)[..., 0] * pairwise[0, 0, 1]).sin()


def test_a_tuple_of_parameters_has_a_tuple_of_gradients():
    pair = tuple(t.clone().requires_grad_() for t in PAIR)
    g = exact_gradient(of_pair, pair, distribution=CHAIN)
    assert isinstance(g, tuple)
    assert [t.shape for t in g] == [t.shape for t in pair]
    value = exact_value(of_pair, pair, distribution=CHAIN)
    for one, other in zip(g, torch.autograd.grad(value, pair), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    # As two parts of one tensor, which are taken apart by hand.
    row = torch.cat([t.detach().flatten() for t in PAIR])
    apart = lambda row: (row[:6].view(3, 2), row[6:].view(2, 2, 2))  # noqa: E731
    f = with_parameters(lambda x, row: of_pair(x, apart(row)))
    by_hand = exact_gradient(f, row, distribution=lambda row: Chain(*apart(row)))
    assert torch.equal(by_hand, torch.cat([t.flatten() for t in g]))


def test_a_loss_of_x_alone_takes_a_tuple_too():
    f = lambda x: x[..., 0, 0] * x[..., 2, 1]  # noqa: E731
    g = exact_gradient(f, PAIR, distribution=CHAIN)
    assert [t.shape for t in g] == [t.shape for t in PAIR]
    rows = gradlab.compare(
        f, PAIR, ["ZGR", "RF(m=2)"], distribution=CHAIN, method="both", draws=4096
    )
    assert rows["reason"].isna().all()
    assert (rows["bias2"].abs() <= 4 * rows["bias2_se"] + 1e-20).all()
    assert rows["truth2"].iloc[0] == pytest.approx(sum(float(t.square().sum()) for t in g))
    moments = exact_moments(gradlab.ZGR(), f, PAIR, distribution=CHAIN)
    torch.testing.assert_close(moments.mean, torch.cat([t.flatten() for t in g]))


def test_rows_of_compare_are_of_the_whole_gradient_of_a_tuple():
    rows = gradlab.compare(
        of_pair, PAIR, ["ST", "RF(m=4)"], distribution=CHAIN, method="both", draws=4096
    )
    exact = rows[rows["method"] == "exact"].reset_index()
    assert exact.loc[1, "bias2"] < 1e-20 < exact.loc[0, "bias2"]
    drawn = rows[rows["method"] == "monte carlo"].reset_index()
    apart = (drawn["bias2"] - exact["bias2"]).abs()
    assert (apart < 4 * drawn["bias2_se"]).all()


WRONG = {
    "no distribution": (PAIR, None, "needs a distribution="),
    "mixed dtypes": ((PAIR[0], PAIR[1].float()), CHAIN, "of one dtype on one device"),
    "a number": ((PAIR[0], 2.0), CHAIN, "floating tensors"),
    "integers": ((PAIR[0], torch.ones(2, 2, 2, dtype=torch.long)), CHAIN, "floating tensors"),
    "empty": ((), CHAIN, "floating tensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tuple_that_cannot_be_used_is_refused_in_a_sentence(name):
    parameters, distribution, told = WRONG[name]
    f = lambda x: x[..., 0, 0]  # noqa: E731
    calls = [
        lambda: exact_gradient(f, parameters, distribution=distribution),
        lambda: exact_value(f, parameters, distribution=distribution),
        lambda: exact_moments(gradlab.ZGR(), f, parameters, distribution=distribution),
        lambda: gradlab.compare(f, parameters, ["ZGR"], distribution=distribution),
        lambda: gradlab.monte_carlo("ZGR", f, parameters, 64, distribution=distribution),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=told):
            call()


def test_tensors_of_a_tuple_that_f_holds_are_found():
    pair = tuple(t.clone().requires_grad_() for t in PAIR)
    with pytest.raises(HoldsLogitsError):
        exact_value(lambda x: x[..., 0, 0] + pair[1].sum(), pair, distribution=CHAIN)
    made = tuple(2 * t for t in pair)
    with pytest.raises(HoldsLogitsError):
        exact_value(lambda x: x[..., 0, 0] + made[0].sum(), made, distribution=CHAIN)
    both = with_parameters(lambda x, given: of_pair(x, given) + pair[0].sum())
    with pytest.raises(HoldsLogitsError, match="another way"):
        exact_value(both, pair, distribution=CHAIN)
    # Tensors that do not require a gradient are found as well, and left as they were.
    with pytest.raises(HoldsLogitsError):
        exact_value(lambda x: x[..., 0, 0] + PAIR[1].sum(), PAIR, distribution=CHAIN)
    assert not any(t.requires_grad for t in PAIR)


class Keeps:
    """Keeps the graph of the parameters of its first call."""

    def __init__(self):
        self.first = None

    def __call__(self, x, theta):
        if self.first is None:
            self.first = theta.square().sum()
        return x[..., 0] + self.first


def writes(x, theta):
    theta.zero_()
    return x[..., 0] * theta.sum()


def not_finite(x, theta):
    return x[..., 0] + (theta - theta).abs().sqrt().sum()


def of_batch(x, theta):
    return x[..., 0] + x[..., 1].mean() * theta.sum()


@pytest.mark.parametrize(
    ("f", "error"),
    [
        (Keeps(), StatefulLossError),
        (writes, ChangesInputError),
        (not_finite, NotFiniteError),
        (of_batch, BatchDependentError),
    ],
)
def test_faults_of_the_second_argument_are_named_for_distributions(f, error):
    with pytest.raises(error):
        exact_value(with_parameters(f), random(5, seed=1), distribution=CASES["subset"][0])


def test_parameters_of_float32():
    f, theta = loss("subset", "product"), CASES["subset"][1]
    single = theta.float().requires_grad_()

    @with_parameters
    def of_float(x, theta):
        return f(x.double(), theta.double()).to(x.dtype)

    g = exact_gradient(of_float, single, distribution=lambda theta: KSubset(theta, 2))
    assert g.dtype == torch.float64
    exact = exact_gradient(f, theta, distribution=lambda theta: KSubset(theta, 2))
    torch.testing.assert_close(g, exact, rtol=1e-4, atol=1e-5)

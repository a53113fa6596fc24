"""Every estimator, in training: a loss f(x, logits) gets its direct gradient once.

The same random numbers with and without the graph of the logits in f: what differs is the direct
gradient, at the samples of the draw.
"""

import pytest
import torch

import gradlab
from cases import CLAIMS, generator
from gradlab import with_parameters
from gradlab.distributions import OneHotCategorical

pytestmark = pytest.mark.usefixtures("unchecked")

CASES = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim.estimator))


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(claim):
    return (2, 2) if claim.binary else (2, 3)


def of_sizes(claim):
    """Return W [N, C] of a linear function that acts through the number of the class if it must."""
    N, C = sizes(claim)
    if claim.levels:
        return random(N, 1, seed=1) * torch.arange(C, dtype=torch.float64)
    return random(N, C, seed=1)


def kl(logits):
    return (logits.softmax(-1) * logits.log_softmax(-1)).sum((-2, -1))


def backward(estimator, f, logits):
    leaf = logits.clone().requires_grad_()
    estimator.surrogate(with_parameters(f), leaf, generator(7)).sum().backward()
    return leaf.grad


@CASES
@pytest.mark.parametrize("batch", [(), (4,), (3, 2)], ids=["one", "batch", "two axes"])
@pytest.mark.few(60)
def test_a_term_of_the_logits_alone_gets_its_gradient_once_in_every_draw(claim, batch):
    if claim.tabled and len(batch) > 1:
        pytest.skip("tables for each row")
    logits, W = random(*batch, *sizes(claim), seed=2), of_sizes(claim)
    data = random(*batch, seed=3) if batch else torch.ones((), dtype=torch.float64)

    def f(x, logits):
        return data * (x * W).sum((-2, -1)) + data * kl(logits)

    def without(x, logits):
        return data * (x * W).sum((-2, -1)) + data * kl(logits.detach())

    found = backward(claim.estimator, f, logits) - backward(claim.estimator, without, logits)
    leaf = logits.clone().requires_grad_()
    (data * kl(leaf)).sum().backward()
    torch.testing.assert_close(found, leaf.grad, rtol=0, atol=1e-12)


@CASES
@pytest.mark.few(24)
def test_a_term_of_both_gets_its_gradient_once_on_average(claim):
    estimator, logits, W = claim.estimator, random(*sizes(claim), seed=4), of_sizes(claim)
    n = 4096
    leaf = logits.expand(n, *logits.shape).clone()

    def f(x, logits):
        return (x * W * logits.softmax(-1)).sum((-2, -1))

    if claim.levels:  # f must be linear in the number of the class

        def f(x, logits):
            return (x * W).sum((-2, -1)) * kl(logits)

    def without(x, logits):
        return f(x, logits.detach())

    direct = backward(estimator, f, leaf) - backward(estimator, without, leaf)
    at = logits.clone().requires_grad_()
    x = at.softmax(-1).detach()  # f is linear in x: its direct gradient at the mean is the mean
    (wanted,) = torch.autograd.grad(f(x, at), at)
    mean, error = direct.mean(0), direct.std(0) / n**0.5
    relaxed = not claim.one_hot and claim.pathwise
    assert bool((direct.std(0) > 1e-6).any())
    assert bool(((mean - wanted).abs() <= 5 * error + 1e-12).all()) != relaxed


@pytest.mark.parametrize("estimator", ["ST", "ZGR", "GR(tau=0.5, k=2)"])
def test_a_layer_and_a_term_of_the_logits_behind_it(estimator):
    layer = gradlab.CategoricalLayer(estimator, generator=generator(1))
    W = random(2, 3, seed=1)
    leaf = random(5, 2, 3, seed=2).requires_grad_()
    x = layer(leaf)
    ((x * W * leaf.softmax(-1)).sum() + kl(leaf).sum()).backward()

    def f(x, logits):
        return (x * W * logits.softmax(-1)).sum((-2, -1)) + kl(logits)

    again = leaf.detach().clone().requires_grad_()
    gradlab.parse(estimator).surrogate(with_parameters(f), again, generator(1)).sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad, rtol=0, atol=1e-14)
    assert float(leaf.grad.norm()) > 0.1


def test_rsample_of_a_distribution_and_a_term_of_its_logits():
    W, logits = random(2, 3, seed=1), random(2, 3, seed=2)

    def f(x, logits):
        return (x * W).sum((-2, -1)).square() + kl(logits)

    n = 20_000
    leaf = logits.expand(n, 2, 3).clone().requires_grad_()
    f(OneHotCategorical(leaf).rsample(generator=generator(3)), leaf).sum().backward()
    exact = gradlab.exact_gradient(with_parameters(f), logits)
    error = leaf.grad.std(0) / n**0.5
    assert bool(((leaf.grad.mean(0) - exact).abs() < 5 * error + 1e-12).all())


def test_a_method_called_by_names_is_given_the_bound_loss_too():
    f = with_parameters(lambda x, logits: x[..., 0].sum(-1) + kl(logits))
    logits = random(2, 3, seed=5)
    at = {"f": f, "logits": logits, "generator": generator(1)}
    by_name = gradlab.ZGR().draw(n=3, **at)
    assert torch.equal(by_name, gradlab.ZGR().draw(f, logits, 3, generator(1)))
    assert gradlab.ZGR().supports(f=f, logits=logits) is None


@pytest.mark.thorough  # test_control_variate.py fits
def test_a_fit_lowers_the_variance_of_the_whole_estimate():
    W, logits = random(2, 3, seed=1), random(2, 3, seed=5)

    @with_parameters
    def f(x, logits):
        return (x * W * logits.softmax(-1) * 9).sum((-2, -1)).tanh()

    def variance(estimator):
        return gradlab.exact_moments(estimator, f, logits).variance.value

    fitted = gradlab.Reinforce().fit(f, logits, 2**15, generator=generator(2))
    plain = gradlab.Reinforce().fit(lambda x: f(x, logits.detach()), logits.clone(), 2**15)
    best = min(variance(gradlab.Reinforce(b / 50)) for b in range(-100, 100))
    assert variance(fitted) < 1.01 * best + 1e-3
    assert variance(fitted) < variance(plain) - 1e-3


def test_a_class_of_a_users_own_is_written_for_x_alone():
    class Mine(gradlab.ZGR):
        """An estimator that writes its own surrogate."""

        def surrogate(self, f, logits, generator=None):
            return f(self.sample(logits, generator))

    f = with_parameters(lambda x, logits: (x * logits.softmax(-1)).sum((-2, -1)))
    logits = random(2, 3, seed=6)
    assert torch.equal(
        backward(Mine(), f, logits),
        backward(gradlab.ZGR(), f, logits),
    )
    assert gradlab.verify(Mine(), f, logits, max_draws=2**14).judged == "training"

"""log_prob at samples that carry a gradient, as an ELBO in a Pyro guide has it."""

import pytest
import torch

from gradlab.distributions import Finite, OneHotCategorical, WithoutReplacement

E_X = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_log_prob_of_one_hot_rows_is_linear_in_x():
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, -torch.inf, 1.0]], requires_grad=True)
    d = OneHotCategorical(logits)
    x = E_X.clone().requires_grad_()
    found = d.log_prob(x)
    own = torch.distributions.OneHotCategorical(logits=logits.detach().nan_to_num(neginf=-1e9))
    torch.testing.assert_close(found, own.log_prob(E_X))
    of_x, of_logits = torch.autograd.grad(found.sum(), [x, logits])
    p = torch.softmax(logits.detach(), -1)
    torch.testing.assert_close(of_x, p.log().nan_to_num(neginf=0.0))
    torch.testing.assert_close(of_logits, E_X - p)
    assert d.log_prob(torch.eye(3)[1].expand(2, 3))[1] == -torch.inf


def test_an_elbo_through_log_prob_has_its_whole_gradient():
    source = torch.Generator().manual_seed(0)
    prior = torch.tensor([0.5, -0.5, 0.2, 1.0], dtype=torch.float64)

    def elbo(x, logits):
        q = OneHotCategorical(logits).log_prob(x)
        return OneHotCategorical(prior.expand_as(logits)).log_prob(x) - q

    logits = torch.tensor([1.0, -1.0, 0.0, 0.3], dtype=torch.float64, requires_grad=True)
    p = torch.softmax(logits, -1)
    exact = (p * (torch.log_softmax(prior, -1) - p.log())).sum()
    (truth,) = torch.autograd.grad(exact, logits)
    n = 100_000
    rows = logits.detach().expand(n, 4).clone().requires_grad_()
    x = OneHotCategorical(rows).rsample(generator=source)
    (draws,) = torch.autograd.grad(elbo(x, rows).sum(), rows)
    assert ((draws.mean(0) - truth).abs() < 5 * draws.std(0) / n**0.5 + 1e-12).all()
    # torch's own log_prob looks classes up: without its derivative the gradient is another one.
    (lost,) = torch.autograd.grad(
        torch.distributions.OneHotCategorical(logits=rows).log_prob(x).sum(), x, allow_unused=True
    )
    assert lost is None or not lost.any()


def test_a_log_prob_that_looks_x_up_refuses_one_with_a_gradient():
    states = torch.eye(3)
    for d in (
        Finite(states, torch.zeros(3).log_softmax(-1)),
        WithoutReplacement(torch.zeros(4), 2),
    ):
        x = d.sample()
        assert d.log_prob(x).isfinite()
        with pytest.raises(ValueError, match=r"no derivative in x.*x\.detach\(\)"):
            d.log_prob(x.requires_grad_())

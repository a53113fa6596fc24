"""A Pyro guide of a variable with ZGR behind it finds the posterior; skipped without Pyro."""

import pytest
import torch

pyro = pytest.importorskip("pyro", reason="pyro-ppl is not installed")

from gradlab.distributions import KSubset, OneHotCategorical  # noqa: E402


@pytest.fixture(scope="module")
def classes():
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    class Rows(OneHotCategorical, TorchDistributionMixin):
        pass

    class Subsets(KSubset, TorchDistributionMixin):
        pass

    return Rows, Subsets


def test_a_guide_finds_the_posterior(classes):
    from pyro.distributions import Normal
    from pyro.infer import SVI, Trace_ELBO

    rows, _ = classes
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    levels, seen = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor(1.5)

    def model():
        z = pyro.sample("z", rows(torch.zeros(3)))
        pyro.sample("x", Normal((z * levels).sum(-1), 1.0), obs=seen)

    def guide():
        pyro.sample("z", rows(pyro.param("logits", torch.zeros(3)), estimator="ZGR"))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO(num_particles=20))
    for _ in range(300):
        svi.step()
    found = torch.softmax(pyro.param("logits").detach(), -1)
    posterior = torch.softmax(Normal(levels, 1.0).log_prob(seen), -1)
    assert (found - posterior).abs().max() < 0.05


def test_batches_and_masks_are_those_of_pyro(classes):
    rows, subsets = classes
    d = rows(torch.zeros(2, 3)).to_event(1)
    assert d.event_shape == (2, 3)
    assert d.mask(torch.tensor(True)).log_prob(d.sample()).shape == ()
    assert rows(torch.zeros(3)).expand([4]).batch_shape == (4,)
    assert type(rows(torch.zeros(3)).expand([4])) is rows
    assert subsets(torch.zeros(5), 2)().sum() == 2

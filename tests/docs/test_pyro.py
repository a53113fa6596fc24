"""A Pyro guide of a variable with ZGR behind it finds the posterior; skipped without Pyro."""

import pytest
import torch

pyro = pytest.importorskip("pyro", reason="pyro-ppl is not installed")

from gradlab.distributions import KSubset  # noqa: E402
from pages import blocks  # noqa: E402


@pytest.fixture(scope="module")
def page():
    """Return what the block of the page defines."""
    (block,) = [b for b in blocks("python") if "import pyro" in b.code]
    names = {"__name__": "page"}
    exec(block.code, names)
    return names


@pytest.mark.thorough  # 300 steps; the other test has the classes of the page
def test_the_guide_of_the_page_finds_the_posterior(page):
    from pyro.distributions import Normal
    from pyro.infer import SVI, Trace_ELBO

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    seen = torch.tensor(1.5)
    adam = pyro.optim.Adam({"lr": 0.03})
    svi = SVI(page["model"], page["guide"], adam, Trace_ELBO(num_particles=20))
    for _ in range(300):
        svi.step(seen)
    found = torch.softmax(pyro.param("logits").detach(), -1)
    posterior = torch.softmax(Normal(torch.tensor([-1.0, 0.0, 2.0]), 1.0).log_prob(seen), -1)
    assert (found - posterior).abs().max() < 0.05


def test_batches_and_masks_are_those_of_pyro(page):
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    class Subsets(KSubset, TorchDistributionMixin):
        pass

    rows = page["OneHot"]
    d = rows(torch.zeros(2, 3)).to_event(1)
    assert d.event_shape == (2, 3)
    assert d.mask(torch.tensor(True)).log_prob(d.sample()).shape == ()
    assert rows(torch.zeros(3)).expand([4]).batch_shape == (4,)
    assert type(rows(torch.zeros(3)).expand([4])) is rows
    assert Subsets(torch.zeros(5), 2)().sum() == 2

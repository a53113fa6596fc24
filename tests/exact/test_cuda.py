"""Exact sums where logits and f are on a GPU: the same interface, sums in float64.

On a machine without a GPU the same cases run on the CPU, and those of the GPU are skipped.
"""

import pytest
import torch

import gradlab
from gradlab.distributions import KSubset
from gradlab.problems import regime

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="no CUDA device on this machine"
        ),
    ),
]
LOGITS = regime("moderate", 5, 3)
BATCH = torch.stack([LOGITS, -LOGITS])
W = torch.randn(15, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Loss(torch.nn.Module):
    """A network with weights on a device, which notes where x is."""

    def __init__(self, device):
        super().__init__()
        self.weight = W.to(device)
        self.seen = set()

    def forward(self, x):
        self.seen.add((x.device.type, x.dtype))
        flat = x.flatten(-2)
        weight = self.weight[: flat.shape[-1]].to(x.dtype)
        return (flat @ weight).tanh().square().sum(-1)


class LossOfSubset(Loss):
    def forward(self, x):
        return super().forward(x.unsqueeze(-1))


@gradlab.with_parameters
def with_logits(x, logits):
    assert x.device == logits.device
    return (x * logits.softmax(-1)).sum((-2, -1)).square()


def moments(text):
    return lambda f, logits: gradlab.exact_moments(gradlab.parse(text), f, logits).mean


def of_subsets(question):
    return lambda f, scores: question(f, scores, distribution=lambda p: KSubset(p, 4))


FLAT = LOGITS.flatten()
# The loss, the parameters, and the question, whose answer is float64.
QUESTIONS = {
    "value": (Loss, LOGITS, gradlab.exact_value),
    "gradient": (Loss, LOGITS, gradlab.exact_gradient),
    "gradients of a batch": (Loss, BATCH, gradlab.exact_gradient),
    "moments of ZGR": (Loss, LOGITS, moments("ZGR")),
    "moments of GR": (Loss, LOGITS, moments("GR(k=10)")),
    "moments over tuples": (Loss, LOGITS[:2], moments("DoubleCV(m=2, alpha=-1)")),
    "value of subsets": (LossOfSubset, FLAT, of_subsets(gradlab.exact_value)),
    "gradient of subsets": (LossOfSubset, FLAT, of_subsets(gradlab.exact_gradient)),
    "f of the logits": (lambda _: with_logits, LOGITS, gradlab.exact_gradient),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.few(2)
def test_f_is_called_where_the_logits_are_and_sums_are_float64(name, device, dtype):
    make, parameters, question = QUESTIONS[name]
    wanted = question(make("cpu"), parameters.to(dtype))
    f = make(device)
    found = question(f, parameters.to(device, dtype))
    assert found.dtype == wanted.dtype == torch.float64
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.allclose(found.cpu(), wanted, rtol=rounding, atol=rounding)
    assert getattr(f, "seen", {(device, dtype)}) == {(device, dtype)}


@pytest.mark.parametrize("device", DEVICES)
def test_the_graph_of_the_value_leads_to_the_logits_on_their_device(device):
    logits = LOGITS.to(device).requires_grad_()
    gradlab.exact_value(Loss(device), logits).backward()
    assert logits.grad.device == logits.device
    wanted = gradlab.exact_gradient(Loss("cpu"), LOGITS)
    assert torch.allclose(logits.grad.cpu(), wanted, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_a_proof_and_a_comparison_take_logits_on_their_device(device):
    f, logits = Loss(device), LOGITS.to(device)
    assert gradlab.verify("RF(m=2)", f, logits).unbiased
    rows = gradlab.compare(f, logits, ["ST", "ZGR"])
    wanted = gradlab.compare(Loss("cpu"), LOGITS, ["ST", "ZGR"])
    assert rows["method"].tolist() == ["exact", "exact"]
    assert rows["bias2"].tolist() == pytest.approx(wanted["bias2"].tolist(), rel=1e-9)

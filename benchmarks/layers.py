"""One layer, forward and backward, against torch's own Gumbel-softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ratios import Ratio, Work, measure_all
from gradlab import ZGR, GumbelRao, StraightThrough
from gradlab.estimators import PathwiseEstimator

__all__ = ["run"]

_TARGETS = {
    (512, 32, 16): {"ST": 0.35, "ZGR": 0.35, "GR(tau=1, k=10)": 5, "GR(tau=1, k=100)": 50},
    (200, 20, 10): {"ST": 0.6, "ZGR": 0.6, "GR(tau=1, k=10)": 5, "GR(tau=1, k=100)": 50},
}


def run() -> list[Ratio]:
    """Return forward-backward times over that of F.gumbel_softmax(hard=True)."""
    lines = []
    for shape, targets in _TARGETS.items():
        logits = torch.randn(shape, requires_grad=True)
        v = torch.randn(shape)
        works: dict[str, Work] = {
            "torch": lambda: _step(F.gumbel_softmax(logits, hard=True), logits, v)
        }
        for estimator in (StraightThrough(), ZGR(), GumbelRao(1.0, 10), GumbelRao(1.0, 100)):
            works[str(estimator)] = _layer(estimator, logits, v)
        works |= _rivals(logits, v)
        times = measure_all(works, 6.0)
        for name in list(works)[1:]:
            what = f"layer {list(shape)}, {name} against F.gumbel_softmax(hard=True)"
            lines.append(Ratio(what, times[name] / times["torch"], targets.get(name)))
    return lines


def _layer(estimator: PathwiseEstimator, logits: Tensor, v: Tensor) -> Work:
    return lambda: _step(estimator.sample(logits), logits, v)


def _rivals(logits: Tensor, v: Tensor) -> dict[str, Work]:
    try:
        from reinmax import reinmax
    except ImportError:
        return {}
    return {"reinmax package": lambda: _step(reinmax(logits, 1.0)[0], logits, v)}


def _step(out: Tensor, logits: Tensor, v: Tensor) -> None:
    torch.autograd.grad(out, logits, v)

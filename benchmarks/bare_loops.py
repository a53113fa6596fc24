"""What draws cost where nothing is checked and only the arithmetic is left.

A loop draws the classes, makes x, sweeps f and takes the product, in the fewest passes of torch and
numpy that were found, for one estimator at one size. Its draws have the bits of those of gradlab.
Its ratio to the limit is what an estimator can reach for any f. gradlab is held to 1.3 times the
loop: the checks of f and of the arguments take a tenth of a millisecond of each block.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.against_limits import noise, sweep
from benchmarks.ratios import Ratio, measure_all
from gradlab import ZGR, Estimator, GumbelSoftmaxST, LeaveOneOut
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import Loss
from gradlab.montecarlo import block_size
from gradlab.passes import keep_memory
from gradlab.problems import problem, regime

__all__ = ["LOOPS", "run"]

_SIZES = ((8, 4), (32, 16))


def run() -> Iterator[Ratio]:
    """Yield, for each estimator on each MLP, the loop over the limit and gradlab over the loop."""
    keep_memory()
    for variables, classes in _SIZES:
        f = problem("mlp", variables, classes)
        logits = regime("moderate", variables, classes, 0).to(torch.float32)
        for estimator, (loop, inner, samples) in LOOPS.items():
            n = block_size(estimator, variables, classes)
            x = draw_one_hot(probabilities(logits), None, samples * n)
            times = measure_all(
                {
                    "gradlab": lambda: estimator.draw(f, logits, n),
                    "loop": lambda: loop(f, logits, n, None),
                    "limit": lambda: _limit(f, logits, x, inner, samples),
                }
            )
            what = f"{estimator} on mlp ({variables}, {classes})"
            yield Ratio(f"{what}: bare loop against the limit", times["loop"] / times["limit"])
            yield Ratio(f"{what} against its bare loop", times["gradlab"] / times["loop"], 1.3)


def _limit(f: Loss, logits: Tensor, x: Tensor, inner: int, samples: int) -> object:
    numbers = noise(logits, len(x), inner)
    if samples == 1:
        return numbers, sweep(f, x)
    with torch.no_grad():
        return numbers, f(x)


Source = torch.Generator | None


def _classes(logits: Tensor, n: int, source: Source) -> tuple[Tensor, Tensor]:
    """Return p and n draws of the classes."""
    p = logits.softmax(-1)
    cumulated = p.cumsum(-1, dtype=torch.float64)
    u = torch.rand(len(p), n, generator=source, dtype=torch.float64).mul_(cumulated[:, -1:])
    bounds = cumulated[:, :-1].T.unsqueeze(-1)
    reached = np.greater_equal(u.numpy(), bounds.numpy()).view(np.uint8)
    return p, torch.from_numpy(reached.sum(0, dtype=np.uint8)).T.contiguous().long()


def _one_hot(k: Tensor, classes: int) -> Tensor:
    x = torch.empty(*k.shape, classes)
    rows = np.eye(classes, dtype=np.float32)
    np.take(rows, k.numpy(), axis=0, out=x.numpy(), mode="clip")
    return x


def _zgr(f: Loss, logits: Tensor, n: int, source: Source) -> Tensor:
    p, k = _classes(logits, n, source)
    x = _one_hot(k, p.shape[-1])
    v = sweep(f, x)
    ones = torch.ones(p.shape[-1], 1)
    at_x = (x * v) @ ones
    g = x * (0.5 * (at_x - (p * v) @ ones))
    return g.addcmul_(p, v - at_x, value=0.5)


def _gumbel(f: Loss, logits: Tensor, n: int, source: Source) -> Tensor:
    tau = 0.5
    p, k = _classes(logits, n, source)
    x = _one_hot(k, p.shape[-1])
    v = sweep(f, x).movedim(-1, 0).contiguous()
    x = x.movedim(-1, 0).contiguous()
    e = torch.empty_like(x).uniform_(generator=source).clamp_min_(2**-25).log_()
    r = e * x
    winner = r.sum(0).neg_()
    r.sub_(e)
    del e
    y = r.div_(torch.maximum(p.T[:, None].expand_as(x).contiguous(), x)).div_(winner)
    y = y.log1p_().mul_(-1 / tau).exp_()
    y.div_(y.sum(0))
    g = v.sub_((y * v).sum(0)).mul_(y).div_(tau)
    return g.movedim(0, -1).contiguous()


def _leave_one_out(f: Loss, logits: Tensor, n: int, source: Source) -> Tensor:
    m = 4
    p, k = _classes(logits, m * n, source)
    with torch.no_grad():
        values = f(_one_hot(k, p.shape[-1])).view(m, n)
    weight = (values - values.mean(0)) / (m - 1)
    at = k.view(m, n, -1).movedim(0, -1)
    weight = weight.T.unsqueeze(1).expand(at.shape)
    return torch.zeros(n, *p.shape).scatter_add_(-1, at, weight)


LOOPS: dict[Estimator, tuple[Callable[[Loss, Tensor, int, Source], Tensor], int, int]] = {
    ZGR(): (_zgr, 0, 1),
    GumbelSoftmaxST(0.5): (_gumbel, 1, 1),
    LeaveOneOut(4): (_leave_one_out, 0, 4),
}
"""For each estimator its loop, the inner samples and the samples of x of one draw."""

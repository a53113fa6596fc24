"""Draws of estimators against their limit: the random numbers plus one batched sweep of f."""

import torch
from torch import Tensor

from benchmarks.ratios import Ratio, measure, measure_all
from gradlab import ZGR, GumbelRao, GumbelSoftmaxST, LeaveOneOut
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import Loss
from gradlab.moments import Groups
from gradlab.montecarlo import block_size
from gradlab.problems import problem, regime

__all__ = ["run"]

# The networks are so small that classes, one-hot rows and the product take as long as f: no loop of
# torch and numpy comes below 1.8 to 3.0, see bare_loops.py. The bounds are 1.3 times such loops.
# (problem, N, C, bound for one-sample estimators, bound for RF(4))
_CASES = (
    ("mlp", 8, 4, 2.9, 2.4),
    ("mlp", 32, 16, 3.5, 3.9),
    ("quadratic", 32, 16, 1.75, 2.0),
    ("quadratic", 1, 8, 2.5, 3.0),
    ("quadratic", 8, 4, 2.5, 3.0),
)


def run() -> list[Ratio]:
    """Return all ratios of this file."""
    lines = []
    for name, variables, classes, bound, bound_rf in _CASES:
        f = problem(name, variables, classes)
        logits = regime("moderate", variables, classes, 0).to(torch.float32)
        case = f"{name} ({variables}, {classes})"
        for estimator, inner, target in (
            (ZGR(), 0, bound),
            (GumbelSoftmaxST(0.5), 1, bound),
            (GumbelRao(0.5, 10), 10, 2.5),
            (GumbelRao(0.5, 100), 100, 2.5),
        ):
            n = block_size(estimator, variables, classes)
            x = draw_one_hot(probabilities(logits), None, n)
            lines.append(
                measure(
                    f"{estimator} on {case} against its limit",
                    lambda: estimator.draw(f, logits, n),
                    lambda: (noise(logits, n, inner), sweep(f, x)),
                    target,
                )
            )
        lines += _leave_one_out(f, logits, case, bound_rf)
    return [*lines, _streaming()]


def _leave_one_out(f: Loss, logits: Tensor, case: str, target: float) -> list[Ratio]:
    estimator = LeaveOneOut(4)
    n = block_size(estimator, *logits.shape)
    x = draw_one_hot(probabilities(logits), None, 4 * n)

    def limit() -> object:
        with torch.no_grad():
            return noise(logits, 4 * n, 0), f(x)

    work = lambda: estimator.draw(f, logits, n)
    return [measure(f"{estimator} on {case} against its limit", work, limit, target)]


def _streaming() -> Ratio:
    f, logits = problem("mlp", 8, 4), regime("moderate", 8, 4, 0)
    g = ZGR().draw(f, logits, block_size(ZGR(), 8, 4))
    total = Groups.from_draws(g)
    times = measure_all(
        {
            "moments": lambda: total.merge(Groups.from_draws(g)),
            "draws": lambda: ZGR().draw(f, logits, len(g)),
        }
    )
    return Ratio(
        "streaming moments against ZGR draws, mlp (8, 4)", times["moments"] / times["draws"], 0.10
    )


def noise(logits: Tensor, n: int, inner: int) -> None:
    torch.rand(n, logits.shape[0], dtype=torch.float64)
    for _ in range(inner):
        torch.rand(n, *logits.shape).neg_().log1p_().neg_()


def sweep(f: Loss, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]

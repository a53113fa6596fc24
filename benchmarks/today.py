"""What a user would write today, in microseconds a draw of the gradient estimate."""

import subprocess
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ratios import Ratio, Work, measure_all
from gradlab import ZGR, GumbelRao, GumbelSoftmaxST, LeaveOneOut
from gradlab.estimators import Estimator
from gradlab.loss import Loss
from gradlab.montecarlo import block_size
from gradlab.problems import problem, regime

__all__ = ["run"]

_CASES = (("quadratic", 1, 8), ("mlp", 8, 4), ("mlp", 32, 16))


def run() -> list[Ratio]:
    """Return microseconds a draw for each way, on each problem."""
    lines = []
    for name, variables, classes in _CASES:
        f = problem(name, variables, classes)
        logits = regime("moderate", variables, classes, 0).to(torch.float32)
        n = block_size(ZGR(), variables, classes)
        works: dict[str, tuple[Work, int]] = {
            "loop over F.gumbel_softmax(hard=True)": (lambda: _torch(f, logits, 1), 1),
            "vectorized F.gumbel_softmax(hard=True)": (lambda: _torch(f, logits, n), n),
        }
        works |= _reinmax(f, logits, n)
        for estimator in (GumbelSoftmaxST(1.0), ZGR(), GumbelRao(1.0, 10), LeaveOneOut(2)):
            works[f"gradlab {estimator}"] = (_draw(estimator, f, logits, n), n)
        times = measure_all({way: work for way, (work, _) in works.items()}, 2.0)
        for way, (_, draws) in works.items():
            what = f"{name} ({variables}, {classes}): {way}"
            lines.append(Ratio(what, 1e6 * times[way] / draws, unit="us"))
        lines += _storchastic(name, variables, classes)
    return lines


def _draw(estimator: Estimator, f: Loss, logits: Tensor, n: int) -> Work:
    return lambda: estimator.draw(f, logits, n)


def _torch(f: Loss, logits: Tensor, n: int) -> Tensor:
    leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
    return torch.autograd.grad(f(F.gumbel_softmax(leaf, hard=True)).sum(), leaf)[0]


def _reinmax(f: Loss, logits: Tensor, n: int) -> dict[str, tuple[Work, int]]:
    try:
        from reinmax import reinmax
    except ImportError:
        return {}

    def step(draws: int) -> Tensor:
        leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
        return torch.autograd.grad(f(reinmax(leaf, 1.0)[0]).sum(), leaf)[0]

    return {
        "loop over the reinmax package": (lambda: step(1), 1),
        "vectorized reinmax package": (lambda: step(n), n),
    }


def _storchastic(name: str, variables: int, classes: int) -> list[Ratio]:
    """Return the time of storchastic, in a process of its own: importing it rewrites torch."""
    code = _STORCHASTIC.format(name, variables, classes)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "No module named 'storch'" in done.stderr:
        return []
    done.check_returncode()
    what = f"{name} ({variables}, {classes}): loop over storchastic's RLOO(2)"
    return [Ratio(what, float(done.stdout.split()[-1]), unit="us")]


_STORCHASTIC = """
import storch, torch
from benchmarks.ratios import measure_all
from gradlab.problems import problem, regime
torch.set_num_threads(1)
f = problem("{0}", {1}, {2})
logits = regime("moderate", {1}, {2}, 0).to(torch.float32)
def step():
    leaf = logits.clone().requires_grad_()
    method = storch.method.ScoreFunction("x", n_samples=2, baseline_factory="batch_average")
    x = method(torch.distributions.OneHotCategorical(logits=leaf))
    storch.add_cost(storch.deterministic(lambda x: f(x))(x), "f")
    storch.backward()
print(1e6 * measure_all({{"step": step}})["step"])
"""

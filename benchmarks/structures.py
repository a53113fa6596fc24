"""Subsets of 100 elements, and exact moments of 10^5 of them, beside their limits"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.ratios import Ratio, measure_all
from gradlab.distributions import KSubset
from gradlab.estimators import parse
from gradlab.exact.structures import Structured

__all__ = ["run"]

N, K, BATCH = 100, 10, 64
ESTIMATORS = ("ST", "ZGR", "RF(m=4)", "REINFORCE")


def recurrence(theta: Tensor, k: int) -> Tensor:
    """Return log e_k by the recurrence of SIMPLE: element after element, in the log domain."""
    low = -torch.finfo(theta.dtype).max / 4
    reached = theta.new_full((len(theta), k + 1), low)
    reached[:, 0] = 0.0
    none = theta.new_full((len(theta), 1), low)
    for weight in theta.split(1, dim=1):
        taken = torch.cat([none, reached[:, :-1] + weight], 1)
        reached = torch.logaddexp(reached, taken)
    return reached[:, k]


class _Recurrence(KSubset):
    """The same distribution, with the log-partition of the recurrence."""

    def _log_partition(self, *parameters: Tensor) -> Tensor:
        return recurrence(parameters[0], self.k)


def run(seconds: float = 3.0) -> Iterator[Ratio]:
    """Yield the ratios, each from runs in turns of so many seconds."""
    yield from _of_samples(seconds)
    yield from _of_moments(seconds)


def _of_samples(seconds: float) -> Iterator[Ratio]:
    source = torch.Generator().manual_seed(0)
    theta, v = (torch.randn(BATCH, N, generator=source) for _ in range(2))

    def partition(law: type[KSubset]) -> Tensor:
        leaf = theta.clone().requires_grad_()
        return torch.autograd.grad(law(leaf, K).log_partition.sum(), leaf)[0]

    def sample(law: type[KSubset], estimator: str) -> Tensor:
        leaf = theta.clone().requires_grad_()
        law(leaf, K, estimator).rsample().backward(v)
        assert leaf.grad is not None
        return leaf.grad

    found, wanted = partition(KSubset), partition(_Recurrence)
    assert float((found - wanted).abs().max()) < 1e-4
    times = measure_all(
        {
            "partition": lambda: partition(KSubset),
            "recurrence": lambda: partition(_Recurrence),
            "ST": lambda: sample(KSubset, "ST"),
            "ZGR": lambda: sample(KSubset, "ZGR"),
            "ST by recurrence": lambda: sample(_Recurrence, "ST"),
        },
        seconds,
    )
    size = f"{K} of {N}, batch {BATCH}"
    one = times["partition"]
    what = f"log-partition and gradient to the recurrence of SIMPLE, {size}"
    yield Ratio(what, one / times["recurrence"], 1)
    for name in ("ST", "ZGR"):
        yield Ratio(f"rsample and backward, {name}, to log-partition", times[name] / one, 3)
    what = "rsample and backward, ST, to that of the recurrence"
    yield Ratio(what, times["ST"] / times["ST by recurrence"], 1)


def _of_moments(seconds: float) -> Iterator[Ratio]:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(20, generator=source, dtype=torch.float64)
    matrix = torch.randn(20, 20, generator=source, dtype=torch.float64)
    weights = torch.randn(20, 64, generator=source, dtype=torch.float64)
    losses = {
        "a quadratic": lambda x: ((x @ matrix) * x).sum(-1),
        "a network": lambda x: (x @ weights).tanh().sum(-1),
    }
    for name, f in losses.items():
        on = Structured(f, logits, lambda p: KSubset(p, 8))
        states = on.states.squeeze(1)
        # Probabilities and values are computed once, for all estimators.
        assert len(on.p) == len(on.values) == len(states)

        def sweep(f=f, states=states) -> None:  # type: ignore[no-untyped-def]
            x = states.clone().requires_grad_()
            torch.autograd.grad(f(x).sum(), x)

        works = {text: lambda text=text, on=on: on.moments(parse(text)) for text in ESTIMATORS}
        times = measure_all({"sweep": sweep} | works, seconds)
        for text in ESTIMATORS:
            what = f"moments of {text}, {len(states):,} subsets, to a sweep of {name}"
            yield Ratio(what, times[text] / times["sweep"], 2)

"""What the draws of a trial show by and by: sums of deviations, rounding, how calls vary.

Draws come in blocks whose generators depend on seed and block alone, so a verdict is repeated by
its seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradlab.reproducible import block_generator, global_states
from gradlab.user_code.replicates import WAY_OUT, DependentDrawsError
from gradlab.user_code.under_test import Draws
from gradlab.verification.dependence import CallSums
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.testable_coordinates import Question

__all__ = ["MORE", "ULPS", "Evidence", "accumulated"]

MORE = 4
"""Each look adds a quarter."""

ULPS = 2**8
"""Rounding errors are below this many units in the last place of what is summed."""

# No block has more elements than this. Code whose draws may depend on each other is called for at
# most a 32nd of what it has drawn, so that there are many calls to compare.
_BLOCK_ELEMENTS = 2**18
_CALLED, _SHORTEST = 32, 32
# Dimensions up to which draws are looked at again, and numbers of them that are kept for it.
_SMALL, _KEPT = 128, 2**22
# Of alpha: what draws that depend on each other may use.
_DEPENDENT = 0.1


@dataclass(frozen=True)
class Evidence:
    """What is known after some draws: their sums, the gradient (or its estimate), rounding.

    `rows`: sums over draws of their sums over classes, which are 0 for a gradient. `noise`: what
    the squared length of a drawn target is too large by on average. `recent` [k, D]: deviations
    since the last look, where D is small. `calls`: how sums over the draws of a call vary, where
    these may depend on each other. `constant`: whether all draws are the same and no random number
    was drawn for them.
    """

    sums: DeviationSums
    rows: DeviationSums
    target: Tensor
    noise: float
    rounding: float
    recent: Tensor | None
    calls: CallSums | None
    constant: bool

    @property
    def is_lost(self) -> bool:
        """Whether the length of a drawn target is not seen beyond its noise."""
        return self.noise > 0 and float(self.target.square().sum()) <= 4 * self.noise

    def check_independence(self, question: Question, look: int) -> None:
        """Raise DependentDrawsError if draws of a call depend on each other."""
        if self.calls is None:
            return
        spreads = list(self.calls.spreads())
        # The looks share what may be used, 1/2 + 1/6 + 1/12 + ... = 1.
        allowed = _DEPENDENT * question.alpha / (look * (look + 1)) / len(spreads)
        found = min(spreads, key=lambda spread: spread.p_value)
        if found.p_value > allowed:
            return
        guess = (
            "is noise, or a baseline, shared by them, or each of them returned twice"
            if found.ratio > 1
            else "do they make up for each other"
        )
        raise DependentDrawsError(
            f"draws of {question.drawn.name} are not independent: sums over {found.groups} vary "
            f"{found.ratio:.3g} times as much as those of independent draws ({self.sums.n:,} draws "
            f"in {self.calls.calls} calls, p = {found.p_value:.1g}); {guess}? {WAY_OUT}"
        )


def accumulated(
    question: Question, target: Tensor | Draws, last: int, look: int
) -> Iterator[Evidence]:
    """Yield the evidence after `look` draws, and after each quarter more."""
    logits, drawn = question.logits, question.drawn
    largest = max(32, _BLOCK_ELEMENTS // question.numbers)
    row = f"{question.problem}|{drawn.name}|trial"
    sums: DeviationSums | None = None
    rows: DeviationSums | None = None
    recent: list[Tensor] = []
    calls: CallSums | None = None
    centre = target if isinstance(target, Tensor) else torch.zeros_like(logits)
    sure = drawn.is_shipped and (isinstance(target, Tensor) or target.is_shipped)
    square, rounding, start, block = 0.0, 0.0, 0, 0
    constant = isinstance(target, Tensor)
    while start < last:
        # A block that `last` cuts is drawn whole: a longer trial goes on with the same draws.
        whole = min(max(look - start, 1), largest)
        if not sure:
            whole = min(whole, max(_SHORTEST, start // _CALLED))
        n = min(whole, last - start)
        generator = block_generator(question.seed, row, block)
        before = (generator.get_state(), global_states()) if constant else None
        g = drawn(question.f, question.at, whole, generator)
        constant = before is not None and _unrandom(g, before, generator)
        d = g[:n].to(torch.float64)
        size = float(torch.linalg.vector_norm(d.flatten(1), dim=1).max())
        if block == 0:
            spread = float(d.square().mean().sqrt()) + float(centre.abs().max())
            eps = max(torch.finfo(g.dtype).eps, question.f.eps)
            rounding = ULPS * eps * (spread + question.scale)
        if isinstance(target, Tensor):
            d = d - target
        else:
            generator = block_generator(question.seed, f"{row}|against", block)
            other = target(question.f, target.at(question.at), whole, generator)[:n].to(
                torch.float64
            )
            d = d - other
            square += float(other.square().sum())
            centre = centre + (other.mean(0) - centre) * (n / (start + n))
        of_rows, d = question.rows_of(d), d.flatten(1)
        added = DeviationSums.from_draws(of_rows, size, apart=not sure)
        rows = added if rows is None else rows.merge(added)
        added = DeviationSums.from_draws(d, size, apart=not sure)
        sums = added if sums is None else sums.merge(added)
        if not sure:
            if calls is None:
                weights = CallSums.weights(d, rounding)
            of_call = CallSums.from_call(d, weights)
            calls = of_call if calls is None else calls.merge(of_call)
        if d.shape[1] <= _SMALL and sum(map(torch.numel, recent)) < _KEPT:
            recent.append(d)
        start, block = start + n, block + 1
        if start >= min(look, last):
            spread = max(square / start - float(centre.square().sum()), 0.0)
            noise = 0.0 if isinstance(target, Tensor) else spread / max(start - 1, 1)
            yield Evidence(
                sums,
                rows,
                centre,
                noise,
                rounding,
                torch.cat(recent) if recent else None,
                calls,
                constant,
            )
            recent = []
            look = start + math.ceil(start / MORE)


def _unrandom(g: Tensor, before: tuple[Tensor, object], generator: Generator) -> bool:
    """Return whether draws are all the same, without a random number drawn for them."""
    if bool((g != g[0]).any()):
        return False
    return torch.equal(before[0], generator.get_state()) and before[1] == global_states()

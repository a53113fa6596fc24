"""Are the draws of a code independent replicates of one law, made by its generator alone?

A code that fails is refused by the name of its fault: other random numbers than its generator's,
memory between calls, statistics of the batch, draws of one call that depend on each other.
"""

import math
from collections.abc import Callable
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import Loss, NotDifferentiableError, evaluate
from gradlab.user_code.exact_tests import Cuts, cuts_of, law_test, pairs_test, rounding
from gradlab.user_code.seeded_calls import Calls, EstimatorError, NotSeededError, StatefulError

__all__ = [
    "ALPHA",
    "NO_REPLICATES",
    "WAY_OUT",
    "BatchStatisticsError",
    "DependentDrawsError",
    "EstimatorError",
    "NotSeededError",
    "StatefulError",
    "check_replicates",
]

ALPHA = 1e-7
"""Rate at which good code is refused by the tests of laws and pairs, all those of one check."""

# Calls and draws of each by which independence is judged; draws of each where each is a call.
_CALLS, _EACH, _FEW = 32, 32, 4
# Calls of one and of two draws, as many as fit the seconds.
_SMALL, _SECONDS = (320, 128, 64), 1.5
# Tests that share ALPHA: four pairings of the draws and one at n = 2, the laws at n = 1 and 2.
_TESTS = 7
# Means over calls that vary less than this share of what they should: below 1e-12 by chance.
_TOO_EVEN = 0.05
WAY_OUT = (
    "if that is meant, verify(code, ..., batch=B) judges the mean over a call of B samples as one "
    "estimate"
)


class BatchStatisticsError(EstimatorError):
    """The law of a draw depends on how many are drawn by the same call."""


class DependentDrawsError(EstimatorError):
    """Draws of one call depend on each other."""


NO_REPLICATES = (NotSeededError, StatefulError, BatchStatisticsError, DependentDrawsError)
"""What `check_replicates` raises: the code draws, but not independent replicates."""


def check_replicates(
    draw: Callable[[Loss, Tensor, int, Generator], Tensor],
    f: Loss,
    logits: Float[Tensor, "N C"],
    seed: int = 0,
    *,
    name: str = "the code",
    code: object = None,
    together: bool = True,
    scale: float | None = None,
) -> None:
    """Raise a subclass of EstimatorError unless `draw` returns independent replicates of one law.

    `draw(f, logits, n, generator)` returns [n, N, C]. Calls that are repeated show whether the
    generator determines the draws, pairs of draws whether they are independent, calls with n = 1,
    2 and 32 whether they have one law. `code` is searched for what it remembers; `together` is
    False where each draw is a call of its own; `scale`: the size of values of f. About 710 calls of
    `draw`, fewer where it is slow.
    Good code is refused at a rate of `ALPHA`, and where means over a call vary eight standard
    deviations too much.
    """
    if scale is None:
        with torch.no_grad():
            x = draw_one_hot(probabilities(logits), Generator().manual_seed(0), 64)
            scale = float(evaluate(f, x.to(logits.dtype)).abs().max())
    with Calls(draw, f, logits, seed, name, code) as calls:
        draws = torch.stack(calls.reproduced(_CALLS, _EACH if together else _FEW))
        checked = _Checked(calls, draws, scale)
        try:
            if checked.vary():
                checked.spread_of_means()
                checked.pairs(together)
            if together:
                checked.one_law(1)
                checked.one_law(2)
        finally:
            calls.repeat(0, draws[0])  # memory is the fault that explains the others


class _Checked:
    """Draws [calls, each, N, C] that their generators determine; `scale` is the size of f."""

    def __init__(self, calls: Calls, draws: Tensor, scale: float) -> None:
        self.calls, self.name, self.draws, self.scale = calls, calls.name, draws, scale
        self.every = draws.flatten(0, 1)

    def vary(self) -> bool:
        """Return whether draws differ by more than rounding; refuse those that are kept."""
        distance = torch.linalg.vector_norm((self.every - self.every[0]).flatten(1), dim=1)
        if bool((distance <= rounding(self.every, self.scale)).all()):
            return False
        if bool((self.draws == self.draws[0]).all()):
            raise NotSeededError(
                f"{self.name} ignores its generator: other generators give the same draws, by "
                "noise that is fixed, or kept from the first call"
            )
        return True

    def spread_of_means(self) -> None:
        """Raise DependentDrawsError if means over calls vary too much or too little."""
        if bool((self.draws == self.draws[:, :1]).all()):
            raise DependentDrawsError(
                f"{self.name} returns one draw n times: draws must be independent; give each its "
                "own noise"
            )
        calls, each = self.draws.shape[:2]
        ratio, kurtosis = _ratio(self.draws.to(torch.float64))
        # The ratio is 1 on average; eight of its standard deviations, kurtosis included.
        if ratio > 1 + 8 * math.sqrt((2 + kurtosis / each) / (calls - 1)) or ratio < _TOO_EVEN:
            guess = "is noise shared by draws" if ratio > 1 else "do draws make up for each other"
            raise DependentDrawsError(
                f"draws of {self.name} are not independent: means over {each} draws of one call "
                f"vary {ratio:.2g} times as much as they should; {guess}? {WAY_OUT}"
            )

    def pairs(self, together: bool) -> None:
        """Raise DependentDrawsError if draws depend on others of their call.

        BatchStatisticsError, which says more, where the law also depends on n beyond any doubt.
        """
        calls, each = self.draws.shape[:2]
        place, half = torch.arange(calls * each).reshape(calls, each), each // 2
        first, last = place[:, :half], place.flip(1)[:, :half]
        cuts = cuts_of(self.every, self.scale)
        try:
            self.unpaired(
                cuts, place[:, ::2], place[:, 1::2], "draws 0 and 1, 2 and 3, ... of a call"
            )
            self.unpaired(
                cuts, place[:, 1:-1:2], place[:, 2::2], "draws 1 and 2, 3 and 4, ... of a call"
            )
            self.unpaired(cuts, first, place[:, half:], f"draws k and k + {half} of a call")
            self.unpaired(cuts, first, last, f"draws k and {each - 1} - k of a call")
        except DependentDrawsError:
            if together:
                self.one_law(1, ALPHA**3)
            raise

    def unpaired(self, cuts: Cuts, first: Tensor, second: Tensor, pair: str) -> None:
        """Raise DependentDrawsError if one draw of a pair depends on the other."""
        first, second = first.flatten(), second.flatten()
        found = pairs_test(cuts, first, second)
        if found.p_value > ALPHA / _TESTS:
            return
        one, other = cuts.above[found.cut, first], cuts.above[found.other, second]
        same = float((one == other).to(torch.float64).mean())
        p, q = (float(above.to(torch.float64).mean()) for above in (one, other))
        what, beside = cuts.labels[found.cut], cuts.labels[found.other]
        raise DependentDrawsError(
            f"draws of {self.name} are not independent: {pair} depend on each other: {what} of "
            f"one and {'that' if beside == what else beside} of the other are both large or both "
            f"small in {same:.0%} of pairs, where {p * q + (1 - p) * (1 - q):.0%} should be; is "
            f"noise shared by draws, or made opposite? {WAY_OUT}"
        )

    def one_law(self, n: int, alpha: float = ALPHA / _TESTS) -> None:
        """Raise BatchStatisticsError unless draws of calls of n have the law of these."""
        few = self.small(n)
        if n == 2:
            first = torch.arange(0, len(few), 2)
            self.unpaired(cuts_of(few, self.scale), first, first + 1, "draws of calls with n = 2")
        cuts = cuts_of(torch.cat([few, self.every]), self.scale)
        found = law_test(cuts, torch.arange(len(few) + len(self.every)) < len(few))
        if found.p_value <= alpha:
            seen = _difference(n, few, self.every)
            if seen is None:
                above = cuts.above[found.cut].to(torch.float64)
                small, large = float(above[: len(few)].mean()), float(above[len(few) :].mean())
                seen = (
                    f"{cuts.labels[found.cut]} is above a bound in {small:.1%} of draws with "
                    f"n = {n}, in {large:.1%} with n = {_EACH}"
                )
            self.refuse_batch(seen)

    def small(self, n: int) -> Tensor:
        """Return the draws of calls of n, as many as the time allows."""
        count = next((c for c in _SMALL if 2 * c * self.calls.seconds <= _SECONDS), _SMALL[-1])
        try:
            return torch.cat([self.calls(k, n) for k in range(count)])
        except NotDifferentiableError:
            raise
        except ValueError as error:
            for k in range(count, count + 8):
                try:
                    self.calls(k, n)
                except ValueError:
                    continue
                raise  # it fails at times, with any n
            self.refuse_batch(f"with n = {n} it fails, with n = {_EACH} not ({error})", error)

    def refuse_batch(self, seen: str, error: Exception | None = None) -> NoReturn:
        """Raise BatchStatisticsError."""
        raise BatchStatisticsError(
            f"draws of {self.name} depend on how many are drawn at once: {seen}; does it use a "
            f"statistic of the batch, as its mean, deviation or order? {WAY_OUT}"
        ) from error


def _ratio(every: Tensor) -> tuple[float, float]:
    """Return how much means over calls vary, relative to independence, and the kurtosis."""
    calls, each = every.shape[:2]
    centred = (every - every.mean((0, 1))).flatten(2)
    radius = centred.square().sum(-1)
    variance = radius.sum() / (calls * each - 1)
    means = centred.mean(1).square().sum()
    ratio = each * means / (calls - 1) / variance
    return float(ratio), float(radius.square().mean() / variance**2)


def _difference(n: int, few: Tensor, every: Tensor) -> str | None:
    """Return what is plain to see of draws with n beside those with 32, if anything is."""
    if bool((few == 0).all()):
        return f"with n = {n} every draw is 0"
    if bool((few == few[0]).all()):
        return f"with n = {n} every draw is the same"
    small, large = (
        float((g - g.mean(0)).square().sum((-2, -1)).mean().sqrt()) for g in (few, every)
    )
    if large > 0 and not 0.8 < small / large < 1.25:
        return f"the spread at n = {n} is {small / large:.2g} of that at n = {_EACH}"
    return None

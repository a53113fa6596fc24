"""All states of z with their weights, and all tuples of K of them: what exact results sum over.

A tuple of samples has no order: sums run over multisets, each with its multinomial probability, or
over all ordered tuples, which is slower and serves as the second route.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.bounds.samples import Samples, log_q_of, values_at
from gradlab.categorical import (
    check_logits,
    configurations_at,
    log_probabilities,
    one_hot,
    probabilities,
)
from gradlab.checks import check_choice, check_int
from gradlab.exact.enumeration import TooLargeError
from gradlab.loss import Loss, gradient
from gradlab.loss.gate import Objective, checked
from gradlab.loss.objective import sees_parameters

__all__ = ["ROUTES", "Tabled", "WeightedStates", "passed", "restored", "tuples_of"]

ROUTES = ("multisets", "tuples")
"""How exact sums run: over multisets of samples, or over all ordered tuples."""

# Tuples that are summed over, and numbers in one block of them.
_MOST = 2**21
_BLOCK = 2**20
# What stands for -inf while the gate looks at log p: it wants finite values.
_FLOOR = -1e30


@dataclass(frozen=True)
class _Floored:
    """log p(x, z) with a finite number for -inf."""

    log_joint: Loss

    def __call__(self, x: Tensor) -> Tensor:
        values = self.log_joint(x)
        if isinstance(values, Tensor) and values.is_floating_point():
            return torch.where(values == -math.inf, _FLOOR, values)
        return values

    def __getattr__(self, name: str) -> object:
        # What problems declare, such as their name.
        if name.startswith("__") or "log_joint" not in vars(self):
            raise AttributeError(name)
        return getattr(self.log_joint, name)


def passed(log_joint: Loss, logits: Float[Tensor, "*batch N C"]) -> Objective:
    """Return log p(x, z) as the engine calls it, if it keeps the contract of a loss.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...]; -inf is allowed.
        logits: Of q, with their dtype, device and graph.

    Returns:
        What has passed; `_FLOOR` stands for -inf.

    Raises:
        LossError: It breaks the contract; the subclass names the fault, see `gradlab.loss`.
        TypeError: It is a function of z and of the logits.

    Example:
        >>> passed(lambda z: z[..., 0, 0], torch.zeros(1, 2)).dtype
        torch.float32
    """
    if sees_parameters(log_joint):
        raise TypeError(
            "log_joint must be log p(x, z) of z alone: the bound subtracts log q(z; logits) "
            "itself. Leave out gradlab.with_parameters, and what depends on the logits"
        )
    found = getattr(log_joint, "f", None)
    if isinstance(log_joint, Objective) and isinstance(found, _Floored):
        return log_joint
    return checked(_Floored(log_joint), logits)


def restored(objective: Objective) -> Loss:
    """Return log p(x, z) of what has `passed`, with its -inf.

    Args:
        objective: What `passed` returned.

    Returns:
        A function of one-hot z.

    Example:
        >>> log_joint = restored(passed(lambda z: z[..., 0, 0].log(), torch.zeros(1, 2)))
        >>> log_joint(torch.eye(2).unsqueeze(1))
        tensor([0., -inf])
    """

    def log_joint(x: Tensor) -> Tensor:
        values = objective(x)
        return torch.where(values.detach() <= _FLOOR, -math.inf, values)

    return log_joint


class WeightedStates:
    """All states of z that q can draw, with log w: what every exact result on a bound is made from.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...]; -inf is allowed.
        logits: Of q, [N, C].

    Raises:
        LossError: log_joint breaks the contract; the subclass names the fault.
        TooLargeError: There are too many states.

    Example:
        >>> states = WeightedStates(lambda z: z[..., 0, 0], torch.zeros(2, 3))
        >>> states.classes.shape, round(float(states.q.sum()), 9)
        (torch.Size([9, 2]), 1.0)
    """

    def __init__(self, log_joint: Loss, logits: Float[Tensor, "N C"]) -> None:
        check_logits(logits, ndim=2)
        self.given = logits
        self.objective = passed(log_joint, logits)
        self.logits = logits.detach().to("cpu", torch.float64)
        self.p = probabilities(self.logits)
        allowed = [(row > 0).nonzero()[:, 0] for row in self.p]
        sizes = [len(a) for a in allowed]
        if math.prod(sizes) > _MOST:
            raise TooLargeError(
                f"{len(sizes)} variables have {math.prod(sizes):.2g} states, more than the {_MOST} "
                "that are enumerated; use gradlab.bounds.monte_carlo"
            )
        self._allowed = allowed
        self.classes: Int[Tensor, "S N"] = configurations_at(
            torch.arange(math.prod(sizes)), allowed
        )

    @cached_property
    def x(self) -> Float[Tensor, "S N C"]:
        """Every state as one-hot rows."""
        return one_hot(self.classes, self.p)

    @cached_property
    def log_q(self) -> Float[Tensor, " S"]:
        """log q of every state."""
        return log_q_of(self.logits, self.classes)

    @cached_property
    def q(self) -> Float[Tensor, " S"]:
        """The probability of every state."""
        return self.log_q.exp()

    @cached_property
    def log_w(self) -> Float[Tensor, " S"]:
        """log p(x, z) - log q(z) of every state, -inf where p is 0."""
        with torch.no_grad():
            return self.log_joint() - self.log_q

    def log_joint(self) -> Float[Tensor, " S"]:
        """Return log p(x, z) of every state, float64, with its graph where there is one."""
        return values_at(restored(self.objective), self.x).to(torch.float64)

    def log_q_on_graph(self) -> Float[Tensor, " S"]:
        """Return log q of every state with the graph of the logits."""
        return log_q_of(self.given.to("cpu", torch.float64), self.classes)

    @cached_property
    def scores(self) -> Float[Tensor, "S N C"]:
        """h = z - p of every state."""
        return self.x - self.p

    @cached_property
    def neighbours(self) -> Int[Tensor, "S N C"]:
        """The number of the state with variable i moved to class c; the own one if q is 0 there."""
        place = torch.zeros(self.p.shape, dtype=torch.int64)
        stride = [math.prod(len(a) for a in self._allowed[i + 1 :]) for i in range(len(self.p))]
        for i, allowed in enumerate(self._allowed):
            place[i, allowed] = torch.arange(len(allowed)) * stride[i]
        own = torch.arange(len(self.classes))
        at = place.expand(len(own), *place.shape)
        here = at.gather(-1, self.classes.unsqueeze(-1))
        moved = own[:, None, None] - here + at
        return torch.where(self.p > 0, moved, own[:, None, None])

    @cached_property
    def slopes(self) -> Float[Tensor, "S N C"]:
        """The gradient of log w in the one-hot z at every state, 0 where q is 0."""
        given = gradient(self.objective, self.x).to(torch.float64)
        return given - torch.where(self.p > 0, log_probabilities(self.logits), 0.0)

    @property
    def is_finite(self) -> bool:
        """Whether no state that q draws has weight 0."""
        return bool((self.log_w > -math.inf).all())

    def tuples(
        self, k: int, route: str = "multisets", numbers: int = 1
    ) -> Iterator[tuple[Int[Tensor, "K n"], Float[Tensor, " n"]]]:
        """Yield tuples of K states in blocks, with their probabilities.

        Args:
            k: K, the number of samples.
            route: One of `ROUTES`.
            numbers: About how many numbers are held for each sample of a tuple.

        Raises:
            TooLargeError: There are too many tuples; the message counts them.
        """
        check_int("k", k, 1)
        check_choice("route", route, ROUTES)
        size = max(1, _BLOCK // (k * numbers))
        for index in tuples_of(len(self.classes), k, route, size):
            log_p = self.log_q[index].sum(0)
            if route == "multisets":
                log_p = log_p + _log_multinomial(index)
            yield index, log_p.exp()

    def on(self, index: Int[Tensor, "K n"], fresh: Tensor, share: Tensor) -> "Tabled":
        """Return the tuples of these states as estimators see them.

        Args:
            index: Numbers of states, [K, n].
            fresh: log w of fresh samples, [A, 1].
            share: What each counts for, [A, 1].
        """
        return Tabled(self.p, self.log_w[index], fresh, share, self, index)


@dataclass(frozen=True)
class Tabled(Samples):
    """Samples whose numbers stand in the table of all states.

    Args:
        p: As in `Samples`.
        log_w: As in `Samples`.
        fresh_log_w: As in `Samples`.
        fresh_share: As in `Samples`.
        states: The table.
        index: The number of the state of each sample, [K, n].
    """

    states: WeightedStates
    index: Int[Tensor, "K n"]

    def scored(self, weight: Float[Tensor, "K n"]) -> Float[Tensor, "n N C"]:
        """See `Samples.scored`."""
        total = torch.zeros(self.index.shape[1], *self.p.shape, dtype=torch.float64)
        for state, each in zip(self.index, weight, strict=True):
            total += each[:, None, None] * self.states.scores[state]
        return total

    def one_hot(self) -> Float[Tensor, "K n N C"]:
        """See `Samples.one_hot`."""
        return self.states.x[self.index]

    def neighbours(self) -> Float[Tensor, "K n N C"]:
        """See `Samples.neighbours`."""
        return self.states.log_w[self.states.neighbours[self.index]]

    def slopes(self) -> Float[Tensor, "K n N C"]:
        """See `Samples.slopes`."""
        return self.states.slopes[self.index]


def tuples_of(states: int, k: int, route: str, size: int) -> Iterator[Int[Tensor, "K n"]]:
    """Yield all multisets, or all ordered tuples, of K of some states, in blocks.

    Args:
        states: The number of states.
        k: K.
        route: One of `ROUTES`.
        size: Tuples in one block.

    Raises:
        TooLargeError: There are too many; the message counts them.

    Example:
        >>> [block.T.tolist() for block in tuples_of(2, 2, "multisets", 10)]
        [[[1, 1], [0, 1], [0, 0]]]
    """
    ordered = route == "tuples"
    count = states**k if ordered else math.comb(states + k - 1, k)
    if count > _MOST:
        many = f"{count:.3g}" if count < 1e300 else f"about 10^{k * math.log10(states):.0f}"
        raise TooLargeError(
            f"{k} samples of {states} states make {many} {route}, more than the {_MOST} that are "
            "summed over; take a smaller k or fewer states, or use gradlab.bounds.monte_carlo"
        )
    if ordered:
        every = [torch.arange(states)] * k
        for start in range(0, count, size):
            number = torch.arange(start, min(start + size, count))
            yield configurations_at(number, every).T
    elif k < states:
        chosen = itertools.combinations_with_replacement(range(states), k)
        for block in _blocks(chosen, k, size):
            yield block.T
    else:
        # Stars and bars: the places of the few bars say how often each state was drawn.
        bars = itertools.combinations(range(k + states - 1), states - 1)
        for block in _blocks(bars, states - 1, size) if states > 1 else [_no_bars()]:
            edge = torch.full((len(block), 1), -1)
            ends = torch.cat([edge, block, -edge * (k + states - 1)], 1)
            counts = ends.diff(dim=1) - 1
            which = torch.arange(states).repeat(len(block))
            yield which.repeat_interleave(counts.flatten()).view(len(block), k).T


def _no_bars() -> Tensor:
    return torch.zeros(1, 0, dtype=torch.int64)


def _blocks(tuples: Iterator[tuple[int, ...]], width: int, size: int) -> Iterator[Tensor]:
    while True:
        flat = itertools.chain.from_iterable(itertools.islice(tuples, size))
        block = np.fromiter(flat, np.int64)
        if not len(block):
            return
        yield torch.from_numpy(block.reshape(-1, width))


def _log_multinomial(index: Int[Tensor, "K n"]) -> Float[Tensor, " n"]:
    """Return log of the number of orders of each sorted tuple."""
    run = torch.ones(index.shape[1], dtype=torch.float64)
    orders = torch.zeros_like(run)
    for place in range(1, len(index)):
        run = torch.where(index[place] == index[place - 1], run + 1, 1.0)
        orders += math.log(place + 1) - run.log()
    return orders

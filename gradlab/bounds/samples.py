"""Tuples of K samples as estimators see them: log weights, scores, neighbours and slopes.

`Drawn` evaluates log p(x, z) at samples. `gradlab.bounds.states` has the same from a table.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    configurations,
    draw_classes,
    is_masked,
    log_probabilities,
    one_hot,
)
from gradlab.loss import Loss, gradient
from gradlab.loss.contract import LossShapeError, LossTypeError, NotFiniteError

__all__ = ["ALL_STATES", "Drawn", "Samples", "draw_samples", "log_q_of", "values_at"]

ALL_STATES = 4096
"""States of z that a draw may sum over."""


@dataclass(frozen=True)
class Samples(ABC):
    """n tuples of K samples of z, and of fresh samples beside them.

    Args:
        p: Probabilities of q, [*batch, N, C].
        log_w: log w of each sample, [K, n, *batch].
        fresh_log_w: log w of the fresh samples, [A, n, *batch] or [A, 1, *batch]; A may be 0.
        fresh_share: What each counts for in a mean over them, of a shape that broadcasts with it.
    """

    p: Float[Tensor, "*batch N C"]
    log_w: Float[Tensor, "K n *batch"]
    fresh_log_w: Float[Tensor, "A _ *batch"]
    fresh_share: Float[Tensor, "A ..."]

    @abstractmethod
    def scored(self, weight: Float[Tensor, "K n *batch"]) -> Float[Tensor, "n *batch N C"]:
        """Return sum_k weight_k h_k, with the scores h = z - p."""

    @abstractmethod
    def neighbours(self) -> Float[Tensor, "K n *batch N C"]:
        """Return log w of each sample with variable i moved to class c.

        A class of probability 0 is not evaluated: the sample itself stands in for it.
        """

    @abstractmethod
    def one_hot(self) -> Float[Tensor, "K n *batch N C"]:
        """Return the samples as one-hot rows."""

    @abstractmethod
    def slopes(self) -> Float[Tensor, "K n *batch N C"]:
        """Return the gradient of log w in the one-hot z, 0 where q is 0."""

    @cached_property
    def log_p(self) -> Float[Tensor, "*batch N C"]:
        """The logarithms of p, 0 where p is 0."""
        return torch.where(is_masked(self.p), 0.0, self.p.log())


@dataclass(frozen=True)
class Drawn(Samples):
    """Samples at which log p(x, z) is evaluated.

    Args:
        p: As in `Samples`.
        log_w: As in `Samples`; it has the graph of log_joint's parameters.
        fresh_log_w: As in `Samples`.
        fresh_share: As in `Samples`.
        log_joint: log p(x, z) of one-hot z.
        classes: The classes of the samples, [K, n, *batch, N].
        logits: Of q; what log_joint is given has their dtype.
    """

    log_joint: Loss
    classes: Int[Tensor, "K n *batch N"]
    logits: Float[Tensor, "*batch N C"]

    def detached(self) -> "Drawn":
        """Return the same without the graph of log_joint."""
        return replace(self, log_w=self.log_w.detach())

    def scored(self, weight: Float[Tensor, "K n *batch"]) -> Float[Tensor, "n *batch N C"]:
        """See `Samples.scored`."""
        total = weight.sum(0)[..., None, None] * self.p
        return (weight[..., None, None] * self.one_hot()).sum(0) - total

    def one_hot(self) -> Float[Tensor, "K n *batch N C"]:
        """See `Samples.one_hot`."""
        return one_hot(self.classes, self.p)

    def neighbours(self) -> Float[Tensor, "K n *batch N C"]:
        """See `Samples.neighbours`."""
        variables, count = self.p.shape[-2:]
        own = self.classes
        at = (own.unsqueeze(-1) + torch.arange(1, count, device=own.device)) % count
        masked = is_masked(self.p).expand(*own.shape, count).gather(-1, at)
        to = torch.where(masked, own.unsqueeze(-1), at).movedim((-1, -2), (0, 1))
        moved = torch.eye(variables, dtype=torch.bool, device=own.device)
        moved = moved.view(variables, *[1] * (own.ndim - 1), variables)
        points = torch.where(moved, to.unsqueeze(-1), own)  # [C - 1, N, K, n, *batch, N]
        found = _log_w(self.log_joint, self.logits, points).movedim((0, 1), (-1, -2))
        table = self.log_w[..., None, None].expand(*found.shape[:-1], count).clone()
        return table.scatter(-1, at, found)

    def slopes(self) -> Float[Tensor, "K n *batch N C"]:
        """See `Samples.slopes`."""
        x = one_hot(self.classes, self.logits.detach())
        with torch.enable_grad():
            return gradient(self.log_joint, x).to(self.p.dtype) - self.log_p


def draw_samples(
    log_joint: Loss,
    logits: Float[Tensor, "*batch N C"],
    k: int,
    n: int,
    fresh: int | None,
    generator: Generator | None,
) -> Drawn:
    """Return n tuples of K samples of q, and the fresh ones beside them.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., *batch, N, C] -> [..., *batch].
        logits: Of q, [*batch, N, C].
        k: K, the number of samples in a tuple.
        n: The number of tuples.
        fresh: The number of fresh samples of each tuple; None for all states, weighted by q.
        generator: The source of random numbers.

    Returns:
        The samples; log w has the graph of log_joint, not that of the logits.

    Example:
        >>> source = torch.Generator().manual_seed(0)
        >>> draw_samples(lambda z: z[..., 0, 0], torch.zeros(1, 2), 3, 5, 0, source).log_w.shape
        torch.Size([3, 5])
    """
    held = check_logits(logits).detach()
    p = log_probabilities(held).exp()
    batch = logits.shape[:-2]
    if fresh is None:
        classes = draw_classes(p, generator, k * n)
        others = configurations(*logits.shape[-2:]).to(held.device)
        others = others.view(len(others), 1, *[1] * len(batch), -1).expand(-1, 1, *batch, -1)
        log_q = log_q_of(held, others)
        # A state that q never draws counts for nothing.
        share = log_q.exp()
        given = _log_w(log_joint, held, others).detach()
        given = torch.where(share > 0, given, 0.0)
    else:
        drawn = draw_classes(p, generator, (k + fresh) * n)
        classes, others = drawn[: k * n], drawn[k * n :].unflatten(0, (fresh, n))
        share = p.new_full((fresh, *[1] * (1 + len(batch))), 1 / max(fresh, 1))
        given = p.new_zeros(0, n, *batch)
        if fresh:
            given = _log_w(log_joint, held, others).detach()
    classes = classes.unflatten(0, (k, n))
    log_w = _log_w(log_joint, held, classes)
    return Drawn(p, log_w, given, share, log_joint, classes, held)


def log_q_of(
    logits: Float[Tensor, "*batch N C"], classes: Int[Tensor, "*more N"]
) -> Float[Tensor, "*more"]:
    """Return log q of the configurations of these classes.

    Args:
        logits: Of q, [*batch, N, C].
        classes: Class indices [..., *batch, N].

    Returns:
        The logarithms [..., *batch].

    Example:
        >>> log_q_of(torch.zeros(1, 2), torch.tensor([[0], [1]]))
        tensor([-0.6931, -0.6931])
    """
    log_p = log_probabilities(logits)
    wide = log_p.expand(*classes.shape, log_p.shape[-1])
    return wide.gather(-1, classes.unsqueeze(-1)).squeeze(-1).sum(-1)


def _log_w(log_joint: Loss, logits: Tensor, classes: Tensor) -> Tensor:
    """Return log p(x, z) - log q(z) at these classes."""
    log_q = log_q_of(logits, classes)
    values = values_at(log_joint, one_hot(classes, logits))
    return values.to(log_q.dtype) - log_q


def values_at(log_joint: Loss, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
    """Return log p(x, z), checked: one number for each z, finite or -inf.

    Args:
        log_joint: log p(x, z) of one-hot z.
        x: One-hot z [..., N, C].

    Returns:
        The values [...].

    Raises:
        LossTypeError: No floating-point tensor comes back.
        LossShapeError: There is not one value for each z.
        NotFiniteError: A value is NaN or +inf.

    Example:
        >>> values_at(lambda z: z[..., 0, 0].log(), torch.eye(2).unsqueeze(1))
        tensor([0., -inf])
    """
    values = log_joint(x)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise LossTypeError("log_joint must return a floating-point tensor")
    if values.shape != x.shape[:-2]:
        raise LossShapeError(
            f"log_joint must return one value for each z: shape {list(x.shape[:-2])} for z of "
            f"shape {list(x.shape)}, not {list(values.shape)}"
        )
    bad = values.detach().isnan() | (values.detach() == math.inf)
    if bool(bad.any()):
        what = "NaN" if bool(values.isnan().any()) else "+inf"
        z = x.detach()[bad][0].argmax(-1).tolist()
        raise NotFiniteError(f"log_joint is {what} at z = {z} (classes); -inf is allowed")
    return values

r"""Permutations with a weight for each pair of a row and a column.

.. math:: p(x) = \exp(\langle\theta, x\rangle) / \mathrm{perm}(\exp\theta)

The permanent is summed over subsets of columns, row by row: 2^n n operations, none of which
subtracts.
"""

import itertools
import math
from functools import lru_cache
from typing import ClassVar

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import ExponentialFamily
from gradlab.distributions.natural import check_natural
from gradlab.samples import draw_exponentials, one_hot

__all__ = ["Permutation"]

_MAX_SIZE = 14
_MAX_ENUMERATED = 8
# Up to this size, comparing all permutations beats an assignment for each element of a batch.
_MAX_COMPARED = 4
# Costs above this stand for a pair that is forbidden.
_FORBIDDEN = 1e30


class _PermutationMatrices(constraints.Constraint):
    """Matrices of 0 and 1 with a single 1 in each row and column."""

    is_discrete = True
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        """Return where the value is in the set."""
        ones = (value.sum(-1) == 1).all(-1) & (value.sum(-2) == 1).all(-1)
        return ((value == 0) | (value == 1)).flatten(-2).all(-1) & ones


class Permutation(ExponentialFamily):
    r"""A permutation of n elements as a matrix x [n, n] of 0 and 1 (the Gibbs law).

    .. math:: p(x) \propto \exp\Bigl(\sum_{ij} \theta_{ij} x_{ij}\Bigr)

    The marginals are those of the permanent, not of a Sinkhorn relaxation. Up to n = 8 all
    permutations are enumerated; marginals and samples go to n = 14.

    Args:
        logits: theta [*batch, n, n]; -inf forbids a pair.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: logits are not a floating-point tensor.
        ValueError: The matrix is not square, n is above 14, or no permutation is left.

    Example:
        >>> Permutation(torch.zeros(2, 2)).mean
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    parameters: ClassVar[dict[str, int]] = {"logits": 2}
    support = _PermutationMatrices()

    def __init__(
        self,
        logits: Float[Tensor, "*batch n n"],
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        self.logits = check_natural("logits", logits, 2)
        rows, columns = logits.shape[-2:]
        if rows != columns or rows == 0:
            raise ValueError(f"logits must be square matrices, not of shape {list(logits.shape)}")
        if rows > _MAX_SIZE:
            raise ValueError(
                f"the permanent of {rows} x {rows} needs 2^{rows} sums; Permutation goes to "
                f"n = {_MAX_SIZE}"
            )
        allowed = torch.where(logits.detach() > -torch.inf, 0.0, -torch.inf).to(logits)
        if bool((_finite_partition(allowed) < 0).any()):
            raise ValueError("logits of -inf leave no permutation")
        super().__init__(logits.shape[:-2], logits.shape[-2:], estimator, validate_args)

    def _score(self, x: Tensor) -> Tensor:
        return torch.where(x != 0, self.logits, 0.0).mul(x).flatten(-2).sum(-1)

    def _log_partition(self, *parameters: Tensor) -> Tensor:
        return _levels(parameters[0])[-1].squeeze(-1)

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        theta = self.natural[0]
        size = theta.shape[-1]
        levels = _levels(theta)
        x = torch.zeros(n, *theta.shape).to(theta)
        place = torch.zeros(n, *self.batch_shape, dtype=torch.long, device=theta.device)
        for row in reversed(range(size)):
            before, column = (t.to(theta.device) for t in _subsets(size)[row])
            weight = levels[row][..., before] + theta[..., row, :][..., column]
            weight = weight.expand(n, *weight.shape)
            at = place[..., None, None].expand(*place.shape, 1, row + 1)
            weight = weight.gather(-2, at).squeeze(-2)
            chosen = (weight - draw_exponentials(weight, generator).log()).argmax(-1)
            x[..., row, :].scatter_(-1, column[place, chosen].unsqueeze(-1), 1.0)
            place = before[place, chosen]
        return x

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the permutation with the largest sum of weights, as x [..., n, n]."""
        given = weights[0]
        size = given.shape[-1]
        if size <= _MAX_COMPARED:
            states = self._states().to(given)
            best = (given.flatten(-2) @ states.flatten(1).T).argmax(-1)
            return states[best]
        costs = -given.detach().double().reshape(-1, size, size)
        costs = torch.where(costs > _FORBIDDEN, torch.inf, costs)
        columns = [scipy.optimize.linear_sum_assignment(cost)[1] for cost in costs.cpu().numpy()]
        index = torch.from_numpy(np.array(columns, dtype=np.int64).reshape(-1, size))
        return one_hot(index, given.cpu()).reshape(given.shape).to(given)

    def _numbers_per_draw(self) -> int:
        size = self.event_shape[0]
        batch = max(1, self.batch_shape.numel())
        return batch * size * math.comb(size, size // 2)

    def _states(self) -> Tensor:
        size = self.event_shape[0]
        if size > _MAX_ENUMERATED:
            raise ValueError(
                f"{size} elements have {math.factorial(size)} permutations; only up to "
                f"{_MAX_ENUMERATED} elements are enumerated; draw samples instead"
            )
        columns = torch.tensor(list(itertools.permutations(range(size))))
        states = torch.zeros(len(columns), size, size).scatter(2, columns.unsqueeze(-1), 1.0)
        return states.to(self.logits)


def _levels(theta: Tensor) -> list[Tensor]:
    """Return, for each number of rows, the log-sum over each subset of as many columns."""
    level = theta.new_zeros(*theta.shape[:-2], 1)
    levels = [level]
    for row, (before, column) in enumerate(_subsets(theta.shape[-1])):
        before, column = before.to(theta.device), column.to(theta.device)
        level = (level[..., before] + theta[..., row, :][..., column]).logsumexp(-1)
        levels.append(level)
    return levels


def _finite_partition(theta: Tensor) -> Tensor:
    """Return the log-partition where theta is 0 or -inf: -inf where nothing is left."""
    return _levels(theta)[-1].squeeze(-1)


@lru_cache(maxsize=_MAX_SIZE)
def _subsets(size: int) -> list[tuple[Tensor, Tensor]]:
    """For each row: for each subset of row + 1 columns, the subsets without one, and that one."""
    found = []
    for row in range(size):
        smaller = {s: i for i, s in enumerate(itertools.combinations(range(size), row))}
        before, column = [], []
        for subset in itertools.combinations(range(size), row + 1):
            column.append(subset)
            before.append([smaller[subset[:j] + subset[j + 1 :]] for j in range(row + 1)])
        found.append((torch.tensor(before), torch.tensor(column)))
    return found

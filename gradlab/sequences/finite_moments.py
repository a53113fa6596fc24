"""Exact moments of policy gradients on long sequences, by the states of policies and verifier.

What a token of a sequence is weighed with must follow from its state alone, or be a ratio that is
multiplied up step by step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments
from gradlab.sequences.aggregation import SequenceMean
from gradlab.sequences.class_sums import MINUS, OWN, PAIRS, PLUS, group_moments, reads_lengths
from gradlab.sequences.finite_states import FiniteStates
from gradlab.sequences.kl_terms import NoKL
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.ratios import Score
from gradlab.sequences.tables import Tables

__all__ = ["finite_moments"]

# Tokens of the sequences on which weights are asked whether they follow from the token alone.
_ASKED = 6


@dataclass(frozen=True)
class _Known:
    """Classes whose rewards and lengths are given."""

    rewards: Tensor
    lengths: Tensor


@dataclass(frozen=True, eq=False)
class _Weights:
    """What the tokens of a sequence are weighed with.

    `kind`: "token" for `of_token` [Z, V], "prefix" or "sequence" for the ratio up to the token or
    of the sequence; `of_length`: a factor for each length, from length 0.
    """

    kind: str
    of_token: Tensor
    of_length: Tensor

    @property
    def nothing(self) -> bool:
        """Whether all weights are 0."""
        return self.kind == "token" and not bool(self.of_token.any())


def finite_moments(estimator: PolicyGradient, ons: Sequence[FiniteStates]) -> Moments:
    """Return the exact moments of an estimate on long sequences, one group per prompt.

    Args:
        estimator: An estimator that factorizes. The weight of a token must follow from its state,
            or be the prefix or sequence ratio without bounds.
        ons: The policy on the task of each prompt.

    Raises:
        NotExactError: If the estimator is another one; the message says why.
        SupportError: If the ratio of the policies is undefined.
        TooLargeError: If there are too many groups.
    """
    horizon = ons[0].task.horizon
    if not estimator.factorizes or estimator.kl.needs_logits:
        raise NotExactError(
            f"{estimator} does not factorize over classes of (reward, length): for sequences of up "
            f"to {horizon} tokens use monte_carlo"
        )
    if estimator.kl.place == "reward":
        raise NotExactError(
            f"{estimator.kl} gives every sequence a reward of its own, so that there are no "
            f"classes to sum over: for sequences of up to {horizon} tokens use monte_carlo, or a "
            "KL term in the loss"
        )
    merged = [_merged(estimator, on) for on in ons]
    classes = [known for known, _ in merged]
    return group_moments(estimator, ons, classes, [tables for _, tables in merged])


def _merged(estimator: PolicyGradient, on: FiniteStates) -> tuple[_Known, Tables]:
    """Return the sums over the classes that the estimator tells apart."""
    found = _summed(on, [_weights(estimator, on, kind) for kind in (PLUS, MINUS, OWN)])
    if reads_lengths(estimator):
        return _Known(on.rewards, on.lengths), found
    levels, place = on.rewards.unique(return_inverse=True)

    def summed(values: Tensor, axis: int) -> Tensor:
        shape = [*values.shape]
        shape[axis] = len(levels)
        return values.new_zeros(shape).index_add_(axis, place, values)

    found = Tables(summed(found.mass, 0), summed(found.means, 1), summed(found.products, 1))
    return _Known(levels, torch.ones(len(levels), dtype=torch.int64)), found


def _summed(on: FiniteStates, weights: list[_Weights]) -> Tables:
    """Return means and products of weighted scores by class (reward, length)."""
    p, m, classes = on.log_p.exp(), on.log_m.exp(), len(on.rewards)
    # What multiplies the weight of a sequence where so many of two weights are its ratio.
    squared = torch.where(p > 0, p.square() / m, 0.0)
    alphas = [m, p, torch.where(squared.isfinite(), squared, 0.0)]
    means = torch.zeros(len(weights), classes, on.held.size, dtype=torch.float64)
    products = torch.zeros(len(PAIRS), classes, dtype=torch.float64)
    live = [number for number, one in enumerate(weights) if not one.nothing]
    factors = [one.of_length[on.lengths] for one in weights]
    if any(one.kind == "prefix" for one in weights):
        if any(weights[number].kind != "prefix" for number in live):
            raise NotExactError(
                "the prefix ratio beside a KL term cannot be carried from step to step: use "
                "monte_carlo"
            )
        found = on.chain.prefix_sums(p, m)
        for number in live:
            means[number] = factors[number][:, None] * found.means[0]
        for place, (i, j) in enumerate(PAIRS):
            if i in live and j in live:
                products[place] = factors[i] * factors[j] * found.products[0]
        return Tables(on.sampled, means, products)
    of_sequence = [int(one.kind == "sequence") for one in weights]
    for power, alpha in enumerate(alphas):
        own = [number for number in live if of_sequence[number] == power]
        pairs = [
            place
            for place, (i, j) in enumerate(PAIRS)
            if i in live and j in live and of_sequence[i] + of_sequence[j] == power
        ]
        if not own and not pairs:
            continue
        tables, row = _distinct([weights[number].of_token for number in live])
        at = dict(zip(live, row, strict=True))
        asked = list(dict.fromkeys((at[PAIRS[n][0]], at[PAIRS[n][1]]) for n in pairs))
        found = on.chain.sums(alpha, torch.stack(tables), asked)
        for number in own:
            means[number] = factors[number][:, None] * found.means[at[number]]
        for place in pairs:
            i, j = PAIRS[place]
            product = found.products[asked.index((at[i], at[j]))]
            products[place] = factors[i] * factors[j] * product
    return Tables(on.sampled, means, products)


def _distinct(tables: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Return the different tables, and the number of each given one among them."""
    found: list[Tensor] = []
    row = []
    for table in tables:
        same = (number for number, one in enumerate(found) if torch.equal(one, table))
        number = next(same, len(found))
        if number == len(found):
            found.append(table)
        row.append(number)
    return found, row


def _weights(estimator: PolicyGradient, on: FiniteStates, kind: int) -> _Weights:
    """Return what tokens are weighed with, for a positive or negative advantage or for none."""
    horizon = on.task.horizon
    of_length = torch.ones(horizon + 1, dtype=torch.float64)
    if isinstance(estimator.aggregation, SequenceMean):
        of_length[1:] /= torch.arange(1, horizon + 1)
    ones = torch.ones_like(on.log_p)
    if on.rollout is None and (kind != OWN or isinstance(estimator.kl, NoKL)):
        found = _alike(estimator, horizon, kind)
        if found is not None:
            return _Weights("token", ones, of_length * found)
    loss = estimator.loss
    if kind != OWN and isinstance(loss, Score) and loss.ratio in ("prefix", "sequence"):
        unbounded = replace(loss, low=0.0, high=None, beyond="truncate")
        if loss == unbounded:
            return _Weights(str(loss.ratio), ones, of_length)
    if not _is_of_token(estimator, kind):
        part = "KL term" if kind == OWN else "loss"
        where = "" if on.rollout is None else " under another rollout policy"
        raise NotExactError(
            f"the {part} of {estimator} weighs a token by more than its own ratios, and not by the "
            f"plain prefix or sequence ratio: this cannot be carried from step to step{where}; for "
            f"sequences of up to {horizon} tokens use monte_carlo"
        )
    log_m = torch.where(on.log_m == -torch.inf, on.log_p, on.log_m)
    of_token = _asked(estimator, kind, log_m=log_m, log_p=on.log_p, log_r=on.log_r)
    return _Weights("token", torch.where(on.log_m > -torch.inf, of_token, 0.0), of_length)


def _asked(
    estimator: PolicyGradient, kind: int, *, log_p: Tensor, log_m: Tensor, log_r: Tensor | None
) -> Tensor:
    """Return the weights of tokens that are sequences of their own."""
    lengths = torch.ones(log_p.numel(), dtype=torch.int64)
    p, m = log_p.reshape(-1, 1), log_m.reshape(-1, 1)
    r = None if log_r is None else log_r.reshape(-1, 1)
    return _of_kind(estimator, kind, p, m, r, lengths).view_as(log_p)


def _of_kind(
    estimator: PolicyGradient,
    kind: int,
    log_p: Tensor,
    log_m: Tensor,
    log_r: Tensor | None,
    lengths: Tensor,
) -> Tensor:
    if kind == OWN:
        return estimator.own_weights(log_p, log_m, lengths, log_r)
    sign = 1 if kind == PLUS else -1
    return estimator.token_weights(log_p, log_m, lengths, log_r, sign=sign)


def _is_of_token(estimator: PolicyGradient, kind: int) -> bool:
    """Return whether the weight of a token follows from its own log-probabilities alone."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, _ASKED + 1).repeat(32)
    inside = torch.arange(_ASKED) < lengths[:, None]
    shape = (len(lengths), _ASKED)
    log_p = -3 * torch.rand(shape, generator=source, dtype=torch.float64)
    near = torch.logspace(-2, 0.5, len(lengths), dtype=torch.float64)[:, None]
    log_m, log_r = (
        (log_p + near * torch.randn(shape, generator=source, dtype=torch.float64)).clamp_max(0)
        for _ in range(2)
    )
    log_p, log_m, log_r = (torch.where(inside, one, 0.0) for one in (log_p, log_m, log_r))
    whole = _of_kind(estimator, kind, log_p, log_m, log_r, lengths)
    alone = _asked(estimator, kind, log_p=log_p, log_m=log_m, log_r=log_r)
    return torch.allclose(whole[inside], alone[inside], rtol=1e-10, atol=1e-12)


def _alike(estimator: PolicyGradient, horizon: int, kind: int) -> Tensor | None:
    """Return the weight of all tokens of a sequence of each length, on policy, from length 0."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, horizon + 1).repeat(2)
    log_prob = -torch.rand(len(lengths), horizon, generator=source, dtype=torch.float64)
    inside = torch.arange(horizon) < lengths[:, None]
    log_prob = torch.where(inside, log_prob, 0.0)
    found = _of_kind(estimator, kind, log_prob, log_prob, None, lengths)
    first = found[:, :1]
    alike = torch.isclose(found, first, rtol=1e-12).logical_or(~inside).all()
    if not alike or not torch.allclose(first[:horizon], first[horizon:], rtol=1e-12):
        return None
    weights = first[:horizon, 0]
    return torch.cat([weights.new_zeros(1), weights])

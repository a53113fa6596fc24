"""How the weights of a loss answer to the ratio of a token, of other tokens and of a sequence."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.sequences.loss_parts import of_rewards, plain
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.random_batches import random_batch

__all__ = ["Response", "left_out_at", "response_of"]


@dataclass(frozen=True)
class Response:
    """How the weight of a token answers to the log-ratio of a token, for one sign of A.

    Args:
        own: d log|c_t| / d log r_t on policy.
        later: The same for c of a later token.
        earlier: The same for c of an earlier token.
        low: The smallest ratio down to which c follows that power; 0 where there is none.
        high: The largest one, or inf.
        beyond: |c| above `high`, over c on policy: 0 where it is cut off.
        below: The same below `low`.

    Example:
        >>> Response(1.0, 0.0, 0.0, 0.0, 1.2, 0.0, 0.0).level
        'token'
    """

    own: float
    later: float
    earlier: float
    low: float
    high: float
    beyond: float
    below: float

    @property
    def level(self) -> str:
        """none, token, prefix, sequence or geometric; "inverse" where c falls as r grows."""
        if abs(self.own) < 1e-4:
            return "none"
        if self.own < 0:
            return "inverse"
        if abs(self.later) < 1e-4:
            return "token"
        if abs(self.earlier) < 1e-4:
            return "prefix"
        return "sequence" if self.own > 0.7 else "geometric"


def response_of(own: OwnLoss, sign: int) -> Response:
    """Return how weights answer to ratios, for an advantage of this sign.

    Args:
        own: The loss.
        sign: 1 or -1.

    Example:
        >>> def loss(log_prob, old_log_prob, advantages, mask):
        ...     r, a = (log_prob - old_log_prob).exp(), advantages.unsqueeze(-1)
        ...     return -(torch.min(r * a, r.clamp(0.8, 1.3) * a) * mask).sum() / mask.sum()
        >>> found = response_of(OwnLoss(loss), 1)
        >>> found.level, round(found.high, 6), found.beyond
        ('token', 1.3, 0.0)
    """
    own = plain(own)
    group = random_batch(own, 4, on_policy=True, equal=True)
    base = of_rewards(own, group)
    sizes = torch.where(base[..., 2].sign() == sign, base[..., 2].abs(), -1.0)
    at = (int(sizes.argmax()) // group.size, int(sizes.argmax()) % group.size)

    def weights(x: float) -> Tensor:
        rollout = group.log_prob.clone()
        rollout[at][2] -= x
        moved = of_rewards(own, replace(group, rollout_log_prob=rollout))
        return moved[at] / base[at]

    rounding = own.rounding or 0.0
    step = max(1e-5, rounding ** (1 / 3))
    up, down = weights(step), weights(-step)
    slopes = (up.abs().log() - down.abs().log()) / (2 * step)
    noise = 8 * rounding / step
    slopes = torch.where(slopes.abs() < noise, 0.0, slopes) if noise > 1e-6 else slopes
    own_slope, later, earlier = (float(slopes[t]) for t in (2, 4, 0))
    power = float(round(own_slope * group.horizon)) / group.horizon

    def follows(x: float) -> bool:
        wanted = math.exp(power * x)
        return abs(float(weights(x)[2]) - wanted) < max(1e-9, 16 * rounding) * wanted

    span = 4.0 / max(abs(power), 0.1)
    high, low = _edge(follows, span), _edge(follows, -span)
    beyond, below = (
        float(weights(x * 1.2)[2]) if math.isfinite(x) else math.nan for x in (high, low)
    )
    scale = power if power else 1.0
    bounds = (0.0 if low == -math.inf else math.exp(scale * low), math.exp(scale * high))
    return Response(own_slope, later, earlier, bounds[0], bounds[1], beyond, below)


def left_out_at(own: OwnLoss) -> float:
    """Return the mean of log mu/pi above which sequences of negative advantage are left out.

    Args:
        own: The loss.

    Returns:
        It; inf where all sequences count.

    Example:
        >>> def loss(log_prob, old_log_prob, advantages):
        ...     kept = (advantages > 0) | ((old_log_prob - log_prob).mean(-1) < 0.05)
        ...     return -((advantages * kept)[:, None] * log_prob).sum()
        >>> round(left_out_at(OwnLoss(loss)), 6)
        0.05
    """
    own = plain(own)
    group = random_batch(own, 4, on_policy=True, equal=True)
    base = of_rewards(own, group)
    at = divmod(int(base[..., 0].argmin()), group.size)

    def counts(x: float) -> bool:
        rollout = group.log_prob.clone()
        rollout[at] += x
        return bool(of_rewards(own, replace(group, rollout_log_prob=rollout))[at].any())

    return _edge(counts, 4.0)


def _edge(follows, far: float) -> float:  # type: ignore[no-untyped-def]
    """Return where a weight stops to follow its power, on the way to `far`; inf if nowhere."""
    if follows(far):
        return math.copysign(math.inf, far)
    inside, outside = 0.0, far
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if follows(middle) else (inside, middle)
    return inside

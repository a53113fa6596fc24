"""The contract of a policy, asked before every computation; what breaks it is named.

A policy maps tokens [B, T] to logits [B, T, V], and logits[:, t] depend on tokens[:, :t] alone:
they are those of token t itself, as a causal language model has them after its shift.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradlab.sequences.faults import (
    BatchPolicyError,
    LookAheadError,
    PolicyError,
    PolicyShapeError,
    RandomPolicyError,
)
from gradlab.sequences.task import Task

__all__ = ["Policy", "check_policy", "logits_of", "name_of_policy"]

Policy = Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]]
"""From tokens [B, T] to logits [B, T, V]."""

# Rows that a policy is asked with, and numbers of one call.
_ROWS, _NUMBERS = 6, 2**22


def name_of_policy(policy: Policy) -> str:
    """Return what rows call a policy: its class, or the name of the function."""
    return getattr(policy, "__name__", type(policy).__name__)


def logits_of(policy: Policy, task: Task, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    """Return the logits of every token of some sequences, those of the prompt left out.

    Args:
        policy: The policy.
        task: The task, whose prompt is put in front.
        tokens: Sequences [B, T].

    Returns:
        The logits [B, T, V].

    Raises:
        PolicyShapeError: If they have another shape.

    Example:
        >>> task = Task(lambda tokens, lengths: lengths.double(), vocabulary=2, horizon=3)
        >>> logits_of(lambda tokens: torch.zeros(*tokens.shape, 2), task, torch.zeros(1, 3).long())
        tensor([[[0., 0.],
                 [0., 0.],
                 [0., 0.]]])
    """
    rows = task.rows(tokens)
    found: Any = policy(rows)
    found = getattr(found, "logits", found)
    wanted = [*rows.shape, task.vocabulary]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = f"{found.dtype} tensor" if isinstance(found, Tensor) else type(found).__name__
        raise PolicyShapeError(f"the policy must return a floating-point tensor, not a {kind}")
    if list(found.shape) != wanted:
        raise PolicyShapeError(
            f"the policy must return logits [B, T, V] = {wanted} for tokens {list(rows.shape)}, "
            f"not {list(found.shape)}"
        )
    return found[:, len(task.prompt) :]


def check_policy(policy: Policy, task: Task, what: str = "policy") -> None:
    """Raise PolicyError unless the policy keeps its contract on this task.

    It is asked by perturbation: each token of some sequences is changed, and no logits up to this
    token may follow.

    Args:
        policy: The policy.
        task: The task.
        what: What an error calls it: policy, rollout policy or reference policy.

    Raises:
        TypeError: If it cannot be called.
        PolicyError: If it breaks its contract; the subclass says how.

    Example:
        >>> task = Task(lambda tokens, lengths: lengths.double(), vocabulary=2, horizon=3)
        >>> check_policy(lambda tokens: torch.zeros(*tokens.shape, 3), task)
        Traceback (most recent call last):
        gradlab.sequences.faults.PolicyShapeError: the policy must return logits [B, T, V] = \
[6, 3, 2] for tokens [6, 3], not [6, 3, 3]
    """
    if not callable(policy):
        raise TypeError(f"the {what} must be a module or function, not {type(policy).__name__}")
    _check_mode(policy, what)
    source = torch.Generator().manual_seed(0)
    tokens = torch.randint(task.vocabulary, (_ROWS, task.horizon), generator=source)
    with torch.no_grad():
        found = logits_of(policy, task, tokens)
        if found.isnan().any() or (found == torch.inf).any():
            kind = "NaN" if found.isnan().any() else "+inf"
            raise PolicyError(f"the logits of the {what} contain {kind}")
        if (found == -torch.inf).all(-1).any():
            raise PolicyError(f"the {what} masks every token (all logits -inf) after some prefix")
        if not torch.equal(logits_of(policy, task, tokens), found):
            raise RandomPolicyError(
                f"the {what} returns other logits for the same tokens at a second call: it draws "
                "random numbers or keeps a state; a policy must be a function of its tokens"
            )
        alone = torch.cat([logits_of(policy, task, row[None]) for row in tokens[:2]])
        if _differs(alone, found[:2]).any():
            raise BatchPolicyError(
                f"the logits of a sequence depend on the other sequences of the batch: does the "
                f"{what} normalize over the batch?"
            )
        _check_causal(policy, task, tokens, found, what)


def _check_mode(policy: Policy, what: str) -> None:
    """Raise RandomPolicyError for dropout in train mode, which would draw at every call."""
    if not isinstance(policy, nn.Module):
        return
    for module in policy.modules():
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise RandomPolicyError(
                f"the {what} is in train mode and has dropout (p = {module.p:g}): it is another "
                f"policy at every call; call {what.replace(' ', '_')}.eval() first"
            )


def _check_causal(policy: Policy, task: Task, tokens: Tensor, found: Tensor, what: str) -> None:
    """Raise LookAheadError if logits follow a change of their own token or of a later one."""
    horizon, late = task.horizon, torch.zeros(task.horizon, task.horizon, dtype=torch.bool)
    places = torch.arange(horizon)
    at_once = max(1, _NUMBERS // (found.numel() * horizon))
    for part in places.split(at_once):
        changed = tokens.repeat(len(part), 1, 1)
        # Two other tokens at each place: one of them may be treated like the one that stood there.
        for step in {1, task.vocabulary // 2}:
            for row, u in enumerate(part.tolist()):
                changed[row, :, u] = (tokens[:, u] + step) % task.vocabulary
            moved = logits_of(policy, task, changed.flatten(0, 1)).unflatten(0, changed.shape[:2])
            # late[u, t]: logits at t follow a change of token u.
            late[part] |= _differs(moved, found).any(1)
    ahead = late & (places[:, None] >= places)
    if not ahead.any():
        return
    if not (ahead & (places[:, None] > places)).any():
        raise LookAheadError(
            f"logits[:, t] of the {what} depend on tokens[:, t], the token that they are to "
            "predict: they are one step late, as those of a language model are. Put a start token "
            "in front and leave the last logits out (gradlab.sequences.NextToken does)"
        )
    u, t = max(ahead.nonzero().tolist(), key=lambda pair: pair[0] - pair[1])
    raise LookAheadError(
        f"logits[:, {t}] of the {what} depend on tokens[:, {u}], which comes later: its causal "
        "mask is missing or wrong; they may depend on tokens[:, :t] only"
    )


def _differs(a: Tensor, b: Tensor) -> Tensor:
    """Return where logits differ by more than rounding, [..., T]."""
    eps = 1e4 * torch.finfo(a.dtype).eps
    size = b[b.isfinite()].abs().max() if b.isfinite().any() else 1.0
    apart = (a - b).abs() > eps * (1 + size)
    return (apart | (a.isfinite() != b.isfinite())).any(-1)

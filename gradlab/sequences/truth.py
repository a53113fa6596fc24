"""The value and the gradient of an objective over sequences, exactly."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.reproducible import single_thread
from gradlab.sequences.finite_states import enumerated_policy
from gradlab.sequences.policy_contract import Policy
from gradlab.sequences.targets import Target, target_of
from gradlab.sequences.task import Task, tasks_of

__all__ = ["exact_gradient", "exact_value"]


@single_thread()
def exact_value(
    policy: Policy,
    task: Task | Iterable[Task],
    target: Target | str = "J",
    *,
    rollout: Policy | None = None,
    reference: Policy | None = None,
) -> Float[Tensor, ""]:
    """Return the value of an objective by enumeration of all sequences.

    Args:
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts, whose mean is taken.
        target: The objective: "J", "J-KL(beta=0.1)", "pass@4", "max@4" or "surrogate".
        rollout: The policy that samples, for the surrogate.
        reference: The reference policy, for the KL penalty.

    Returns:
        The value, float64.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        TooLargeError: If there are more than 2^20 sequences, and the policy has no finite states.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> exact_value(Tabular(3, 3, scale=0.0), tasks.parity(3, 3))
        tensor(0.6667, dtype=torch.float64)
    """
    wanted = target_of(target)
    found = [
        wanted.value(enumerated_policy(policy, one, rollout, reference)) for one in tasks_of(task)
    ]
    return torch.stack(found).mean()


@single_thread()
def exact_gradient(
    policy: Policy,
    task: Task | Iterable[Task],
    target: Target | str = "J",
    *,
    rollout: Policy | None = None,
    reference: Policy | None = None,
) -> Float[Tensor, " P"]:
    """Return the gradient of an objective by enumeration of all sequences.

    The gradient is an ascent direction, one row of numbers in the order of `policy.parameters()`,
    those that require grad. Sums are float64, and a module is computed in float64.

    Args:
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts, whose mean is taken.
        target: The objective: "J", "J-KL(beta=0.1)", "pass@4", "max@4" or "surrogate".
        rollout: The policy that samples, for the surrogate.
        reference: The reference policy, for the KL penalty.

    Returns:
        The gradient [P], float64.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        TooLargeError: If there are more than 2^20 sequences, and the policy has no finite states.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> exact_gradient(Tabular(3, 3), tasks.parity(3, 3)).shape
        torch.Size([39])
    """
    wanted = target_of(target)
    found = [
        wanted.gradient(enumerated_policy(policy, one, rollout, reference))
        for one in tasks_of(task)
    ]
    return torch.stack(found).mean(0)

"""Shipped tasks and policies by their names, and policies that drifted from a given one."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradlab.checks import check_int, check_known
from gradlab.sequences.policies import NGram, Tabular, TinyGRU, TinyTransformer
from gradlab.sequences.task import Task, tasks_of
from gradlab.sequences.tasks import TASKS

__all__ = ["POLICIES", "drifted", "policy_named", "task_named"]

POLICIES: dict[str, tuple[Callable[..., nn.Module], str | None]] = {
    "tabular": (Tabular, None),
    "ngram": (NGram, "order"),
    "gru": (TinyGRU, "width"),
    "transformer": (TinyTransformer, "width"),
}
"""The shipped policies by their names, each with the argument that its number means."""


def task_named(name: str, horizon: int | None = None, vocabulary: int | None = None) -> list[Task]:
    """Return the tasks of a shipped name, one for each prompt.

    Args:
        name: A key of `gradlab.sequences.tasks.TASKS`.
        horizon: T; by default the task's own.
        vocabulary: V; by default the task's own.

    Raises:
        ValueError: The name is unknown, or the task has no such size.

    Example:
        >>> [(task.name, task.horizon) for task in task_named("easy-and-hard", horizon=2)]
        [('easy', 2), ('hard', 2)]
    """
    check_known("task", name, TASKS)
    make: Any = TASKS[name]
    takes = inspect.signature(make).parameters
    given: dict[str, Any] = {}
    if horizon is not None:
        given["horizon"] = horizon
    if vocabulary is not None and "vocabulary" in takes:
        given["vocabulary"] = vocabulary
    tasks = tasks_of(make(**given))
    if vocabulary is not None and tasks[0].vocabulary != vocabulary:
        raise ValueError(f"{name} has {tasks[0].vocabulary} tokens, not {vocabulary}")
    return tasks


def policy_named(text: str, tasks: list[Task], seed: int = 0) -> nn.Module:
    """Return a shipped policy that fits the tasks.

    Args:
        text: A key of `POLICIES`; a number after a colon is the order of an n-gram, or the width
            of a network.
        tasks: The tasks that it is for.
        seed: Of its parameters.

    Raises:
        ValueError: The name or the number is not allowed, or the policy would be too large.

    Example:
        >>> policy_named("ngram:3", task_named("parity")).order
        3
    """
    name, colon, number = text.partition(":")
    check_known("policy", name, POLICIES)
    make, argument = POLICIES[name]
    given: dict[str, Any] = {"vocabulary": tasks[0].vocabulary, "seed": seed}
    if "horizon" in inspect.signature(make).parameters:
        given["horizon"] = max(len(task.prompt) + task.horizon for task in tasks)
    if colon:
        if argument is None:
            raise ValueError(f"{name} takes no number: {text!r}")
        if not number.isdigit():
            raise ValueError(f"{argument} must be a whole number, not {number!r} in {text!r}")
        given[argument] = int(number)
    return make(**given)


def drifted(policy: Any, scale: float, seed: int = 0) -> nn.Module:
    """Return a copy of a policy, all of whose parameters were moved by normal noise.

    Args:
        policy: A module.
        scale: Standard deviation of the noise.
        seed: Of the noise.

    Raises:
        ValueError: The policy is not a module, or the scale is not a number of at least 0.

    Example:
        >>> policy = Tabular(3, 2)
        >>> moved = drifted(policy, 0.5)
        >>> bool((moved.table - policy.table).abs().max() > 0)
        True
    """
    if not isinstance(policy, nn.Module):
        raise ValueError(
            f"only a module can drift, not {type(policy).__name__}: give both policies"
        )
    if not 0 <= scale < float("inf"):
        raise ValueError(f"the drift must be a number of at least 0, not {scale!r}")
    check_int("seed", seed, 0)
    moved, source = copy.deepcopy(policy), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter))
    return moved

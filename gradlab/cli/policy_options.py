"""Options of `gradlab policy`, and the tasks and policies that their texts name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.catalogue import check_policy, check_policy_gradient, check_task
from gradlab.cli.faults import blaming, blaming_one
from gradlab.cli.options import size_numbers

if TYPE_CHECKING:
    from gradlab.sequences.own_loss import OwnLoss
    from gradlab.sequences.task import Task

__all__ = [
    "DRIFT",
    "TASK",
    "Advantage",
    "Aggregation",
    "AnyTask",
    "Group",
    "Gradients",
    "Losses",
    "OutFolder",
    "PolicyName",
    "Reference",
    "Rollout",
    "Setting",
    "Settings",
    "SizeOfTask",
    "Target",
    "TaskName",
    "blaming_setting",
    "read_losses",
    "read_setting",
]

DRIFT = 0.5
"""Standard deviation of the noise that makes the reference policy, where none is given."""

TASK = "length-skewed"
"""The default task: short is right, long is wrong."""


def _check_gradients(texts: list[str] | None) -> list[str] | None:
    with blaming("ESTIMATOR"):
        for text in texts or ():
            check_policy_gradient(text)
    return texts


def _check_task(text: str | None) -> str | None:
    with blaming("--task"):
        if text is not None and ".py" not in text:
            check_task(text)
    return text


def _check_policy(text: str | None) -> str | None:
    with blaming("--policy"):
        if text is not None and ".py" not in text:
            check_policy(text)
    return text


Gradients = Annotated[
    list[str] | None,
    typer.Argument(
        help='Policy gradients such as RLOO or "GRPO(g=8, kl=k3)"; see `gradlab list '
        "policy-gradients choices`.",
        metavar="ESTIMATOR",
        callback=_check_gradients,
    ),
]
Losses = Annotated[
    list[str] | None,
    typer.Option(
        "--loss",
        "--file",
        help="Your own loss, as TRL, verl, OpenRLHF or slime have it: a function, a method with "
        "self such as _compute_loss, or a class; arguments are known by their names; may be "
        "repeated.",
        metavar="FILE.py:NAME",
    ),
]
Advantage = Annotated[
    str | None,
    typer.Option(
        help="Advantages that are given to a loss that takes some, such as loo or "
        "group-std.  [default: group-std]",
        metavar="NAME",
    ),
]
Aggregation = Annotated[
    str | None,
    typer.Option(
        help="Aggregation of a loss that is returned per token, such as token-mean.",
        metavar="NAME",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Value of an argument or of a field of the configuration that a loss reads, such as "
        "clip_ratio_high=0.28; may be repeated.",
        metavar="NAME=VALUE",
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        help="Task, see `gradlab list tasks`, or your own: a gradlab.sequences.Task, or a list of "
        "one for each prompt.",
        metavar="NAME|FILE.py:NAME",
        callback=_check_task,
    ),
]
AnyTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Task where it is measured, see `gradlab list tasks`, or your own.  [default: all "
        "that are shipped]",
        metavar="NAME|FILE.py:NAME",
        callback=_check_task,
    ),
]
PolicyName = Annotated[
    str,
    typer.Option(
        help="Policy, see `gradlab list policies`, such as tabular or ngram:3; or your own module "
        "from tokens [B, T] to logits [B, T, V].",
        metavar="NAME|FILE.py:NAME",
        callback=_check_policy,
    ),
]
SizeOfTask = Annotated[
    str | None,
    typer.Option(
        "--size",
        help="Horizon x number of tokens in the vocabulary.  [default: the task's own]",
        metavar="TxV",
    ),
]
Rollout = Annotated[
    str | None,
    typer.Option(
        help="Policy that samples, your own or a number: the policy with normal noise of this "
        "standard deviation on its parameters.",
        metavar="DRIFT|FILE.py:NAME",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Reference policy of KL terms, as --rollout.  [default: 0.5 where a KL term needs it]",
        metavar="DRIFT|FILE.py:NAME",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="Objective whose gradient is meant: J, J-KL(beta=0.1), pass@4, max@4, sum-pass@4 (of "
        "MaxRL), h(g=4) or h(p) (of GRPO) or surrogate.  [default: what the estimator claims, else "
        "J]",
        metavar="TARGET",
    ),
]
Group = Annotated[
    int | None,
    typer.Option(min=1, help="Sequences in a group.  [default: that in the text, else 4]"),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder where the rows are written as CSV."),
]


@dataclass(frozen=True)
class Setting:
    """A policy on the tasks of some prompts, and the policies beside it."""

    tasks: "list[Task]"
    policy: Any
    rollout: Any
    reference: Any

    @property
    def policies(self) -> dict[str, Any]:
        """The rollout and the reference policy, as arguments."""
        return {"rollout": self.rollout, "reference": self.reference}


def read_setting(
    *,
    task: str,
    policy: str,
    size: str | None,
    rollout: str | None,
    reference: str | None,
    needs_reference: bool,
    seed: int,
) -> Setting:
    """Return what the options name; the seed is that of the parameters too."""
    tasks = _tasks(task, size)
    found = _policy(policy, tasks, size, seed)
    sampler = None if rollout is None else _beside(rollout, "--rollout", found, seed + 1)
    if reference is None and needs_reference:
        reference = str(DRIFT)
    anchor = None if reference is None else _beside(reference, "--reference", found, seed + 2)
    return Setting(tasks, found, sampler, anchor)


def _tasks(text: str, size: str | None) -> "list[Task]":
    if ".py" in text:
        from gradlab.sequences.task import tasks_of
        from gradlab.user_code.objects import load_object

        if size is not None:
            raise typer.BadParameter("your own task has its size", param_hint="--size")
        with blaming(f"--task {text}", (ValueError, TypeError)):
            return tasks_of(load_object(text))
    from gradlab.sequences.shipped import task_named

    with blaming("--size" if size is not None else "--task"):
        wanted = "horizon x vocabulary, such as 3x4"
        return task_named(text, *((None, None) if size is None else size_numbers(size, wanted)))


def _policy(text: str, tasks: "list[Task]", size: str | None, seed: int) -> Any:
    from gradlab.sequences.shipped import policy_named

    if ".py" not in text:
        hint = f"--policy {text}" + (f" --size {size}" if size is not None else "")
        with blaming(hint):
            return policy_named(text, tasks, seed)
    return _own_policy(text, "--policy")


def _own_policy(text: str, option: str) -> Any:
    from gradlab.user_code.objects import load_object

    with blaming(f"{option} {text}"):
        found = load_object(text)
        if isinstance(found, type) or not callable(found):
            what = "a class" if isinstance(found, type) else type(found).__name__
            raise ValueError(f"it must be a module from tokens to logits, not {what}")
    return found


def _beside(text: str, option: str, policy: Any, seed: int) -> Any:
    """Return a policy beside the one in question: your own, or the same one that drifted."""
    if ".py" in text:
        return _own_policy(text, option)
    from gradlab.sequences.shipped import drifted

    with blaming(option):
        try:
            scale = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is neither a number nor FILE.py:NAME") from None
        return drifted(policy, scale, seed)


@contextmanager
def blaming_setting(
    task: str | None, policy: str, rollout: str | None, *others: str
) -> Iterator[None]:
    """Re-raise errors of task, policies and estimators as usage errors that name the option."""
    from gradlab.exact.enumeration import TooLargeError
    from gradlab.exact.tuples import NotExactError
    from gradlab.sequences.faults import PolicyError, RewardError, SupportError
    from gradlab.user_code.objects import line_of

    own_task = task is not None and ".py" in task
    hints: dict[type[Exception], str] = {
        RewardError: f"--task {task}",
        PolicyError: f"--policy {policy}",
        SupportError: "--rollout",
        TooLargeError: f"--task {task}" if own_task else "--size",
        NotExactError: "--method",
    }
    try:
        with blaming_one(*(others or ("--target",))):
            try:
                yield
            except tuple(hints) as error:
                hint = next(hint for kind, hint in hints.items() if isinstance(error, kind))
                raise typer.BadParameter(" ".join(str(error).split()), param_hint=hint) from None
    except (typer.BadParameter, KeyboardInterrupt):
        raise
    except Exception as error:
        where = line_of(error)
        if not where:
            raise
        options = [("--task", task), ("--policy", policy), ("--rollout", rollout)]
        file = where.partition(",")[0].removeprefix(" (")
        named = [f"{option} {text}" for option, text in options if text and file in text]
        raise typer.BadParameter(
            f"it raised {type(error).__name__}: {' '.join(str(error).split())}{where}",
            param_hint=named[0] if named else "--loss",
        ) from None


def read_losses(
    texts: list[str] | None,
    advantage: str | None,
    aggregation: str | None,
    settings: list[str] | None,
    group: int | None,
) -> "dict[str, OwnLoss]":
    """Return your own losses by their texts; the options are for them alone."""
    given = {"--advantage": advantage, "--aggregation": aggregation, "--set": settings}
    for option, value in given.items():
        if value and not texts:
            raise typer.BadParameter("only with --loss", param_hint=option)
    if not texts:
        return {}
    from gradlab.sequences.aggregation import AGGREGATIONS
    from gradlab.sequences.choices import read_choice, read_value
    from gradlab.sequences.own_loss import LossFunctionError, OwnLoss
    from gradlab.sequences.spellings import read_advantage, spelled
    from gradlab.user_code.objects import load_object

    options: dict[str, Any] = {"g": 2 if group is None else group}
    if advantage is not None:
        with blaming("--advantage"):
            options["advantage"] = read_advantage(advantage)
    if aggregation is not None:
        with blaming("--aggregation"):
            name = spelled("aggregation", aggregation)
            options["aggregation"] = read_choice("aggregation", name, AGGREGATIONS)
    values = {}
    for text in settings or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier() or not value.strip():
            raise typer.BadParameter(f"write NAME=VALUE, not {text!r}", param_hint="--set")
        values[name.strip()] = read_value(value.strip())
    found = {}
    for text in dict.fromkeys(texts):
        with blaming(f"--loss {text}", (ValueError, TypeError, LossFunctionError)):
            function = load_object(text)
            if not callable(function):
                raise ValueError(
                    f"it must be a function, a method or a class, not {type(function).__name__}"
                )
            found[text] = OwnLoss(function, settings=values, **options)
    return found

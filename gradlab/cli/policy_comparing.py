"""`gradlab policy compare`: bias and variance of policy gradients on one task."""

from typing import Annotated

import typer

from gradlab.cli.faults import blaming, blaming_one, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Averaged,
    Draws,
    Folder,
    Seed,
)
from gradlab.cli.policy_options import (
    TASK,
    Gradients,
    Group,
    PolicyName,
    Reference,
    Rollout,
    SizeOfTask,
    TaskName,
    blaming_setting,
    read_setting,
)
from gradlab.cli.verifying import VerifyMethod

__all__ = ["Averaged", "compare"]

# What is compared without any names.
_DEFAULT = ("RLOO", "centred", "GRPO", "Dr.GRPO", "DAPO", "REINFORCE++", "MaxRL", "GSPO")


def compare(
    estimators: Gradients = None,
    task: TaskName = TASK,
    policy: PolicyName = "tabular",
    size: SizeOfTask = None,
    rollout: Rollout = None,
    reference: Reference = None,
    target: Annotated[
        str,
        typer.Option(
            help="Objective whose gradient biases are relative to: J, J-KL(beta=0.1), pass@4, "
            "max@4, sum-pass@4, h(g=4) or surrogate.",
            metavar="TARGET",
        ),
    ] = "J",
    group: Group = None,
    method: Annotated[
        VerifyMethod,
        typer.Option(help="How moments are found; auto is exact where known, else by draws."),
    ] = VerifyMethod.auto,
    draws: Draws = 10_000,
    averaged: Averaged = 10.0,
    seed: Seed = 0,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Measure bias and variance of policy gradients on one task, against the exact gradient.

    \b
    Example:  gradlab policy compare RLOO GRPO "GRPO(aggregation=TOK)" --group 16 --out results
    Example:  gradlab policy compare GRPO IS --task parity --rollout 0.5
    """
    check_report(report, out)
    from gradlab.sequences.catalogue import parse
    from gradlab.sequences.comparing import compare
    from gradlab.sequences.moments import estimator_of
    from gradlab.sequences.policies_text import policies_text
    from gradlab.sequences.targets import target_of

    texts = list(dict.fromkeys(estimators or _DEFAULT))
    with blaming("ESTIMATOR"):
        found = [parse(text) for text in texts]
    with blaming("--target"):
        target_of(target)
    if group is not None:
        for one in found:
            with blaming_one("--group"):
                estimator_of(one, group)
    kl = target.startswith("J-KL") or any(one.kl.name != "none" for one in found)
    setting = read_setting(
        task=task,
        policy=policy,
        size=size,
        rollout=rollout,
        reference=reference,
        needs_reference=kl,
        seed=seed,
    )
    make_folder(out)
    with blaming_setting(task, policy, rollout, "--target", "--reference"):
        rows = compare(
            found,
            setting.policy,
            setting.tasks,
            target,
            group=group,
            method=str(method),
            draws=draws,
            seed=seed,
            averaged=averaged,
            progress=True,
            **setting.policies,
        )
    print(policies_text(rows))
    if out is not None:
        from gradlab.plots.comparison import plane
        from gradlab.plots.files import save_with_rows

        save_with_rows(rows.drop(columns="seconds"), plane, out, "policy-compare")
        print(f"\n{out / 'policy-compare.png'}")
        if report:
            write_report([out / "policy-compare.csv"], out, averaged=averaged)

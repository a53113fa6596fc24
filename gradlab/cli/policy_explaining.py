"""`gradlab policy explain`: what a configuration of a trainer estimates."""

from typing import Annotated

import typer

from gradlab.catalogue import check_policy_gradient, entries
from gradlab.cli.faults import blaming, blaming_one, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import Averaged, Seed
from gradlab.cli.policy_options import (
    DRIFT,
    AnyTask,
    OutFolder,
    PolicyName,
    SizeOfTask,
    Target,
    blaming_setting,
    read_setting,
)
from gradlab.files import write_tables

__all__ = ["explain"]


def _check_base(text: str | None) -> str | None:
    with blaming("ESTIMATOR"):
        if text is not None:
            check_policy_gradient(text)
    return text


def explain(
    estimator: Annotated[
        str | None,
        typer.Argument(
            help='Policy gradient to start from, such as GRPO or "DAPO(g=16)".  [default: RLOO]',
            metavar="ESTIMATOR",
            show_default=False,
            callback=_check_base,
        ),
    ] = None,
    advantage: Annotated[
        str | None,
        typer.Option(
            help="Advantage: group-std, batch-std, loo, centred, none, ...; or a spelling of a "
            "trainer, such as scale_rewards=none. `gradlab list choices` has all.",
            metavar="NAME",
        ),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="Aggregation: token-mean, seq-mean-token-mean, seq-mean-token-sum, dr_grpo, ...",
            metavar="NAME",
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help="Importance ratio: none, token, prefix, sequence (the product of all ratios) or "
            "geometric; or a loss such as GSPO, which TRL calls sequence, or CISPO-verl.",
            metavar="NAME",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Clip of the ratio around 1, one number or two for below and above.",
            metavar="C|LOW,HIGH",
        ),
    ] = None,
    kl: Annotated[
        str | None,
        typer.Option(
            help='KL term: none, k1, k2, k3, "k1(place=reward)", full, ...', metavar="NAME"
        ),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the KL term; 0 takes it away.", metavar="BETA")
    ] = None,
    group: Annotated[
        int | None, typer.Option(min=1, help="Sequences in a group.  [default: 4]")
    ] = None,
    task: AnyTask = None,
    policy: PolicyName = "tabular",
    size: SizeOfTask = None,
    rollout: Annotated[
        str,
        typer.Option(
            help="Policy that samples off policy, your own or a number: the policy with normal "
            "noise of this standard deviation on its parameters.",
            metavar="DRIFT|FILE.py:NAME",
        ),
    ] = "0.3",
    reference: Annotated[
        str,
        typer.Option(
            help="Reference policy of a KL term, as --rollout.", metavar="DRIFT|FILE.py:NAME"
        ),
    ] = str(DRIFT),
    target: Target = None,
    draws: Annotated[
        int, typer.Option(min=32, help="Draws where exact moments are not known or take long.")
    ] = 10_000,
    averaged: Averaged = 10.0,
    seed: Seed = 0,
    out: OutFolder = None,
    report: Report = False,
) -> None:
    """Say what a trainer's configuration estimates, what causes its bias, and what repairs it.

    Choices are written as trainers write them. It is measured on and off policy, on small tasks
    where every sequence is enumerated. Directions hold in general, sizes are those of the tasks.

    \b
    Example:  gradlab policy explain GRPO --kl k3 --beta 0.04
    Example:  gradlab policy explain --advantage group-std --ratio token --clip .2 --group 8
    """
    check_report(report, out)
    from gradlab.sequences.explaining import Case, explain
    from gradlab.sequences.moments import estimator_of
    from gradlab.sequences.spellings import configured
    from gradlab.sequences.targets import target_of

    if size is not None and task is None:
        raise typer.BadParameter("only with --task", param_hint="--size")
    bounds = _clip(clip)
    given = {"advantage": advantage, "aggregation": aggregation, "ratio": ratio, "kl": kl}
    with blaming("ESTIMATOR"):
        configured(estimator or "PG")
    named = ("--clip", "--beta", *(f"--{name}" for name in given))
    with blaming_one(*named):
        found = configured(
            estimator or "PG",
            **given,
            clip=bounds,
            beta=beta,
            group=group,
        )
    with blaming("ESTIMATOR" if group is None else "--group"):
        estimator_of(found)
    if target is not None:
        with blaming("--target"):
            target_of(target)
    make_folder(out)
    names = [task] if task is not None else [one["task"] for one in entries()["tasks"]]
    cases = []
    for name in names:
        setting = read_setting(
            task=name,
            policy=policy,
            size=size,
            rollout=rollout,
            reference=reference,
            needs_reference=True,
            seed=seed,
        )
        label = "" if ".py" in name else name
        cases.append(Case(setting.policy, setting.tasks, setting.rollout, setting.reference, label))
    with blaming_setting(task, policy, rollout, "--target", "--reference"):
        explanation = explain(found, cases, target, draws=draws, seed=seed, averaged=averaged)
    print(explanation)
    if out is not None:
        rows = explanation.rows.drop(columns="seconds")
        files = write_tables({"policy-explain": rows}, out)
        print("", *files, sep="\n")
        if report:
            write_report(files, out, [str(explanation)], averaged=averaged)


def _clip(text: str | None) -> tuple[float, float] | None:
    """Return how far the ratio may fall and rise."""
    if text is None:
        return None
    with blaming("--clip"):
        parts = text.split(",")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or not all(0 <= x < float("inf") for x in numbers):
            raise ValueError(f"{text!r} is not a clip; write .2, or .2,.28 for below and above")
    return numbers[0], numbers[-1]

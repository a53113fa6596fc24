"""`gradlab policy verify`: whose gradient is it, and which faults does a loss have."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.faults import blaming, fail, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Delta,
    Folder,
    MaxDraws,
    Seed,
)
from gradlab.cli.policy_options import (
    TASK,
    Advantage,
    Aggregation,
    Gradients,
    Losses,
    PolicyName,
    Reference,
    Rollout,
    Setting,
    Settings,
    SizeOfTask,
    Target,
    TaskName,
    blaming_setting,
    read_losses,
    read_setting,
)
from gradlab.cli.verifying import VerifyMethod

if TYPE_CHECKING:
    from gradlab.sequences.loss_report import LossReport
    from gradlab.sequences.own_loss import OwnLoss
    from gradlab.sequences.verdict import PolicyVerdict

__all__ = ["verify"]

# Invariances of every loss: what breaks them reads what is not there.
_ALWAYS = ("padding content", "masked tokens")


def verify(
    estimators: Gradients = None,
    loss: Losses = None,
    advantage: Advantage = None,
    aggregation: Aggregation = None,
    settings: Settings = None,
    task: TaskName = TASK,
    policy: PolicyName = "tabular",
    size: SizeOfTask = None,
    rollout: Rollout = None,
    reference: Reference = None,
    target: Target = None,
    factor: Annotated[
        float | None,
        typer.Option(
            help="Factor that the mean is to have beside the gradient, such as 0.75.  [default: "
            "what the estimator claims, else 1]"
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Sequences in a group.  [default: that in the text, else 4; of your own loss 2]",
        ),
    ] = None,
    method: Annotated[
        VerifyMethod,
        typer.Option(help="How it is decided; auto is exact where that is known, else by draws."),
    ] = VerifyMethod.auto,
    max_draws: MaxDraws = 2**17,
    delta: Delta = 0.05,
    alpha: Annotated[
        float, typer.Option(help="Rate of false alarms by draws of an unbiased estimator.")
    ] = 1e-3,
    seed: Seed = 0,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Say whose gradient a policy gradient is, on a task where everything is enumerated.

    Of your own loss it says which published estimator it is, which invariances hold and which
    known faults it has. The exit status is 1 when a declared claim fails, when a fault is named or
    padding changes the estimate, when the mean is not the gradient that --target or --factor asks
    for, and when your own loss is biased and is not a published estimator.

    \b
    Example:  gradlab policy verify --loss my.py:loss
    Example:  gradlab policy verify RLOO "GRPO(g=8)" --task parity --out results
    """
    if not estimators and not loss:
        raise typer.BadParameter("give one, or your own --loss", param_hint="ESTIMATOR")
    check_report(report, out)
    _check_shares(delta, alpha)
    asked = target is not None or factor is not None
    _check_target(target, factor)
    losses = read_losses(loss, advantage, aggregation, settings, group)
    texts = list(dict.fromkeys(estimators or ()))
    setting = read_setting(
        task=task,
        policy=policy,
        size=size,
        rollout=rollout,
        reference=reference,
        needs_reference=_needs_reference(texts, losses, target),
        seed=seed,
    )
    make_folder(out)
    options: dict[str, Any] = {"target": target, "factor": factor, "group": group}
    options |= {"method": str(method), "max_draws": max_draws, "delta": delta, "alpha": alpha}
    options |= {"seed": seed, **setting.policies}
    others = ("--target", "--group", "--reference", "--method")
    verdicts, failed, told = [], [], []
    with blaming_setting(task, policy, rollout, *others):
        for text in texts:
            verdict, words = _of_estimator(text, setting, options)
            verdicts.append(verdict)
            told.append(words)
            failed += _failing(verdict, asked)
        for text, own in losses.items():
            verdict, words, wrong = _of_loss(text, own, setting, options, asked)
            verdicts.append(verdict)
            told.append(words)
            failed += wrong
    if out is not None:
        import pandas as pd

        from gradlab.plots.files import save_with_rows
        from gradlab.plots.verdicts import verdicts as draw

        rows = pd.DataFrame([verdict.row() for verdict in verdicts])
        save_with_rows(rows, draw, out, "policy-verify")
        print(f"\n{out / 'policy-verify.png'}")
        if report:
            write_report([out / "policy-verify.csv"], out, ["\n\n".join(told)])
    if failed:
        raise typer.Exit(fail("; ".join(failed), 1))


def _check_shares(delta: float, alpha: float) -> None:
    for option, share in (("--delta", delta), ("--alpha", alpha)):
        if not 0 < share < 1:
            raise typer.BadParameter(
                f"must be a number between 0 and 1, not {share!r}", param_hint=option
            )


def _check_target(target: str | None, factor: float | None) -> None:
    if factor is not None and not 0 < abs(factor) < float("inf"):
        raise typer.BadParameter(f"must be a number, not {factor!r}", param_hint="--factor")
    if target is not None and target != "h(p)":
        from gradlab.sequences.targets import target_of

        with blaming("--target"):
            target_of(target)


def _needs_reference(texts: list[str], losses: "dict[str, OwnLoss]", target: str | None) -> bool:
    """Return whether a KL term or the target needs a reference policy."""
    from gradlab.sequences.catalogue import parse

    with blaming("ESTIMATOR"):
        terms = any(parse(text).kl.name != "none" for text in texts)
    reads = any(
        {"reference_log_prob", "everything"} & set(own.kinds.values()) for own in losses.values()
    )
    return terms or reads or (target or "").startswith("J-KL")


def _of_estimator(
    text: str, setting: Setting, options: dict[str, Any]
) -> tuple["PolicyVerdict", str]:
    from gradlab.progress import say
    from gradlab.sequences.moments import estimator_of
    from gradlab.sequences.verifying import verify

    with blaming("ESTIMATOR" if options["group"] is None else "--group"):
        estimator_of(text, options["group"])
    verdict = verify(text, setting.policy, setting.tasks, **options)
    words = verdict.explain()
    say(words, sys.stdout)
    return verdict, words


def _of_loss(
    text: str, own: "OwnLoss", setting: Setting, options: dict[str, Any], asked: bool
) -> tuple["PolicyVerdict", str, list[str]]:
    """Report on your own loss; return its verdict, the words, and what fails."""
    from gradlab.progress import say
    from gradlab.sequences.loss_report import examine
    from gradlab.sequences.own_loss import LossFunctionError
    from gradlab.sequences.verifying import verify

    with blaming(f"--loss {text}", LossFunctionError):
        report = examine(own)
        verdict = verify(own, setting.policy, setting.tasks, **options)
    words = f"{report}\n\n{verdict.explain()}"
    say(words, sys.stdout)
    wrong = [f"{own.name}: {name}" for name in report.fault_names()]
    wrong += [f"{own.name}: {name} changes the estimate" for name in _broken(report)]
    return verdict, words, wrong + _failing(verdict, asked, unknown=not report.match.exact)


def _broken(report: "LossReport") -> list[str]:
    return [name for name in _ALWAYS if name in report.failing]


def _failing(verdict: "PolicyVerdict", asked: bool, unknown: bool = False) -> list[str]:
    """Return what fails; a published estimator that claims nothing may be biased."""
    if verdict.holds is False:
        return [f"not as declared: {verdict}"]
    if not verdict.claimed and (asked or unknown) and verdict.outcome != "UNBIASED":
        return [f"not shown to be the gradient of {verdict.objective}: {verdict}"]
    return []

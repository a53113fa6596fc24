"""`gradlab time`: milliseconds and memory of every estimator's layer, or on your own loss."""

from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Device,
    Estimators,
    File,
    Folder,
    LogitsFile,
    OwnLoss,
    ProblemName,
    Regime,
    Seed,
    Temperatures,
    blaming_loss,
    read_estimators,
    read_loss,
    read_size,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["time"]


def time(
    estimators: Estimators = None,
    file: File = None,
    problem: ProblemName = None,
    loss: OwnLoss = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Sizes, variables x classes, such as 32x16 or 8x4,32x4.  [default: 2 to 512 "
            "variables x 16 and 32 x 2 to 256; for a loss 4x4]",
            metavar="NxC,...",
        ),
    ] = None,
    tau: Temperatures = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Rows B of the logits [B, N, C] in one pass.")
    ] = 128,
    device: Device = "cpu",
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds spent on a size; estimators share them, with at least 5 passes each."
        ),
    ] = 2.0,
    seed: Seed = 0,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Time a forward and backward pass of every estimator's layer, beside F.gumbel_softmax.

    With --problem or --loss the passes are those of a training on this loss. The rows name the
    machine. Medians and quartiles: CPU time on one thread; on cuda also CUDA Graphs.

    \b
    Example:  gradlab time --size 32x2,32x16,32x64 --out results
    Example:  gradlab time ZGR --file my.py:Mine --loss my.py:loss --logits logits.npy --batch 512
    """
    check_report(report, out)
    of_loss = problem is not None or loss is not None
    for option, value in (("--logits", logits), ("--regime", regime)):
        if value is not None and not of_loss:
            raise typer.BadParameter("only with --problem or --loss", param_hint=option)
    f = at = None
    if of_loss:
        f, at, _ = read_loss(
            problem=problem, loss=loss, logits=logits, regime=regime, size=size, seed=seed
        )
        sizes = [(at.shape[-2], at.shape[-1])]
    elif size is not None:
        sizes = [read_size(text, (1, 1)) for text in dict.fromkeys(size.split(","))]
    else:
        sizes = _sizes()
    make_folder(out)
    from gradlab.nn.device import check_device
    from gradlab.nn.timing import check_sizes, every_estimator, time_layers

    default = [str(estimator) for estimator in every_estimator()]
    chosen = read_estimators(estimators, tau, files=file, default=default)
    with blaming("--device"):
        check_device(device)
    with blaming("--batch, --size"):
        check_sizes(sizes, batch)
    with blaming_loss(loss), blaming("--seconds"):
        rows = time_layers(
            chosen,
            sizes,
            f=f,
            logits=at,
            batch=batch,
            device=device,
            seconds=seconds,
            seed=seed,
            progress=True,
        )
    print(_text(rows))
    if out is not None:
        from gradlab.plots.files import save_with_rows
        from gradlab.plots.timing import plot

        save_with_rows(rows, plot, out, "timing")
        print(f"\n{out / 'timing.png'}")
        if report:
            write_report([out / "timing.csv"], out)


def _sizes() -> list[tuple[int, int]]:
    """Return the sizes that are timed by default: classes at 32 variables, variables at 16."""
    from gradlab.nn.timing import sweeps

    return sweeps([2, 8, 32, 128, 512], [2, 4, 16, 64, 256])


def _text(rows: "pd.DataFrame") -> str:
    """Return the rows as a table, a block for each size."""
    from gradlab.text import aligned

    first = rows.iloc[0]
    text = f"{first['machine']}, torch {first['torch']}, {first['device']}, {first['dtype']}"
    text += f", {first['threads']} thread: median (quartiles) of a forward and backward pass"
    for (n, c, mode), part in rows.groupby(["N", "C", "mode"], sort=False):
        table = [("estimator", "ms", "", "/ gumbel_softmax", "", "peak MB", "passes")]
        for row in part[part["reason"].isna()].to_dict("records"):
            times = [f"{row[f'{name}{end}']:.3g}" for name in ("ms", "ratio") for end in _QUARTILES]
            table.append(
                (
                    row["estimator"],
                    times[0],
                    f"({times[1]}, {times[2]})",
                    times[3],
                    f"({times[4]}, {times[5]})",
                    f"{row['peak_bytes'] / 1e6:.3g}",
                    f"{row['passes']:.0f}",
                )
            )
        left_out = part.loc[part["reason"].notna(), "reason"]
        text += f"\n\n[{first['batch']}, {n}, {c}], {mode}\n{aligned(table)}"
        text += "".join(f"\nleft out: {reason}" for reason in left_out)
    for timed, part in rows.groupby("timed", sort=False):
        if timed != "layer":
            text += f"\n\nTimed by the {timed}: {', '.join(part['estimator'].unique())}."
    return text


_QUARTILES = ("", "_q25", "_q75")

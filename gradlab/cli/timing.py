"""`gradlab time`: milliseconds and memory of every estimator's layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, staging
from gradlab.cli.options import Folder, Seed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["time"]


def time(
    estimators: Annotated[
        list[str] | None,
        typer.Argument(
            help='Estimators such as ZGR or "GR(k=10)".  [default: all and GR(k=100)]',
            metavar="ESTIMATOR",
        ),
    ] = None,
    variables: Annotated[str, typer.Option(help="Numbers of variables N.")] = "2,8,32,128,512",
    classes: Annotated[str, typer.Option(help="Numbers of classes C.")] = "2,4,16,64,256",
    batch: Annotated[int, typer.Option(min=1, help="Rows of logits [batch, N, C].")] = 128,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seconds: Annotated[
        float, typer.Option(help="Time for a size, shared equally; at least 5 passes of each.")
    ] = 2.0,
    seed: Seed = 0,
    out: Annotated[Path | None, Folder] = None,
) -> None:
    """Time a forward and backward pass of every estimator's layer, beside F.gumbel_softmax.

    Classes are swept at the middle number of variables, and variables at that of classes. The rows
    name the machine. Medians and quartiles: CPU time on one thread; on cuda also CUDA Graphs.

    \b
    Example:  gradlab time --variables 32 --classes 16 --batch 512
    """
    sizes = [_numbers("--variables", variables), _numbers("--classes", classes)]
    with staging(out) as passing:
        from gradlab.estimators import parse
        from gradlab.nn.device import check_device
        from gradlab.nn.timing import check_sizes, sweeps, time_layers

        with blaming("ESTIMATOR"):
            chosen = [parse(text) for text in dict.fromkeys(estimators)] if estimators else None
        with blaming("--device"):
            check_device(device)
        with blaming("--batch, --variables, --classes"):
            swept = sweeps(*sizes)
            check_sizes(swept, batch)
        with blaming("--seconds"):
            rows = time_layers(
                chosen,
                swept,
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

            save_with_rows(rows, plot, out, "timing", passing)
            print(f"\n{out / 'timing.png'}")


def _numbers(option: str, text: str) -> list[int]:
    with blaming(option):
        try:
            numbers = sorted({int(part) for part in text.split(",")})
        except ValueError:
            raise ValueError(f"{text!r} is no list of whole numbers; write 2,8,32") from None
        if numbers[0] < 1:
            raise ValueError(f"must be at least 1, not {numbers[0]}")
    return numbers


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
    if (rows["timed"] != "layer").any():
        names = ", ".join(rows.loc[rows["timed"] != "layer", "estimator"].unique())
        text += f"\n\nWithout a sample, so timed by the surrogate of a linear f: {names}."
    return text


_QUARTILES = ("", "_q25", "_q75")

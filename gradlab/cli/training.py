"""`gradlab train`: real models with one or several estimators, over seeds, resumable."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.options import Seed, Workers
from gradlab.usage import blaming, fail, staging

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_Estimator = Annotated[str, typer.Option(help='Such as ZGR or "GR(tau=0.5, k=10)".')]
_Compare = Annotated[
    str | None,
    typer.Option(metavar="A,B,C", help="Estimators to compare, instead of --estimator."),
]
_Seeds = Annotated[int, typer.Option(min=1, help="Runs of each estimator: --seed, --seed + 1, ...")]
_Images = Annotated[
    str, typer.Option(metavar="NAME", help="Data set: digits (always there), mnist, ... (README).")
]
_Data = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Data folder.  [default: $GRADLAB_DATA, or the cache]"),
]
_Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
_Batch = Annotated[int, typer.Option(min=1, help="Images a step.")]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]
_Threads = Annotated[
    int, typer.Option(min=1, help="Of each run; the curve's last bits depend on it.")
]
_Out = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", help="Where curves and, in a folder a run, its checkpoint are written."
    ),
]


@app.callback(invoke_without_command=True)
def train(context: typer.Context) -> None:
    """Train a real model with one or several estimators; goes on where it was stopped."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.command(short_help="A discrete variational autoencoder.")
def vae(
    estimator: _Estimator = "ZGR",
    compare: _Compare = None,
    seeds: _Seeds = 1,
    latent: Annotated[str, typer.Option(help="Variables x classes.")] = "30x10",
    images: _Images = "digits",
    data: _Data = None,
    epochs: _Epochs = 500,
    batch: _Batch = 50,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-4,
    hidden: Annotated[int, typer.Option(min=1, help="Units of each hidden layer.")] = 200,
    bound_samples: Annotated[
        int, typer.Option(min=1, help="K of the importance-weighted bound at the end.")
    ] = 100,
    seed: Seed = 0,
    workers: Workers = None,
    device: _Device = "cpu",
    threads: _Threads = 1,
    out: _Out = Path("runs/vae"),
) -> None:
    """Train a VAE with N categorical latent variables of C classes; -ELBO in nats.

    Losses and times of every epoch, the importance-weighted bound at the end. Ctrl-C stops
    cleanly, and the same command goes on from the checkpoints, exactly.

    \b
    Example:  gradlab train vae --compare "ST,ZGR,RF(m=4)" --seeds 2 --lr 1e-3 --epochs 300
    """
    from gradlab.training.vae_training import VAESettings

    with blaming("--estimator, --compare, --latent, --lr"):
        settings = [
            VAESettings(
                estimator=name,
                latent=latent,
                data=images,
                seed=number,
                epochs=epochs,
                batch=batch,
                lr=lr,
                hidden=hidden,
                bound_samples=bound_samples,
            )
            for name in _names(estimator, compare)
            for number in range(seed, seed + seeds)
        ]
    columns = {
        "train_nelbo": "train -ELBO",
        "valid_nelbo": "valid -ELBO",
        "test_nelbo": "test -ELBO",
        "test_bound": "test bound",
    }
    _train("vae", settings, columns, data, workers, device, threads, out)


def _names(estimator: str, compare: str | None) -> list[str]:
    """Split at the commas outside parentheses."""
    texts = [estimator] if compare is None else re.split(r",(?![^(]*\))", compare)
    return list(dict.fromkeys(text.strip() for text in texts))


def _train(
    name: str,
    settings: Sequence[Any],
    columns: dict[str, str],
    data: Path | None,
    workers: int | None,
    device: str,
    threads: int,
    out: Path,
) -> None:
    """Do the runs, write the curves and print what was reached."""
    import pandas as pd

    from gradlab.plots.files import save_with_rows
    from gradlab.plots.training import plot
    from gradlab.processes import usable_cores
    from gradlab.training.datasets import load_images
    from gradlab.training.kinds import begin
    from gradlab.training.runs import Run, run_all, summary

    with blaming("--images, --data", (ValueError, FileNotFoundError)):
        images = load_images(settings[0].data, data)
    with blaming("--device, --estimator, --compare, --images"):
        for chosen in {one.estimator: one for one in settings}.values():
            begin(chosen, images, device)
    runs = [Run(one, out / Run.name(one), data, device, threads) for one in settings]
    cores = max(1, usable_cores() // threads) if device == "cpu" else 1
    with staging(out) as passing:
        outcomes = run_all(runs, workers or cores, progress=sys.stderr.isatty())
        curves = [outcome.curve for outcome in outcomes if outcome.error is None]
        if curves:
            rows = pd.concat(curves, ignore_index=True)
            save_with_rows(rows, plot, out, name, passing)
            print(_text(summary(rows, [*columns, "seconds"]), columns))
            print(f"\n{out / f'{name}.png'}")
    stopped = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in stopped:
        fail(f"{outcome.run.folder.name}: {outcome.error}", 1)
    if stopped:
        raise typer.Exit(1)


def _text(table: "pd.DataFrame", columns: dict[str, str]) -> str:
    """Return the summary as text: mean ± (max - min) / 2 over seeds."""
    from gradlab.tables import aligned

    lines = [("estimator", *columns.values(), "seconds")]
    for row in table.to_dict("records"):
        cells = [_cell(row, column) for column in columns]
        lines.append((row["estimator"], *cells, f"{row['seconds']:.0f}"))
    seeds, epochs = table["seeds"].max(), table["epochs"].max()
    over = f"mean ± (max - min)/2 of {seeds} seeds" if seeds > 1 else "one seed"
    return f"After {epochs} epochs, {over}.\n\n{aligned(lines)}"


def _cell(row: dict[str, Any], column: str) -> str:
    text = f"{row[column]:.4g}"
    return f"{text} ± {row[f'{column}_spread']:.2g}" if row["seeds"] > 1 else text

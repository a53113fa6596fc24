"""`gradlab train`: real models with one or several estimators, over seeds, resumable."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlab.cli.faults import blaming, blaming_one
from gradlab.cli.html_report import Report
from gradlab.cli.old_forms import Command, split_names
from gradlab.cli.options import Device, Seed, Workers
from gradlab.cli.train_runs import train_and_report

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_Estimators = Annotated[
    list[str] | None,
    typer.Argument(
        help='Estimators such as ZGR or "GR(tau=0.5, k=10)", trained side by side.  [default: ZGR]',
        metavar="ESTIMATOR",
    ),
]
_Seeds = Annotated[
    int, typer.Option(min=1, help="Runs of each estimator, with the seeds --seed, --seed + 1, ...")
]
_Images = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Data set: digits, which needs no download, or another, see docs/real-models.md.",
    ),
]
_Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of the downloaded data sets.  [default: $GRADLAB_DATA, or the cache]",
    ),
]
_Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
_Batch = Annotated[int, typer.Option(min=1, help="Images in one training step.")]
_Threads = Annotated[
    int, typer.Option(min=1, help="Torch threads per run; they change the last bits of results.")
]
_Probe = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="K", help="Steps between measurements of bias and variance.  [default: none]"
    ),
]
_Probed = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", help="Estimators that --probe measures.  [default: those trained]"
    ),
]
_ProbeSeconds = Annotated[
    float, typer.Option(min=0.001, help="Seconds that all measurements of one run may take.")
]
_Out = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Folder of the curves, with one subfolder per run for its checkpoint.",
    ),
]


@app.callback(invoke_without_command=True)
def train(context: typer.Context) -> None:
    """Train a real model with one or several estimators; continues where it was stopped."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.command(cls=Command, short_help="A discrete variational autoencoder.")
def vae(
    estimators: _Estimators = None,
    seeds: _Seeds = 1,
    latent: Annotated[
        str, typer.Option(help="Size of the latent layer, variables x classes.", metavar="NxC")
    ] = "30x10",
    images: _Images = "digits",
    data: _Data = None,
    epochs: _Epochs = 500,
    batch: _Batch = 50,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-4,
    hidden: Annotated[int, typer.Option(min=1, help="Units of each hidden layer.")] = 200,
    bound_samples: Annotated[
        int, typer.Option(min=1, help="Samples in the importance-weighted bound at the end.")
    ] = 100,
    objective: Annotated[
        str,
        typer.Option(
            help="What is raised: elbo, iwae (the bound of --k samples), or elbo,iwae to train "
            "each estimator on those that know it.",
            metavar="elbo|iwae",
        ),
    ] = "elbo",
    k: Annotated[
        int | None, typer.Option(min=1, help="Samples in the objective iwae.  [default: 5]")
    ] = None,
    seed: Seed = 0,
    probe: _Probe = None,
    probe_estimators: _Probed = None,
    probe_seconds: _ProbeSeconds = 600,
    workers: Workers = None,
    device: Device = "cpu",
    threads: _Threads = 1,
    out: _Out = Path("runs/vae"),
    report: Report = False,
) -> None:
    """Train a VAE with N categorical latent variables of C classes; -ELBO in nats.

    The rows hold losses and times of every epoch, and the importance-weighted bound at the end.
    Ctrl-C stops cleanly, and the same command continues from the checkpoints, exactly. With --probe
    gradients of several estimators are measured on the model as it trains: exactly if the latent
    layer has no more than 4096 states, else against a long unbiased run. The objective iwae has
    estimators of its own, such as VIMCO, "OVIS(gamma=0)", LE and ZGR: see
    docs/how-to/bounds.md.

    \b
    Example:  gradlab train vae ST ZGR "RF(m=4)" --seeds 2 --lr 1e-3 --epochs 300
    Example:  gradlab train vae ZGR VIMCO --objective elbo,iwae --k 5
    """
    from gradlab.estimators import parse
    from gradlab.training.vae_training import VAESettings

    names = list(dict.fromkeys(estimators or ["ZGR"]))
    with blaming("--objective, --k"):
        objectives = _objectives(objective, k, probe)
    with blaming_one("ESTIMATOR", "--latent", "--lr"):
        pairs = _pairs(names, objectives)
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
                objective=raised,
                k=(k or 5) if raised == "iwae" else 1,
            )
            for name, raised in pairs
            for number in range(seed, seed + seeds)
        ]
    columns = {
        "train_nelbo": "train -ELBO",
        "valid_nelbo": "valid -ELBO",
        "test_nelbo": "test -ELBO",
        "test_bound": "test bound",
    }
    probing = None
    if probe is not None:
        measured = names if probe_estimators is None else split_names(probe_estimators)
        with blaming("--probe-estimators"):
            for text in measured if probe_estimators is not None else ():
                parse(text)
        probing = {"estimators": measured, "every": probe, "seconds": probe_seconds}
        # A long training has the time for accurate probes.
        probing |= {"draws": 512, "reference_draws": 8192}
    train_and_report("vae", settings, columns, data, workers, device, threads, out, probing, report)


def _objectives(text: str, k: int | None, probe: int | None) -> list[str]:
    """Return the objectives of a training, if the other options go with them."""
    from gradlab.checks import check_choice
    from gradlab.training.vae_training import OBJECTIVES

    found = list(dict.fromkeys(split_names(text)))
    for one in found:
        check_choice("objective", one, OBJECTIVES)
    if k is not None and "iwae" not in found:
        raise ValueError("k is the number of samples of the objective iwae: add --objective iwae")
    if probe is not None and "iwae" in found:
        raise ValueError("--probe measures the reconstruction term of elbo: leave out iwae")
    return found


def _pairs(names: list[str], objectives: list[str]) -> list[tuple[str, str]]:
    """Return each estimator with the objectives that know it, with the only one in any case."""
    from gradlab.bounds import parse as parse_bound
    from gradlab.estimators import parse

    found: list[tuple[str, str]] = []
    for name in names:
        known = []
        for objective in objectives:
            try:
                (parse_bound if objective == "iwae" else parse)(name)
                known.append(objective)
            except ValueError:
                pass
        found += [(name, objective) for objective in known or objectives]
    return found


@app.command(cls=Command, short_help="A network with stochastic quantized activations or weights.")
def network(
    estimators: _Estimators = None,
    seeds: _Seeds = 1,
    model: Annotated[str, typer.Option(help="Network: mlp or conv.", metavar="mlp|conv")] = "mlp",
    levels: Annotated[int, typer.Option(min=2, help="Levels of each quantized number.")] = 2,
    activations: Annotated[bool, typer.Option(help="Whether activations are quantized.")] = True,
    weights: Annotated[bool, typer.Option(help="Whether weights are quantized.")] = False,
    images: _Images = "digits",
    data: _Data = None,
    epochs: _Epochs = 200,
    batch: _Batch = 50,
    lr: Annotated[
        str,
        typer.Option(
            help="Learning rate of Adam, divided by 10 after epochs 100 and 150; of several, such "
            "as 1e-3,3.3e-4, the best is shown.",
            metavar="LR,...",
        ),
    ] = "1e-3",
    samples: Annotated[
        int, typer.Option(min=1, help="Samples whose mean predicts, as an ensemble, at the end.")
    ] = 10,
    seed: Seed = 0,
    workers: Workers = None,
    device: Device = "cpu",
    threads: _Threads = 1,
    out: _Out = Path("runs/network"),
    report: Report = False,
) -> None:
    """Train a classifier whose units are drawn from L levels; errors in percent.

    Of several learning rates each estimator is shown at the one with the smallest validation error,
    the mean over seeds. Errors are those of one sample of all units, of every unit at its most
    probable level, and of the mean prediction of several samples. The same command continues from
    the checkpoints.

    \b
    Example:  gradlab train network ST GS-ST ZGR --epochs 30 --seeds 2
    """
    from gradlab.training.network_training import NetworkSettings

    names = list(dict.fromkeys(estimators or ["ZGR"]))
    with blaming("--lr"):
        rates = [_rate(text) for text in lr.split(",")]
    with blaming_one("ESTIMATOR", "--model", "--levels", "--activations", "--weights", "--lr"):
        settings = [
            NetworkSettings(
                estimator=name,
                model=model,
                levels=levels,
                activations=activations,
                weights=weights,
                data=images,
                seed=number,
                epochs=epochs,
                batch=batch,
                lr=rate,
                samples=samples,
            )
            for name in names
            for rate in rates
            for number in range(seed, seed + seeds)
        ]
    columns = {
        "loss": "train loss",
        "valid_mode_error": "valid, mode",
        "test_sample_error": "test, sample",
        "test_mode_error": "mode",
        "test_ensemble_error": "ensemble",
    }
    train_and_report(
        "network", settings, columns, data, workers, device, threads, out, None, report
    )


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write for example 1e-3,3.3e-4,1e-4") from None

"""A discrete VAE trained on the package's digits: losses, and bias and variance through training.

Latent of 4 variables and 4 classes, so that all 256 states can be enumerated; 200 images.

All runs have the same number of steps; a step of RF(4) evaluates the decoder four times. Gradients
are those of the reconstruction term in the logits of 10 images, on the model that ZGR trains. GS-ST
and GR have the same mean, so that their bias is one curve.
"""

import pandas as pd
from matplotlib.figure import Figure

from gradlab.plots.panels import WIDTHS
from gradlab.plots.probe import draw_probed, probe_key
from gradlab.plots.style import looks, styled
from gradlab.plots.training import draw_curves, estimator_handles

__all__ = ["plot", "rows"]

ESTIMATORS = ("ST", "GS-ST(tau=0.5)", "GR(tau=0.5, k=10)", "ZGR", "RF(m=4)", "ARSM")
PROBED = "ZGR"
PANELS = ("bias", "sd", "progress")


def rows(
    seed: int = 0,
    *,
    epochs: int = 60,
    seeds: int = 2,
    every: int = 30,
    draws: int = 256,
    latent: str = "4x4",
) -> pd.DataFrame:
    """Return one row per epoch of each run and one per measurement of the probe.

    Args:
        seed: the first seed; a seed chooses weights, order of images and samples.
        epochs: how often each run sees all images.
        seeds: how many runs each estimator has, with the seeds from `seed` on.
        every: number of steps from one measurement to the next.
        draws: how many draws a measurement takes where it is not exact.
        latent: variables and classes, as NxC.

    Returns:
        Rows whose column `part` is "curve" or "probe".
    """
    from gradlab.data.datasets import load_images
    from gradlab.nn.probe import GradientProbe
    from gradlab.reproducible import single_thread
    from gradlab.training.loop import train
    from gradlab.training.vae_training import VAESettings, VAETraining

    images = load_images("digits")
    found = []
    with single_thread():
        for estimator in ESTIMATORS:
            for number in range(seed, seed + seeds):
                probe = None
                if estimator == PROBED and number == seed:
                    probe = GradientProbe(ESTIMATORS, every=every, draws=draws, seed=seed)
                settings = VAESettings(
                    estimator, latent, seed=number, epochs=epochs, lr=2e-3, hidden=64
                )
                training = VAETraining(settings, images, probe=probe)
                curve = train(training).drop(columns=["seconds", "machine"])
                found.append(curve.assign(part="curve"))
                if probe is not None:
                    measured = probe.rows.drop(columns="seconds")
                    found.append(measured.assign(part="probe", trained=estimator))
    return pd.concat(found, ignore_index=True)


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: the losses, then what the probe measured."""
    curves, probed = rows[rows["part"] == "curve"], rows[rows["part"] == "probe"]
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 5.4))
        axes = figure.subplots(2, (2 + len(PANELS)) // 2).flat
        draw_curves(axes[0], curves, "epoch", "train_nelbo")
        axes[0].set_ylabel("training -ELBO (nats)")
        own = looks(curves["estimator"])
        for ax, quantity in zip(axes[1:], PANELS, strict=True):
            draw_probed(ax, probed, quantity, own)
            ax.set_xlabel("step")
        entries = [*estimator_handles(curves), *probe_key(probed)]
        figure.legend(handles=entries, loc="outside lower center", ncols=4)
        first, measured = curves.iloc[0], probed.iloc[0]
        drawn = ", ".join(dict.fromkeys(probed.loc[probed["method"] != "exact", "estimator"]))
        figure.suptitle(
            f"VAE on {first['data']}, latent {first['latent']}: losses of "
            f"{curves['seed'].nunique()} seeds (mean, range);\none draw on {measured['batch']:.0f} "
            f"images while {measured['trained']} trains: exact, but {drawn} from "
            f"{probed['draws'].max():.0f} draws ± 1 s.e.",
            fontsize=8,
        )
    return figure

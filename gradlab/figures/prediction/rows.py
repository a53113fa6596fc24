"""The losses that training reached, the criteria on reference runs, and how well these predict.

The digits VAE, a quantized classifier, Tucker's toys and polynomial programming are trained here;
binarized MNIST stands with the rows of the figures vae-mnist and vae-probed.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.comparison.eligibility import cost
from gradlab.estimators import parse
from gradlab.figures.prediction.correlations import correlations
from gradlab.figures.prediction.measuring import AVERAGED
from gradlab.figures.prediction.study import Job, Study, default_store, perform
from gradlab.figures.prediction.tasks import COST, TASKS
from gradlab.training.vae import read_latent
from gradlab.version import __version__

__all__ = ["MNIST", "collected", "mnist", "rows"]

MNIST = "binarized MNIST 30x10"
# Moments of the probe on MNIST: the nearest to those of the other tasks.
_PROBED = {
    "start": 0,
    "early": 2000,
    "quarter": 4000,
    "middle": 8000,
    "later": 18000,
    "late": 28000,
}


def rows(
    seed: int = 0,
    *,
    study: Study | None = None,
    store: Path | None = None,
    committed: Path = Path("figures"),
) -> pd.DataFrame:
    """Return the losses, the criteria and their correlations; about an hour where nothing is done.

    Args:
        seed: the first of three seeds, where no `study` is given.
        study: tasks, estimators and seeds; by default all of them.
        store: the folder in which finished runs are kept and found, by default in the cache.
        committed: the folder with vae-mnist.csv and vae-probed.csv. Without them MNIST is left out.

    Returns:
        Rows whose column `kind` is "loss", "criterion" or "correlation".
    """
    study = Study(seeds=range(seed, seed + 3)) if study is None else study
    store = default_store() if store is None else store
    perform(study, store)
    losses, criteria = collected(study, store)
    of_mnist = mnist(committed)
    if of_mnist is not None:
        losses, criteria = (
            pd.concat(pair, ignore_index=True)
            for pair in zip((losses, criteria), of_mnist, strict=True)
        )
    parts = {"loss": losses, "criterion": criteria, "correlation": correlations(losses, criteria)}
    found = [part.assign(kind=kind) for kind, part in parts.items()]
    return pd.concat(found, ignore_index=True).assign(version=__version__)


def collected(study: Study, store: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return losses and criteria of the jobs in the store: of whole seeds of a task, no others.

    Args:
        study: what was to be done.
        store: the folder of the finished runs, which may lack some.

    Returns:
        What `correlations` takes.
    """
    jobs = study.jobs()
    missing = {(job.task, job.seed) for job in jobs if not (store / job.path).exists()}
    losses, criteria = [], []
    for task in study.tasks:
        costs = {text: cost_of(text, TASKS[task].C, TASKS[task].N) for text in study.usable(task)}
        for job in jobs:
            if job.task != task or (job.task, job.seed) in missing:
                continue
            found = pd.read_csv(store / job.path).drop(columns="seconds")
            if job.estimator is None:
                found = found.rename(columns={"part": "gradient"})
                criteria.append(found.assign(task=task, seed=job.seed))
            else:
                losses.append(_ends(found, job, costs))
    return pd.DataFrame(losses), pd.concat(criteria, ignore_index=True)


def cost_of(text: str, classes: int, variables: int) -> float:
    """Return the evaluations of f that a gradient counts as, f with its gradient 3."""
    return cost(parse(text), classes, variables=variables)


def _ends(curve: pd.DataFrame, job: Job, costs: dict[str, float]) -> dict[str, object]:
    """Return the loss after the steps of the task, and after the cost of so many of ST."""
    assert job.estimator is not None
    steps = TASKS[job.task].steps
    paid = steps * COST / costs[job.estimator]
    reason = curve["reason"].dropna()
    return {
        "task": job.task,
        "estimator": job.estimator,
        "lr": job.lr,
        "seed": job.seed,
        "cost": costs[job.estimator],
        "steps": steps,
        "loss_steps": np.interp(steps, curve["step"], curve["train_loss"]),
        "loss_cost": np.interp(paid, curve["step"], curve["train_loss"]),
        "reason": reason.iloc[0] if len(reason) else None,
    }


def mnist(committed: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return losses and criteria of binarized MNIST from the rows of two figures, or None.

    The criteria were measured on a smaller latent, 6x4, where the truth is known; moments are those
    of the probe nearest to the shares of the other tasks. Learning rates were not chosen there.
    """
    paths = committed / "vae-mnist.csv", committed / "vae-probed.csv"
    if not all(path.exists() for path in paths):
        return None
    curves, probed = (pd.read_csv(path) for path in paths)
    variables, classes = read_latent(curves["latent"].iloc[0])
    costs = {text: cost_of(text, classes, variables) for text in curves["estimator"].unique()}
    losses = []
    for (text, lr, seed), curve in curves.groupby(["estimator", "lr", "seed"], sort=False):
        steps = curve["step"].max()
        paid = steps * COST / costs[text]
        about = {"task": MNIST, "estimator": text, "lr": lr, "seed": seed, "cost": costs[text]}
        ends = {"steps": steps, "loss_steps": curve["train_nelbo"].iloc[-1]}
        ends["loss_cost"] = np.interp(paid, curve["step"], curve["train_nelbo"])
        losses.append(about | ends)
    reference = curves[(curves["estimator"] == "ZGR") & (curves["seed"] == curves["seed"].min())]
    criteria = []
    for snapshot, step in _PROBED.items():
        found = probed[probed["step"] == step].reset_index(drop=True)
        part = found[["estimator", "step", "method", "truth2", "cosine"]].assign(
            task=MNIST, snapshot=snapshot, seed=0, gradient="estimated", trained="ZGR"
        )
        part["reference_loss"] = np.interp(step, reference["step"], reference["train_nelbo"])
        for averaged in AVERAGED:
            noise = found["scale_free_variance"] / found["truth2"] / averaged
            part[f"progress {averaged}"] = found["cosine"] * found["cosine"].abs() / (1 + noise)
            error = found["bias2"] + found["variance"] / averaged
            part[f"error {averaged}"] = error / found["truth2"]
        criteria.append(part)
    return pd.DataFrame(losses), pd.concat(criteria, ignore_index=True)

"""Several training runs in parallel processes, one folder each; their curves, and their summary.

The summary of an estimator over seeds is the mean, and half the distance of best and worst.
"""

import multiprocessing
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gradlab.parallel import processes
from gradlab.plots.names import trained_labels
from gradlab.progress import Progress, say

if TYPE_CHECKING:
    from gradlab.data.datasets import Images
    from gradlab.training.base import Training

__all__ = ["Outcome", "Run", "at_best_rate", "begin", "run_all", "summary"]


@dataclass(frozen=True)
class Run:
    """One run to be done.

    Args:
        settings: `VAESettings` or `NetworkSettings`.
        folder: The folder of its checkpoints.
        data: The folder of the data sets; None for the default one.
        device: "cpu", "cuda" or "cuda:1".
        threads: The number of torch's threads; it changes the time and the last bits of the curve.
        probe: Arguments of the `GradientProbe` that measures during the run, or None.
    """

    settings: Any
    folder: Path
    data: Path | None = None
    device: str = "cpu"
    threads: int = 1
    probe: dict[str, Any] | None = None

    @staticmethod
    def name(settings: Any) -> str:
        """Return the name of the run's folder, such as ZGR-lr0.0001-seed0.

        Args:
            settings: The settings of the run.

        Returns:
            A name from estimator, learning rate and seed, with the objective iwae and its k.
        """
        estimator = re.sub(r"[^\w.-]+", "-", settings.estimator).strip("-")
        is_bound = getattr(settings, "objective", "elbo") == "iwae"
        bound = f"iwae{settings.k}-" if is_bound else ""
        return f"{bound}{estimator}-lr{settings.lr:g}-seed{settings.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        run: The run.
        curve: Its curve, one row per epoch.
        probed: The rows of its probe.
        error: Why it stopped, or None.
    """

    run: Run
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    probed: pd.DataFrame = field(default_factory=pd.DataFrame)
    error: str | None = None


def begin(
    settings: Any, images: "Images", device: str = "cpu", probe: dict[str, Any] | None = None
) -> "Training":
    """Return the training of these settings on these images, at its first step.

    Args:
        settings: `VAESettings` or `NetworkSettings`; their type chooses the kind of training.
        images: The data set, as `gradlab.data.load_images` returns it.
        device: "cpu", "cuda" or "cuda:1".
        probe: Arguments of the `GradientProbe` that measures during the training, or None.

    Returns:
        The training, which `gradlab.training.loop.train` runs.

    Raises:
        ValueError: If the device is absent, or the settings do not fit the images.

    Example:
        >>> from gradlab.data import load_images
        >>> from gradlab.training.vae_training import VAESettings
        >>> training = begin(VAESettings("ZGR", latent="2x3"), load_images("digits"))
        >>> training.kind, training.steps_per_epoch
        ('vae', 4)
    """
    from gradlab.nn.device import check_device
    from gradlab.nn.probe import GradientProbe
    from gradlab.training.network_training import NetworkSettings, NetworkTraining
    from gradlab.training.vae_training import VAESettings, VAETraining

    kinds: dict[type, Any] = {VAESettings: VAETraining, NetworkSettings: NetworkTraining}
    training: Training = kinds[type(settings)](settings, images, device=check_device(device))
    if probe is not None:
        training.probe = GradientProbe(**probe, model=training.model, seed=settings.seed)
    return training


def run_all(runs: Sequence[Run], workers: int, progress: bool = False) -> list[Outcome]:
    """Do the runs in parallel processes and return how they ended, in the same order.

    A run continues from the checkpoint in its folder. One that stops does not stop the others. An
    interrupt lets each run save its state first. A single worker is this process; others are
    spawned, so a script calls this under `if __name__ == "__main__"`.

    Args:
        runs: The runs.
        workers: The number of processes.
        progress: Whether to show a progress bar on stderr.

    Returns:
        One outcome per run.

    Example:
        >>> import tempfile
        >>> from gradlab.training.vae_training import VAESettings
        >>> settings = VAESettings("ZGR", latent="2x3", epochs=1, hidden=8, bound_samples=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (outcome,) = run_all([Run(settings, Path(folder))], workers=1)
        >>> outcome.error, len(outcome.curve)
        (None, 1)
    """
    with Progress(f"{len(runs)} runs", 0, "steps", shown=progress) as bar:
        totals: list[int] = []  # of the runs that have begun

        def report(total: int, more: int) -> None:
            if total:
                totals.append(total)
                bar.total = sum(totals) * len(runs) // len(totals)
            bar.add(more)

        if min(workers, len(runs)) == 1:
            return [_do(run, report) for run in runs]
        return _in_processes(runs, workers, report, progress)


def _in_processes(
    runs: Sequence[Run], workers: int, report: Callable[[int, int], None], progress: bool
) -> list[Outcome]:
    ended: dict[int, Outcome] = {}
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, processes(min(workers, len(runs))) as pool:
        steps = manager.Queue()
        waiting: dict[Future[Outcome], int] = {
            pool.submit(_do, run, partial(_put, steps)): number for number, run in enumerate(runs)
        }
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            while not steps.empty():
                report(*steps.get())
            for future in done:
                number = waiting.pop(future)
                died = future.exception()  # of the process, which may lack memory
                ended[number] = (
                    Outcome(runs[number], error=f"{type(died).__name__}: {died}")
                    if died
                    else future.result()
                )
                if progress and sys.stderr.isatty():
                    how = ended[number].error or "done"
                    say(f"{Run.name(runs[number].settings)}: {how}")
    return [ended[number] for number in range(len(runs))]


def _put(steps: Any, total: int, more: int) -> None:
    steps.put((total, more))


def _do(run: Run, report: Callable[[int, int], None]) -> Outcome:
    """Do one run in this process; a fault is returned, not raised."""
    import torch

    from gradlab.data.datasets import load_images
    from gradlab.training.checkpoint import CheckpointError
    from gradlab.training.loop import TrainingError, train

    threads = torch.get_num_threads()
    torch.set_num_threads(run.threads)
    try:
        images = load_images(run.settings.data, run.data)
        training = begin(run.settings, images, run.device, run.probe)
        total = training.settings.epochs * training.steps_per_epoch
        report(total, 0)
        reported = 0

        def after_step(step: int) -> None:
            nonlocal reported
            # A message to another process costs as much as a small step.
            if step - reported >= _REPORTED_EVERY or step == total:
                report(0, step - reported)
                reported = step

        curve = train(training, run.folder, after_step=after_step)
    except (TrainingError, CheckpointError, OSError, ValueError) as fault:
        return Outcome(run, error=str(fault))
    finally:
        torch.set_num_threads(threads)
    probed = pd.DataFrame() if training.probe is None else training.probe.rows
    return Outcome(run, curve, _with_settings(probed, run.settings))


_REPORTED_EVERY = 20


def _with_settings(probed: pd.DataFrame, settings: Any) -> pd.DataFrame:
    """Return rows of a probe with the settings of the training that it measured.

    `batch` stays what it is in every row: the elements that were measured. What the training takes
    in one step is `train_batch`.
    """
    names = {"trained": "estimator", "data": "data", "seed": "seed", "latent": "latent", "lr": "lr"}
    names |= {"train_batch": "batch"}
    known = {name: getattr(settings, of) for name, of in names.items() if hasattr(settings, of)}
    return probed.assign(**known)


def at_best_rate(curves: pd.DataFrame) -> pd.Series:
    """Return for each row whether its estimator is best at this learning rate.

    Best is the smallest mean over seeds of the validation error at the last epoch. An estimator
    that was trained at one rate is best there.

    Args:
        curves: Rows of `train`.

    Returns:
        One bool per row.

    Example:
        >>> curves = pd.DataFrame({"estimator": "ZGR", "lr": [1e-3, 1e-4], "seed": 0, "epoch": 5})
        >>> at_best_rate(curves.assign(valid_mode_error=[0.2, 0.1])).tolist()
        [False, True]
    """
    from gradlab.training.network_training import best_learning_rate

    chosen = pd.Series(True, index=curves.index)
    for _, part in curves.groupby("estimator"):
        if part["lr"].nunique() > 1:
            chosen[part.index] = part["lr"] == best_learning_rate(part)
    return chosen


def summary(curves: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return one row per estimator, with the mean over seeds of each column at the last epoch.

    Args:
        curves: Rows of `train`, of several estimators and seeds.
        columns: The columns to summarize.

    Returns:
        The rows: `seeds` counts the seeds, and `<column>_spread` is (max - min) / 2 over them.
        Where some rows are of the objective iwae, `estimator` names the objective too.

    Example:
        >>> curves = pd.DataFrame({"estimator": "ZGR", "seed": [0, 1], "epoch": 5, "step": 20})
        >>> summary(curves.assign(loss=[1.0, 2.0]), ["loss"]).to_dict("records")
        [{'estimator': 'ZGR', 'seeds': 2, 'epochs': 5, 'loss': 1.5, 'loss_spread': 0.5}]
    """
    curves = curves.assign(estimator=trained_labels(curves))
    last = curves.sort_values("step").groupby(["estimator", "seed"], sort=False).tail(1)
    groups = last.groupby("estimator", sort=False)
    table = {"seeds": groups.size(), "epochs": groups["epoch"].min()}
    for column in columns:
        table[column] = groups[column].mean()
        table[f"{column}_spread"] = (groups[column].max() - groups[column].min()) / 2
    return pd.DataFrame(table).loc[list(dict.fromkeys(curves["estimator"]))].reset_index()

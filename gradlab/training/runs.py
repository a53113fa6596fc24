"""Several training runs in parallel processes, a folder each; their curves, and a summary of them.

The summary of an estimator over seeds: the mean, and half the distance of best and worst.
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
from gradlab.progress import Progress, say

if TYPE_CHECKING:
    from gradlab.data.datasets import Images
    from gradlab.training.base import Training

__all__ = ["Outcome", "Run", "at_best_rate", "begin", "run_all", "summary"]


@dataclass(frozen=True)
class Run:
    """One run to be done: its settings, the folder of its state and the folder of its data.

    `probe` holds the arguments of the `GradientProbe` that goes along, None for no probe; `device`
    is cpu or cuda; `threads` of torch change the time and the last bits of the curve.
    """

    settings: Any
    folder: Path
    data: Path | None = None
    device: str = "cpu"
    threads: int = 1
    probe: dict[str, Any] | None = None

    @staticmethod
    def name(settings: Any) -> str:
        """Return the name of the run's folder, such as ZGR-lr0.0001-seed0."""
        estimator = re.sub(r"[^\w.-]+", "-", settings.estimator).strip("-")
        return f"{estimator}-lr{settings.lr:g}-seed{settings.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its curve and the rows of its probe, or why it stopped (`error`)."""

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
    """Do the runs in `workers` processes and return how they ended, in the same order.

    A run goes on from the state in its folder. One that stops does not stop the others. An
    interrupt lets each run save its state first. A single worker is this process; others are
    spawned: a script calls this under `if __name__ == "__main__"`.
    """
    with Progress(f"{len(runs)} runs", 0, "steps", shown=progress) as bar:
        totals: list[int] = []  # of the runs that have begun

        def tell(total: int, more: int) -> None:
            if total:
                totals.append(total)
                bar.total = sum(totals) * len(runs) // len(totals)
            bar.add(more)

        if min(workers, len(runs)) == 1:
            return [_do(run, tell) for run in runs]
        return _in_processes(runs, workers, tell, progress)


def _in_processes(
    runs: Sequence[Run], workers: int, tell: Callable[[int, int], None], progress: bool
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
                tell(*steps.get())
            for future in done:
                number = waiting.pop(future)
                died = future.exception()  # the process, say for want of memory
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


def _do(run: Run, tell: Callable[[int, int], None]) -> Outcome:
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
        tell(total, 0)
        told = 0

        def after_step(step: int) -> None:
            nonlocal told
            # Telling another process costs as much as a small step.
            if step - told >= _TOLD_EVERY or step == total:
                tell(0, step - told)
                told = step

        curve = train(training, run.folder, after_step=after_step)
    except (TrainingError, CheckpointError, OSError, ValueError) as fault:
        return Outcome(run, error=str(fault))
    finally:
        torch.set_num_threads(threads)
    probed = pd.DataFrame() if training.probe is None else training.probe.rows
    settings = {name: getattr(run.settings, name) for name in ("data", "seed")}
    return Outcome(run, curve, probed.assign(trained=run.settings.estimator, **settings))


_TOLD_EVERY = 20


def at_best_rate(curves: pd.DataFrame) -> pd.Series:
    """Return for each row whether its estimator is best at this learning rate.

    By validation error, the mean over seeds, where an estimator was trained at several.
    """
    from gradlab.training.network_training import best_learning_rate

    chosen = pd.Series(True, index=curves.index)
    for _, part in curves.groupby("estimator"):
        if part["lr"].nunique() > 1:
            chosen[part.index] = part["lr"] == best_learning_rate(part)
    return chosen


def summary(curves: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return a row an estimator: for each column its mean over seeds at the last epoch, and spread.

    The spread, `<column>_spread`, is (max - min) / 2 over the seeds; `seeds` counts them.
    """
    last = curves.sort_values("step").groupby(["estimator", "seed"], sort=False).tail(1)
    groups = last.groupby("estimator", sort=False)
    table = {"seeds": groups.size(), "epochs": groups["epoch"].min()}
    for column in columns:
        table[column] = groups[column].mean()
        table[f"{column}_spread"] = (groups[column].max() - groups[column].min()) / 2
    return pd.DataFrame(table).loc[list(dict.fromkeys(curves["estimator"]))].reset_index()

"""The runs of the study: what there is to do, a store that it resumes from, and doing it.

Every job writes one file at once and whole, so that an interrupt loses the job in hand alone.
`python -m gradlab.figures.prediction.study STORE` does what is left.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pandas as pd

from gradlab.data.cache import cache_folder
from gradlab.figures.prediction.measuring import measured
from gradlab.figures.prediction.tasks import REFERENCE, TASKS
from gradlab.files import writing
from gradlab.progress import Progress, say
from gradlab.reproducible import single_thread
from gradlab.training.loop import TrainingError
from gradlab.version import __version__

__all__ = ["ESTIMATORS", "SHARES", "Job", "Study", "default_store", "perform"]

ESTIMATORS = (
    "EMA",
    "RF(m=4)",
    "RF(m=10)",
    "ARSM",
    "DisARM",
    "ST",
    "DARN",
    "ZGR",
    "ST-ZGR",
    "GST",
    "GS(tau=0.5)",
    "GS-ST(tau=0.1)",
    "GS-ST(tau=0.5)",
    "GS-ST(tau=1)",
    "GS-ST(tau=3.2)",
    "GR(tau=0.5, k=10)",
    "GR(tau=3.2, k=10)",
)
"""DisARM is for two classes, ARSM for more."""

SHARES = {"start": 0.0, "early": 0.05, "quarter": 0.15, "middle": 0.3, "later": 0.6, "late": 1.0}
"""Moments of a reference run by name, as shares of its steps."""


@dataclass(frozen=True)
class Job:
    """One training run, or the measurements on one reference run (no estimator)."""

    task: str
    seed: int
    estimator: str | None = None
    lr: float = 0.0

    @property
    def path(self) -> Path:
        """Where its rows lie in the store."""
        what = "reference" if self.estimator is None else f"{self.estimator}-lr{self.lr:g}"
        plain = (re.sub(r"[^\w.-]+", "-", text).strip("-") for text in (self.task, what))
        return Path(*plain, f"seed{self.seed}.csv")


@dataclass(frozen=True)
class Study:
    """What decides the rows: tasks, estimators, seeds, and draws where moments are not exact."""

    tasks: Sequence[str] = tuple(TASKS)
    estimators: Sequence[str] = ESTIMATORS
    seeds: Sequence[int] = (0, 1, 2)
    draws: int = 2048
    rates: int = 3
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))

    def usable(self, task: str) -> list[str]:
        """Return the estimators for the classes of a task, in their text form."""
        other = "ARSM" if TASKS[task].C == 2 else "DisARM"
        return [text for text in self.estimators if text != other]

    def jobs(self) -> list[Job]:
        """Return all jobs: the first task whole, then the others seed by seed."""
        found = []
        for number, task in enumerate(self.tasks):
            for seed in self.seeds:
                at = (number > 0 and seed + 1, number)
                found.append((at, Job(task, seed)))
                for estimator in self.usable(task):
                    for lr in TASKS[task].rates[: self.rates]:
                        found.append((at, Job(task, seed, estimator, lr)))
        return [job for _, job in sorted(found, key=lambda pair: pair[0])]


def default_store() -> Path:
    """Return the folder of the store for users who name none."""
    return cache_folder() / "prediction"


def perform(study: Study, store: Path, *, progress: bool = False) -> None:
    """Do the jobs whose files are not in the store, on one thread.

    Args:
        study: what there is to do.
        store: a folder, made if it is missing. It may lack any files, and goes on from those there.
        progress: print the plan with its expected time, and show progress on stderr.

    Raises:
        ValueError: if the store is of another version or other settings.
        OSError: if the store cannot be written.
    """
    jobs = study.jobs()
    check_store(study, store)
    todo = [job for job in jobs if not (store / job.path).exists()]
    if progress:
        say(_plan(jobs, todo, store))
    with (
        single_thread(),
        Progress(
            "prediction", len(jobs), "jobs", shown=progress, done=len(jobs) - len(todo)
        ) as bar,
    ):
        for job in todo:
            bar.note = f"{job.task} {job.estimator or 'reference'}"
            started = perf_counter()
            rows = pd.DataFrame(list(_done(study, job)))
            write(rows.assign(seconds=perf_counter() - started), store / job.path)
            bar.add()


def _done(study: Study, job: Job) -> Iterator[dict[str, object]]:
    task = TASKS[job.task]
    if job.estimator is None:
        rate = task.rates[1]
        taken = task.snapshots(list(study.shares.values()), rate, job.seed)
        for name, snapshot in zip(study.shares, taken, strict=True):
            for row in measured(snapshot, study.usable(job.task), study.draws, job.seed):
                yield {"snapshot": name, "trained": REFERENCE} | row
        return
    try:
        for step, loss in task.curve(job.estimator, job.lr, job.seed):
            yield {"step": step, "train_loss": loss, "reason": None}
    except TrainingError as fault:
        yield {"step": task.steps, "train_loss": float("inf"), "reason": str(fault)}


def check_store(study: Study, store: Path) -> None:
    """Raise ValueError if the store was made with another version, sizes or draws."""
    sizes = {name: repr(TASKS[name]) for name in TASKS}
    here = {"version": __version__, "tasks": sizes, "draws": study.draws, "shares": study.shares}
    path = store / "settings.json"
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in here if there.get(key) != here[key]]
        if differing:
            raise ValueError(
                f"{store} was made with another {', '.join(differing)}: name another store"
            )
        return
    store.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(here, indent=1), encoding="utf-8")


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows of a job: the file appears at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path.parent) as new:
        rows.to_csv(new / path.name, index=False)


def _plan(jobs: Sequence[Job], todo: Sequence[Job], store: Path) -> str:
    """Return how many jobs are done and to do, and how long they take by the seconds of others."""
    return (
        f"{len(jobs)} jobs into {store}, {len(todo)} to do: about "
        f"{_expected_seconds(jobs, todo, store) / 60:.0f} min on one core"
    )


# Seconds of a job where none of its task is done: measured on one core of an AMD EPYC.
_RUN_SECONDS, _REFERENCE_SECONDS = 1.5, 60.0


def _expected_seconds(jobs: Sequence[Job], todo: Sequence[Job], store: Path) -> float:
    known: dict[tuple[str, bool], list[float]] = {}
    for job in jobs:
        if (store / job.path).exists():
            spent = float(pd.read_csv(store / job.path, usecols=["seconds"])["seconds"].iloc[0])
            known.setdefault((job.task, job.estimator is None), []).append(spent)

    def expected(job: Job) -> float:
        same = known.get((job.task, job.estimator is None))
        if same:
            return sum(same) / len(same)
        return _REFERENCE_SECONDS if job.estimator is None else _RUN_SECONDS

    return sum(expected(job) for job in todo)


if __name__ == "__main__":
    try:
        perform(Study(), Path(*sys.argv[1:]) if sys.argv[1:] else default_store(), progress=True)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
    except (ValueError, OSError) as fault:
        sys.exit(str(fault))

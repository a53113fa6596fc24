"""The training loop: optimizer steps, one row per epoch, and checkpoints to continue from exactly.

An interrupt takes effect between two steps, so that a checkpoint always holds a whole step.
"""

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn

from gradlab.nn.device import machine_name
from gradlab.passes import keep_memory
from gradlab.progress import Progress, say
from gradlab.training.base import Training
from gradlab.training.checkpoint import (
    CheckpointError,
    check_settings,
    read_checkpoint,
    write_checkpoint,
)
from gradlab.version import __version__

__all__ = ["CHECKPOINT", "TrainingError", "train"]

CHECKPOINT = "checkpoint.pt"


class TrainingError(RuntimeError):
    """A training that cannot go on; the message names its step and estimator."""


def train(
    training: Training,
    folder: Path | None = None,
    *,
    save_seconds: float = 60.0,
    progress: bool = False,
    after_step: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Train to the last epoch and return the curve, one row per epoch.

    `loss` is the mean of the trained loss over the epoch. `seconds` is the time spent in steps so
    far, without that of the probe. Everything else is a function of the settings and, to the last
    bit, of the machine and its number of threads.

    Args:
        training: What is trained, as `gradlab.training.runs.begin` returns it.
        folder: Where checkpoints are kept: after every epoch, every `save_seconds` and on an
            interrupt. A training continues from a checkpoint that is there, also with more epochs
            than before. None keeps nothing.
        save_seconds: Seconds between two checkpoints within an epoch.
        progress: Whether to show a progress bar on stderr.
        after_step: A function that is called after each step with the number of steps done.

    Returns:
        The curve, with the settings beside each row.

    Raises:
        TrainingError: If a loss or gradient is not finite; the state before that step is saved.
        CheckpointError: If a checkpoint is damaged or of other settings.
        OSError: If the folder cannot be written, or another process trains in it.

    Example:
        >>> from gradlab.data import load_images
        >>> from gradlab.training.runs import begin
        >>> from gradlab.training.vae_training import VAESettings
        >>> settings = VAESettings("ZGR", latent="2x3", epochs=2, hidden=8, bound_samples=2)
        >>> curve = train(begin(settings, load_images("digits")))
        >>> curve[["epoch", "step", "estimator"]]
           epoch  step estimator
        0      1     4       ZGR
        1      2     8       ZGR
    """
    run = _Run(training, folder)
    keep_memory()
    total = training.settings.epochs * training.steps_per_epoch
    with run.only_here(), _interrupts() as asked:
        run.resume()
        saved = time.monotonic()
        training.model.train()
        what = f"{training.kind} {training.settings.estimator} seed {training.settings.seed}"
        with Progress(what, total, "steps", shown=progress, done=run.step) as bar:
            while run.step < total:
                run.do_step()
                ended = run.step % training.steps_per_epoch == 0
                if ended:
                    run.end_epoch(last=run.step == total)
                if ended or asked or time.monotonic() - saved > save_seconds:
                    run.save()
                    saved = time.monotonic()
                if asked:
                    raise KeyboardInterrupt
                bar.add()
                if after_step is not None:
                    after_step(run.step)
    return run.curve()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in the list that is yielded; a second one interrupts."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread gets signals
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        # What is ignored stays so: in a pool the parent is interrupted and ends its processes.
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """The state of a training, and its steps."""

    def __init__(self, training: Training, folder: Path | None) -> None:
        self.training = training
        self.folder = folder
        self.step = 0
        self.total_loss = 0.0
        self.seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        self.versions = [__version__]  # of gradlab that trained it, in order

    @contextmanager
    def only_here(self) -> Iterator[None]:
        """Keep other processes out of the folder."""
        if self.folder is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise OSError(f"another process is training in {self.folder}") from None

    def resume(self) -> None:
        """Go to the state in the folder, if there is one."""
        path = None if self.folder is None else self.folder / CHECKPOINT
        if path is None or not path.exists():
            return
        state = read_checkpoint(path)
        try:
            asked = self._settings()
            # A setting that is newer than the checkpoint had its default there.
            defaults = {f.name: f.default for f in fields(self.training.settings)}
            known = {name: defaults[name] for name in asked.keys() & defaults.keys()}
            check_settings(known | state["settings"], asked, path)
            self.versions = _continued(state.get("versions", [state["version"]]), path)
            self.training.model.load_state_dict(state["model"])
            self.training.optimizer.load_state_dict(state["optimizer"])
            self.training.baseline = state["baseline"]
            self.step, self.total_loss = state["step"], state["total_loss"]
            self.seconds, self.rows = state["seconds"], state["rows"]
            if self.training.probe is not None and state["probe"] is not None:
                self.training.probe.load_state_dict(state["probe"])
        except (KeyError, TypeError) as fault:
            raise CheckpointError(f"{path} is not a checkpoint of a training ({fault})") from None

    def save(self, name: str = CHECKPOINT) -> Path | None:
        """Write the state into the folder, if there is one; return where."""
        if self.folder is None:
            return None
        probe = self.training.probe
        state = {
            "version": __version__,
            "versions": self.versions,
            "settings": self._settings(),
            "step": self.step,
            "total_loss": self.total_loss,
            "seconds": self.seconds,
            "rows": self.rows,
            "model": self.training.model.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
            "baseline": self.training.baseline,
            "probe": None if probe is None else probe.state_dict(),
        }
        write_checkpoint(state, self.folder / name)
        return self.folder / name

    def _settings(self) -> dict[str, Any]:
        settings = {"kind": self.training.kind, **asdict(self.training.settings)}
        del settings["epochs"]  # a training may go on for longer
        return settings

    @property
    def _probing(self) -> float:
        """Seconds that the probe has used."""
        return 0.0 if self.training.probe is None else self.training.probe.seconds

    def do_step(self) -> None:
        """Do one optimizer step, or raise TrainingError with the state before it saved."""
        training, started = self.training, time.perf_counter() - self._probing
        rate = training.learning_rate(self.step // training.steps_per_epoch)
        if rate is not None:
            for group in training.optimizer.param_groups:
                group["lr"] = rate
        training.optimizer.zero_grad()
        try:
            loss = training.loss(self.step)
            loss.backward()
            norm = _gradient_norm(training.model)
            value = loss.item()
        except ValueError as fault:  # of the loss, or NaN among the logits
            raise self._stopped(str(fault)) from fault
        for what, number in (("loss", value), ("gradient norm", norm)):
            if not math.isfinite(number):
                raise self._stopped(f"the {what} is {number}")
        training.optimizer.step()
        training.advance()
        self.total_loss += value
        self.step += 1
        self.seconds += time.perf_counter() - self._probing - started

    def _stopped(self, why: str) -> TrainingError:
        path = self.save(f"stopped-at-step-{self.step}.pt")
        where = "" if path is None else f"; the state before it is saved in {path}"
        return TrainingError(f"{why} at step {self.step} with {self._name()}{where}")

    def _name(self) -> str:
        settings = self.training.settings
        return f"{settings.estimator}, seed {settings.seed}, data {settings.data}"

    def end_epoch(self, last: bool) -> None:
        """Add the row of the epoch that ends here."""
        training = self.training
        epoch = self.step // training.steps_per_epoch
        row = {"epoch": epoch, "step": self.step, "seconds": self.seconds}
        row["loss"] = self.total_loss / training.steps_per_epoch
        self.total_loss = 0.0
        training.model.eval()
        with torch.no_grad():
            self.rows.append(row | training.evaluate(epoch, last))
        training.model.train()

    def curve(self) -> pd.DataFrame:
        """Return the rows with the settings beside them."""
        settings = asdict(self.training.settings)
        rows = pd.DataFrame(self.rows)
        machine = machine_name(self.training.device)
        return rows.assign(
            kind=self.training.kind, **settings, version=", ".join(self.versions), machine=machine
        )


def _gradient_norm(model: nn.Module) -> float:
    """Return the length of the gradient of all parameters, NaN or infinite if a part is."""
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    # A product with itself reads a vector once, at the speed of memory.
    return math.sqrt(torch.stack([torch.dot(part, part) for part in parts]).sum().item())


def _continued(versions: list[str], path: Path) -> list[str]:
    """Return the versions of a training that this one continues; say so if it is another one."""
    last = versions[-1]
    if last == __version__:
        return versions
    if _numbers(last) > _numbers(__version__):
        raise CheckpointError(
            f"{path} was written by gradlab {last}, this is the older {__version__}: continue it "
            "with that version, or remove it"
        )
    say(f"{path} was written by gradlab {last}; this is {__version__}, which continues it")
    return [*versions, __version__]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]

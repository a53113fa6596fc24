"""Cells of a sweep, in tasks that share the expensive part, and how a task is computed.

One enumeration of f serves all estimators and temperatures on it. A cell that fails is a row with
the error; it does not stop the others.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradlab.comparison.eligibility import GRADIENT_COST
from gradlab.comparison.measuring import measured_rows
from gradlab.comparison.rows import SWEPT
from gradlab.estimators import Estimator, PathwiseEstimator, parse
from gradlab.exact.moments import Enumeration
from gradlab.loss import Loss, LossDtypeError
from gradlab.problems import TinyVAE, problem, regime
from gradlab.reproducible import seed_of, single_thread
from gradlab.user_code.objects import line_of, load_object
from gradlab.user_code.under_test import EstimatorDtypeError
from gradlab.user_code.under_test import estimator_of as code_estimator
from gradlab.version import __version__

__all__ = [
    "ENCODER",
    "Cell",
    "Task",
    "at_temperature",
    "blank_row",
    "computed",
    "estimator_of",
    "load_estimator",
    "load_problem",
]

ENCODER = "encoder"
"""The regime of the problem vae at the logits of its own encoder."""


@dataclass(frozen=True)
class Cell:
    """One estimator, at a temperature if one is given.

    Args:
        id: The readable id, such as quadratic/4x3/moderate/0/GR(tau=0.1, k=10).
        estimator: The text that `load_estimator` reads.
        tau: The temperature; None for that of the estimator.

    Example:
        >>> Cell("quadratic/4x3/moderate/0/ST", "ST").seed == Cell("another", "ST").seed
        False
    """

    id: str
    estimator: str
    tau: float | None = None

    @property
    def seed(self) -> int:
        """The seed of its draws, which depends on the id alone."""
        return seed_of(self.id)


@dataclass(frozen=True)
class Task:
    """Cells on one problem at one size, regime and seed.

    Args:
        problem: The name of the problem, or FILE.py:NAME.
        N: The number of variables.
        C: The number of classes.
        regime: The kind of logits.
        seed: The seed of problem and logits.
        cells: The cells.
        draws: The draws of a cell that is measured.
        method: "exact", "monte-carlo" or "auto".
        folder: The folder that FILE.py is relative to.
        gradient_cost: Evaluations of f that f with its gradient counts as.
    """

    problem: str
    N: int
    C: int
    regime: str
    seed: int
    cells: tuple[Cell, ...]
    draws: int
    method: str
    folder: str
    gradient_cost: float = GRADIENT_COST

    @property
    def message(self) -> dict[str, Any]:
        """The task as JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Task":
        """Return the task of a message.

        Args:
            message: What `message` returned.

        Returns:
            The task.
        """
        return cls(**message | {"cells": tuple(Cell(**cell) for cell in message["cells"])})

    def without(self, done: set[str]) -> "Task":
        """Return the task without some of its cells.

        Args:
            done: The ids of the cells to leave out.

        Returns:
            The task with the other cells.
        """
        return replace(self, cells=tuple(cell for cell in self.cells if cell.id not in done))


def load_problem(name: str, N: int, C: int, seed: int = 0, folder: Path | str = "") -> Any:
    """Return the loss of a name.

    Args:
        name: The name of a problem, or FILE.py:NAME for your own loss.
        N: The number of variables.
        C: The number of classes.
        seed: The seed of the problem.
        folder: The folder that FILE.py is relative to.

    Returns:
        The loss, x [..., N, C] -> values [...].

    Raises:
        ValueError: If there is no such problem at this size.

    Example:
        >>> load_problem("quadratic", 4, 3)
        quadratic(N=4, C=3, seed=0)
    """
    if ".py:" in name:
        f = load_object(str(Path(folder) / name))
        if not callable(f):
            raise ValueError(f"{name} is not a function of x: {f!r}")
        return f
    return problem(name, N, C, seed)


def load_estimator(text: str, folder: Path | str = "") -> Estimator:
    """Return the estimator of a text.

    Args:
        text: Such as GR(k=10), or FILE.py:NAME for your own code, in any form that
            `gradlab.user_code.draws_of` accepts.
        folder: The folder that FILE.py is relative to.

    Returns:
        The estimator.

    Raises:
        ValueError: If it is unknown.

    Example:
        >>> load_estimator("GR(k=10)")
        GR(tau=1, k=10)
    """
    if ".py:" not in text:
        return parse(text)
    try:
        return code_estimator(load_object(str(Path(folder) / text)))
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from None


def estimator_of(task: "Task", cell: "Cell") -> Estimator:
    """Return a cell's estimator at its temperature; your own file runs once per process.

    Args:
        task: The task of the cell.
        cell: The cell.

    Returns:
        The estimator.
    """
    return at_temperature(_loaded(cell.estimator, task.folder), cell.tau)


_loaded = cache(load_estimator)


def at_temperature(estimator: Estimator, tau: float | None) -> Estimator:
    """Return the estimator at another temperature, if one is given and the estimator has one.

    Args:
        estimator: The estimator.
        tau: The temperature, or None.

    Returns:
        The same estimator, or one at the temperature.

    Example:
        >>> at_temperature(parse("GS"), 0.5), at_temperature(parse("ST"), 0.5)
        (GS(tau=0.5), ST)
    """
    if tau is None or estimator.temperature_field is None:
        return estimator
    return estimator.at_temperature(tau)


def blank_row(task: Task, cell: Cell, error: str | None = None) -> dict[str, Any]:
    """Return the row of a cell without any measurement: its names, and the error.

    Args:
        task: The task of the cell.
        cell: The cell.
        error: Why it was not computed.

    Returns:
        The row, with the columns `SWEPT`.
    """
    row: dict[str, Any] = dict.fromkeys(SWEPT)
    text = cell.id.removeprefix(f"{task.problem}/{task.N}x{task.C}/{task.regime}/{task.seed}/")
    return row | {
        "cell": cell.id,
        "problem": task.problem,
        "N": task.N,
        "C": task.C,
        "regime": task.regime,
        "logits_seed": task.seed,
        "estimator": text,
        "tau": cell.tau,
        "seed": cell.seed,
        "version": __version__,
        "dtype": "float64",
        "error": error,
    }


@single_thread()
def computed(task: Task) -> Iterator[dict[str, Any] | None]:
    """Compute the cells of a task, in order.

    If the work that the cells share fails, every row has that error.

    Args:
        task: The task.

    Yields:
        None once when the shared work is done, then the row of each cell.
    """
    shared = ""
    try:
        exact = _enumerated(*_loss_and_logits(task))
        truth = exact.values.gradient
        _enumerate_gradients(exact, task)
    except Exception as error:
        shared = _in_words(error)
    yield None
    for cell in task.cells:
        row = blank_row(task, cell, shared or None)
        if not shared:
            start = time.perf_counter()
            try:
                estimator = estimator_of(task, cell)
                row |= _measured(estimator, exact, truth, task, cell.seed)
                row["seconds"] = time.perf_counter() - start
            except Exception as error:
                row["error"] = _in_words(error)
        yield {name: row[name] for name in SWEPT}


def _measured(
    estimator: Estimator, exact: Enumeration, truth: Tensor, task: Task, seed: int
) -> dict[str, Any]:
    """Return the numbers of a row, at float32 logits where the code works in float32 only."""
    try:
        (found,) = measured_rows(
            *(estimator, exact, truth),
            row=task.problem,
            draws=task.draws,
            seed=seed,
            method=task.method,
            gradient_cost=task.gradient_cost,
        )
    except EstimatorDtypeError:
        if exact.objective.dtype == torch.float32:
            raise
        single = Enumeration(exact.objective.f, exact.logits.float())
        return _measured(estimator, single, single.values.gradient, task, seed)
    return found | {
        "truth": "enumeration",
        "dtype": str(exact.objective.dtype).removeprefix("torch."),
    }


def _enumerated(f: Loss, logits: Tensor) -> Enumeration:
    """Return the enumeration of f, at float32 logits where f works in float32 only."""
    try:
        return Enumeration(f, logits)
    except LossDtypeError:
        return Enumeration(f, logits.float())


def _loss_and_logits(task: Task) -> tuple[Loss, Tensor]:
    f = load_problem(task.problem, task.N, task.C, task.seed, task.folder)
    if task.regime == ENCODER and isinstance(f, TinyVAE):
        return f, f.logits
    return f, regime(task.regime, task.N, task.C, task.seed)


def _enumerate_gradients(exact: Enumeration, task: Task) -> None:
    """Enumerate gradients now, if a cell may need them: the time is not that of the first cell."""
    if task.method != "monte-carlo" and any(
        isinstance(estimator_of(task, cell), PathwiseEstimator) for cell in task.cells
    ):
        try:
            exact.gradients  # noqa: B018 kept by the enumeration
        except ValueError:
            return  # no gradient, or too large: each cell that needs it reports this


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}{line_of(error)}"

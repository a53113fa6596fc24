"""What a sweep consists of: a grid of problems, sizes, logits, seeds, estimators and temperatures.

A cell is one estimator at one temperature on one problem. Its readable id says all of that. Its
random numbers derive from the id, so a result never depends on which other cells are computed.
"""

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gradlab.checks import check_int, check_known
from gradlab.comparison.comparing import DEFAULT_DRAWS, with_temperatures
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost
from gradlab.comparison.rows import METHODS
from gradlab.estimators import Estimator
from gradlab.moments import GROUPS
from gradlab.problems import PROBLEMS, REGIMES
from gradlab.sweep.axes import GridError, seed_list, shape, temperature_list, texts
from gradlab.sweep.cells import ENCODER, Cell, Task, at_temperature, load_estimator, load_problem

__all__ = ["Grid", "GridError"]


@dataclass(frozen=True)
class Grid:
    """The cross product of problems, sizes, regimes, seeds and estimators at temperatures.

    Args:
        problems: Names that `gradlab list` shows, such as "quadratic" or "norm:1.5", or your own
            loss as "FILE.py:NAME", with the file as seen from `folder`.
        sizes: "NxC", such as "4x3" for 4 variables of 3 classes.
        regimes: Kinds of logits; the problem `vae` also has "encoder", the logits of its own
            encoder.
        seeds: A number of seeds, or a list of them; each chooses a problem and its logits.
        estimators: Texts such as "GR(k=10)", "all" for every one of `ESTIMATORS`, or "FILE.py:NAME"
            for your own Estimator.
        temperatures: For all estimators that have one: a list, or {from, to, count}, which is
            spaced logarithmically and rounded to three digits. None leaves each its own.
        draws: The draws of a cell that is measured.
        method: "exact", "monte-carlo", or "auto", which is exact where it can be.
        gradient_cost: Evaluations of f that f with its gradient counts as.
        folder: The folder that FILE.py is relative to.

    Raises:
        GridError: If a field could not be run; the message names it.

    Example:
        >>> grid = Grid(["linear"], ["4x3"], seeds=2, estimators=["ST", "GS"], temperatures=[1])
        >>> len(grid), list(grid.estimates)
        (4, ['ST', 'GS(tau=1)'])
    """

    problems: Sequence[str]
    sizes: Sequence[str]
    regimes: Sequence[str] = ("moderate",)
    seeds: int | Sequence[int] = 1
    estimators: Sequence[str | Estimator] = ("all",)
    temperatures: Sequence[float] | Mapping[str, float] | None = None
    draws: int = DEFAULT_DRAWS
    method: str = "auto"
    gradient_cost: float = GRADIENT_COST
    folder: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        for name in ("problems", "sizes", "regimes", "estimators"):
            object.__setattr__(self, name, texts(name, getattr(self, name)))
        object.__setattr__(self, "folder", Path(self.folder).resolve())
        object.__setattr__(self, "sizes", tuple("{}x{}".format(*shape(s)) for s in self.sizes))
        object.__setattr__(self, "seeds", seed_list(self.seeds))
        object.__setattr__(self, "temperatures", temperature_list(self.temperatures))
        check_int("draws", self.draws, 2 * GROUPS, error=GridError)
        check_known("method", self.method, METHODS, error=GridError)
        try:
            check_gradient_cost(self.gradient_cost)
        except ValueError as error:
            raise GridError(str(error)) from None
        _check_problems(self)
        self.estimates  # noqa: B018 a wrong estimator is reported here

    @classmethod
    def from_toml(cls, path: str | Path) -> "Grid":
        """Return the grid of a TOML file, which has one key for each field.

        Args:
            path: The file.

        Returns:
            The grid; its folder is that of the file.

        Raises:
            GridError: If something in it is wrong; the message names file and key.
            OSError: If the file cannot be read.
        """
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise GridError(f"{path} is not TOML: {error}") from None
        keys = [f.name for f in fields(cls) if f.name != "folder"]
        try:
            for key in table:
                check_known("key", key, keys, error=GridError)
            for key in ("problems", "sizes"):
                if key not in table:
                    raise GridError(f"the key {key} is missing")
            return cls(**table, folder=path.parent)
        except GridError as error:
            raise GridError(f"{path}: {error}") from None

    @cached_property
    def estimates(self) -> dict[str, Cell]:
        """What is computed on every problem, by the text of the estimator; ids are still empty."""
        found: dict[str, Cell] = {}
        for source in self.estimators:
            try:
                estimator = load_estimator(str(source), self.folder)
                cells = with_temperatures([estimator], self.temperatures)  # type: ignore[arg-type]
            except (ValueError, TypeError) as error:
                raise GridError(f"estimators: {error}") from None
            for cell in cells:
                tau = cell.temperature_value if self.temperatures is not None else None
                kept = found.setdefault(str(cell), Cell("", str(source), tau))
                if kept.estimator != str(source) and ".py:" in kept.estimator + str(source):
                    raise GridError(f"estimators: {kept.estimator} and {source} are both {cell}")
                assert str(at_temperature(estimator, tau)) == str(cell)
        return found

    @property
    def tasks(self) -> int:
        """The number of problems with their logits."""
        return len(self) // len(self.estimates)

    def task(self, index: int) -> Task:
        """Return one problem with all its cells.

        Args:
            index: The number of the problem, 0 to tasks - 1.

        Returns:
            The task.
        """
        index, k = divmod(index, len(self.problems))
        index, j = divmod(index, len(self.sizes))
        seed, i = divmod(index, len(self.regimes))
        problem, size, regime = self.problems[k], self.sizes[j], self.regimes[i]
        number = self._seeds[seed]
        name = f"{problem}/{size}/{regime}/{number}"
        cells = (replace(cell, id=f"{name}/{text}") for text, cell in self.estimates.items())
        task = (problem, *shape(size), regime, number, tuple(cells))
        return Task(*task, self.draws, self.method, str(self.folder), float(self.gradient_cost))

    def __len__(self) -> int:
        return len(self.estimates) * math.prod(
            map(len, (self.problems, self.sizes, self.regimes, self._seeds))
        )

    @property
    def _seeds(self) -> tuple[int, ...]:
        assert isinstance(self.seeds, tuple)
        return self.seeds

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides which rows there are and what they hold, as JSON can keep it."""
        return {
            **{name: list(getattr(self, name)) for name in ("problems", "sizes", "regimes")},
            "seeds": list(self._seeds),
            "estimators": list(self.estimates),
            "draws": self.draws,
            "method": self.method,
            "gradient_cost": float(self.gradient_cost),
            "code": self._code,
        }

    @cached_property
    def _code(self) -> dict[str, str]:
        """The hash of each of your own files: rows of two versions of a file do not compare."""
        sources = [str(text) for text in (*self.problems, *self.estimators)]
        files = {text.rpartition(":")[0] for text in sources if ".py:" in text}
        return {
            file: hashlib.sha256((self.folder / file).read_bytes()).hexdigest()
            for file in sorted(files)
        }


def _check_problems(grid: Grid) -> None:
    """Raise GridError if a problem does not exist at a size, with the last seed or at a regime."""
    for regime in grid.regimes:
        check_known("name in regimes", regime, (*REGIMES, ENCODER), error=GridError)
    for name in grid.problems:
        kind = name.partition(":")[0]
        if ".py:" not in name:
            check_known("name in problems", kind, PROBLEMS, error=GridError)
        if ENCODER in grid.regimes and kind != "vae":
            raise GridError(f"regimes: {ENCODER} is of the problem vae only, not of {name}")
        for size in grid.sizes:
            try:
                load_problem(name, *shape(size), max(grid._seeds), grid.folder)
            except ValueError as error:
                raise GridError(f"problems: {name} at {size}: {error}") from None

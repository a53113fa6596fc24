"""The catalogue of figures, and how they are made: in parallel processes, each file whole.

Every figure is a module with `rows(seed)`, which computes, and `plot(rows)`, which only reads rows.
Importing the catalogue imports none of them.
"""

import ast
import difflib
import importlib
import importlib.util
import io
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import as_completed
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gradlab.parallel import processes, usable_cores
from gradlab.progress import Progress, say

__all__ = ["FIGURES", "Drawn", "about", "draw", "named"]

FIGURES = {
    name: f"{__name__}.{name.replace('-', '_')}"
    for name in (
        "toys",
        "temperature",
        "trade-off",
        "zoo",
        "baselines",
        "depth",
        "classes",
        "snapshots",
        "verdicts",
        "vae",
        "quadratics",
        "degree",
        "budget",
        "cold-limit",
    )
}
"""Modules by the name of their figure; the slowest first, so that all processes end together."""


@dataclass(frozen=True)
class Drawn:
    """How a figure came out: why there is none (`error`), what it wrote to stderr (`notes`)."""

    name: str
    seconds: float = 0.0
    error: str | None = None
    notes: str = ""


def about(name: str) -> str:
    """Return the first line of the figure's module, without importing it: what the figure shows."""
    spec = importlib.util.find_spec(FIGURES[name])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the module {FIGURES[name]} of the figure {name!r} is missing")
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_bytes())) or "").partition("\n")[0]


def draw(
    names: Iterable[str] = (),
    out: Path = Path("figures"),
    seed: int = 0,
    *,
    workers: int | None = None,
    redraw: bool = False,
    progress: bool = False,
) -> list[Drawn]:
    """Make the named figures, or all: out/NAME.csv, .png and .pdf; return how each came out.

    The same seed gives the same CSVs, whatever the number of `workers` (processes; by default one
    for each usable core). `redraw` plots from the CSVs that are there, without computing. A figure
    that fails does not stop the others. `progress` goes to stderr. An interrupt ends the processes
    and leaves no half-written file. Raises ValueError for an unknown name or no worker, OSError
    where `out` cannot be written. Processes are spawned: a script calls this under `if __name__ ==
    "__main__"`.
    """
    chosen = named(names)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    workers = min(workers or usable_cores(), len(chosen))
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Drawn] = {}
    with (
        TemporaryDirectory(dir=out, prefix=".drawing-") as staging,
        processes(workers) as pool,
        Progress("figures", len(chosen), "figures", shown=progress) as bar,
    ):
        futures = {
            pool.submit(_make, name, FIGURES[name], out, Path(staging), seed, redraw): name
            for name in chosen
        }
        for future in as_completed(futures):
            name = futures[future]
            died = future.exception()  # the process, say for want of memory
            done = Drawn(name, error=f"{type(died).__name__}: {died}") if died else future.result()
            drawn[name] = done
            if progress:
                outcome = f"failed: {done.error}" if done.error else f"{done.seconds:.1f} s"
                say(f"{done.notes}{name}: {outcome}")
            bar.add()
    return [drawn[name] for name in chosen]


def named(names: Iterable[str] = ()) -> list[str]:
    """Return the named figures, or all, in the catalogue's order; ValueError for an unknown one."""
    wanted = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted - set(FIGURES)):
        near = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown figure {name!r}{hint} (known: {', '.join(FIGURES)})")
    return [name for name in FIGURES if name in wanted or not wanted]


def _make(name: str, module: str, out: Path, staging: Path, seed: int, redraw: bool) -> Drawn:
    """Compute and write one figure; an error is caught and told."""
    start = time.perf_counter()
    notes = io.StringIO()
    error = None
    # Not a terminal: bars of single computations stay silent, warnings go to the parent.
    with redirect_stderr(notes):
        try:
            import pandas as pd

            from gradlab.plots.files import save_with_rows

            figure = importlib.import_module(module)
            if hasattr(figure, "__path__"):
                figure = importlib.import_module(f"{module}.rows")
            csv = out / f"{name}.csv"
            if redraw and not csv.exists():
                raise OSError(f"there is no {csv} to draw again; make it first, without redraw")
            rows = pd.read_csv(csv) if redraw else figure.rows(seed)
            save_with_rows(rows, figure.plot, out, name, staging)
        except OSError as fault:
            error = str(fault)
        except Exception as fault:
            traceback.print_exc()
            error = f"{type(fault).__name__}: {fault}"
    return Drawn(name, time.perf_counter() - start, error, notes.getvalue())

"""The catalogue of figures, and how they are made: in parallel processes, each file whole.

Every figure has `rows(seed)`, which computes, and `plot(rows)`, which only reads rows: both in one
module, or in the files rows.py and plot.py of a folder. `VIEWS` beside `plot` are further pictures.
Importing the catalogue imports none of them, and drawing a figure again imports no torch.
"""

import ast
import difflib
import importlib
import importlib.util
import io
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.figures.packaged import committed
from gradlab.parallel import processes, usable_cores
from gradlab.progress import Progress, say

__all__ = ["FIGURES", "LONG", "Drawn", "about", "committed", "draw", "function", "named", "views"]

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
        "structures",
        "verdicts",
        "vae",
        "quadratics",
        "degree",
        "bounds",
        "budget",
        "cold-limit",
        "prediction",
    )
} | {
    name: f"{__name__}.sequences.{name.replace('-', '_')}"
    for name in ("length", "difficulty", "off-policy", "kl", "groups")
}
"""Modules by the name of their figure; the slowest first, so that all processes end together."""

LONG = {"prediction": "about an hour of one core"}
"""Figures that are computed only when they are named, and how long that takes."""


@dataclass(frozen=True)
class Drawn:
    """How a figure came out: why there is none (`error`), what it wrote to stderr (`notes`)."""

    name: str
    seconds: float = 0.0
    error: str | None = None
    notes: str = ""


def about(name: str) -> str:
    """Return what a figure shows: the first line of its module, which is not imported.

    Args:
        name: a name of the catalogue `FIGURES`.

    Returns:
        One sentence.

    Raises:
        KeyError: if the catalogue does not have the figure.
        ModuleNotFoundError: if its module is missing.

    Example:
        >>> about("degree")
        'The bias of every estimator against the degree of a polynomial loss, exact.'
    """
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
    """Make the named figures, or all of them: out/NAME.csv, .png and .pdf, and their views.

    Without names, the figures of `LONG` are not computed. They are drawn from the rows in `out`,
    or from those that travel with the package, and a notice says so.

    A figure that fails does not stop the others. An interrupt ends the processes and leaves no
    half-written file. Processes are spawned: a script calls this under `if __name__ == "__main__"`.

    Args:
        names: names of the catalogue `FIGURES`; none means all.
        out: the folder for the files, which is made if it is missing.
        seed: decides problems and draws. The same seed gives the same CSVs for any `workers`.
        workers: the number of processes; by default one for each usable core.
        redraw: draw from the CSVs that are in `out`, without computing.
        progress: show on stderr how many figures are done.

    Returns:
        How each figure came out, in the order of the catalogue.

    Raises:
        ValueError: for an unknown name, or fewer than one worker.
        OSError: if `out` cannot be written.

    Example:
        >>> draw(["degree"], redraw=True)[0].error  # doctest: +SKIP
    """
    names = [names] if isinstance(names, str) else list(names)
    chosen = named(names)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    workers = min(workers or usable_cores(), len(chosen))
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Drawn] = {}
    with (
        processes(workers) as pool,
        Progress("figures", len(chosen), "figures", shown=progress) as bar,
    ):
        futures = {
            pool.submit(
                _make, name, FIGURES[name], out, seed, redraw, None if names else LONG.get(name)
            ): name
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
    """Return the named figures, or all of them, in the order of the catalogue.

    Args:
        names: one name or several; none means all.

    Returns:
        Names of the catalogue `FIGURES`.

    Raises:
        ValueError: for an unknown name, with the nearest known one.

    Example:
        >>> named(["vae", "toys"])
        ['toys', 'vae']
    """
    wanted = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted - set(FIGURES)):
        near = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown figure {name!r}{hint} (known: {', '.join(FIGURES)})")
    return [name for name in FIGURES if name in wanted or not wanted]


def function(name: str, which: str) -> Callable[..., Any]:
    """Return the function `rows` or `plot` of a figure; `plot` comes without torch.

    Args:
        name: a name of the catalogue `FIGURES`, or of another folder of figures, such as atlas.
        which: "rows" or "plot".

    Returns:
        The function of the figure's module or, where the figure is a folder, of the file `which`.

    Raises:
        ModuleNotFoundError: if the module of the figure is missing.

    Example:
        >>> function("degree", "plot").__module__
        'gradlab.figures.degree'
    """
    return _of(FIGURES.get(name, f"{__name__}.{name}"), which)


def views(name: str) -> dict[str, Callable[..., Any]]:
    """Return further pictures of the rows of a figure, by what is added to its name.

    Args:
        name: a name of the catalogue `FIGURES`.

    Returns:
        The functions that draw them; none for most figures.

    Example:
        >>> list(views("zoo"))
        ['plane']
    """
    return _views(FIGURES.get(name, f"{__name__}.{name}"))


def _views(module: str) -> dict[str, Callable[..., Any]]:
    return getattr(sys.modules[_of(module, "plot").__module__], "VIEWS", {})


def _of(module: str, which: str) -> Callable[..., Any]:
    figure = importlib.import_module(module)
    if hasattr(figure, "__path__"):
        figure = importlib.import_module(f"{module}.{which}")
    found: Callable[..., Any] = getattr(figure, which)
    return found


def _make(
    name: str, module: str, out: Path, seed: int, redraw: bool, takes: str | None = None
) -> Drawn:
    """Compute and write one figure; an error is caught and reported.

    One that takes `takes` is drawn from rows that are there.
    """
    start = time.perf_counter()
    notes = io.StringIO()
    error = None
    # Not a terminal: bars of single computations stay silent, warnings go to the parent.
    with redirect_stderr(notes):
        try:
            from gradlab.plots.files import save_again, save_with_rows

            csv = out / f"{name}.csv"
            if redraw and not csv.exists():
                raise OSError(f"there is no {csv} to draw again; make it first, without redraw")
            if redraw or (takes and csv.exists()):
                save_again(_of(module, "plot"), out, name, _views(module))
            else:
                rows = committed(name) if takes else _of(module, "rows")(seed)
                save_with_rows(rows, _of(module, "plot"), out, name, _views(module))
            if takes and not redraw:
                say(
                    f"{name}: drawn from committed rows; `gradlab figures {name}` computes them, "
                    f"which takes {takes}"
                )
        except OSError as fault:
            error = str(fault)
        except Exception as fault:
            traceback.print_exc()
            error = f"{type(fault).__name__}: {fault}"
    return Drawn(name, time.perf_counter() - start, error, notes.getvalue())

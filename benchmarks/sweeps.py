"""Sweeps: wall time of two minutes of cells, on one process, on all cores, and on a dask cluster"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.ratios import Ratio, effort
from gradlab.parallel import usable_cores
from gradlab.sweep.cells import computed
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import sweep_rows

__all__ = ["run"]

# Cells of about 50 ms: GS-ST measured from draws.
CELLS = {"estimators": ["GS-ST", "GS", "ZGR"], "method": "monte-carlo"}
EXACT = ["GS-ST", "GR(k=10)", "GR(k=inf)", "MVE", "ReinMax", "ST-T", "ZGR", "ST", "RF(m=4)"]
TEMPERATURES = {"from": 0.05, "to": 10, "count": 20}


def run() -> Iterator[Ratio]:
    """Yield the ratios; the first needs two minutes of one core."""
    seconds = effort(120.0, 6.0)
    cores = usable_cores()
    draws = _draws_for(0.05)
    tasks = round(seconds / 0.05 / len(CELLS["estimators"]))
    grid, tiny = (Grid(["mlp"], ["4x4"], seeds=seeds, draws=draws, **CELLS) for seeds in (tasks, 1))
    with TemporaryDirectory() as folder:
        stores = (Path(folder) / f"{number}.db" for number in range(99))
        begin = _wall(tiny, next(stores), workers=1)
        store = next(stores)
        one = _wall(grid, store, workers=1)
        spent = sweep_rows(store)["seconds"]
        yield Ratio("mean time of a cell", 1e3 * spent.mean(), unit="ms")
        over = (one - begin) / spent.sum() - 1
        yield Ratio("store and scheduling, beside cells", 100 * over, 5, "%")
        yield Ratio("to begin: a sweep of one task", begin, unit="s")
        some = int(effort(60, 6))
        bare = _bare(grid, 1, some) / _bare(grid, cores, some)
        yield Ratio(f"speed of {cores} bare processes, no sweep", bare)
        all_cores = _wall(grid, next(stores), workers=cores)
        yield Ratio(f"speed on {cores} cores", one / all_cores, 0.9 * cores, at_least=True)
        with _cluster(cores) as address:
            dask = _wall(grid, next(stores), scheduler=address)
        yield Ratio("dask, scheduler and workers here, to local processes", dask / all_cores, 1.3)
    yield from _sharing()


def _draws_for(seconds: float) -> int:
    """Return draws that take a cell about so long on this machine."""
    task = Grid(["mlp"], ["4x4"], draws=2**16, **CELLS).task(0)
    list(computed(task))  # torch is slow at first
    rows = [row for row in computed(task) if row is not None]
    return round(2**16 * seconds * len(rows) / sum(row["seconds"] for row in rows))


def _wall(grid: Grid, store: Path, **crew: object) -> float:
    started = time.perf_counter()
    done = run_sweep(grid, store, **crew)  # type: ignore[arg-type]
    assert (done.computed, done.failed) == (len(grid), 0)
    return time.perf_counter() - started


_BARE = """
import sys, time, torch
torch.set_num_threads(1)
from gradlab.sweep.cells import computed
from gradlab.sweep.grid import Grid
grid = Grid(**eval(sys.argv[1]))
list(computed(grid.task(0)))
print(flush=True)
sys.stdin.readline()
for index in range(int(sys.argv[2])):
    list(computed(grid.task(index)))
"""


def _bare(grid: Grid, processes: int, tasks: int) -> float:
    """Return the time that `tasks` need in so many processes that know nothing of each other."""
    given = {"problems": ["mlp"], "sizes": ["4x4"], "seeds": tasks, "draws": grid.draws, **CELLS}
    command = [sys.executable, "-c", _BARE, repr(given), str(tasks // processes)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(processes)]  # type: ignore[call-overload]
    for process in running:
        process.stdout.readline()
    started = time.perf_counter()
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        process.communicate()
    return time.perf_counter() - started


@contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """Yield the address of a dask scheduler on this machine with so many workers."""
    from distributed import Client

    address = "tcp://127.0.0.1:18787"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "18787", "--no-dashboard"]
    worker = ["worker", address, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
    environment = os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    parts = [
        subprocess.Popen([sys.executable, "-m", "dask", *arguments], **options)  # type: ignore[call-overload]
        for arguments in (scheduler, worker)
    ]
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers)
        yield address
    finally:
        for part in reversed(parts):
            part.terminate()
            part.wait()


def _sharing() -> Iterator[Ratio]:
    """Compare 20 temperatures with one, exact families, by what one process computes."""
    for size in ("10x4", "9x4", "4x4"):
        times: list[list[float]] = [[], []]
        for seed in range(int(effort(5, 1))):  # with other logits no table is remembered
            for temperatures, spent in zip(([0.5], TEMPERATURES), times, strict=True):
                shape = {"sizes": [size], "estimators": EXACT, "method": "exact"}
                task = Grid(["mlp"], seeds=[seed], temperatures=temperatures, **shape).task(0)
                started = time.perf_counter()
                list(computed(task))
                spent.append(time.perf_counter() - started)
        one, twenty = map(median, times)
        what = f"20 temperatures to one, {len(EXACT)} exact estimators, mlp {size}"
        yield Ratio(what, twenty / one, 3)

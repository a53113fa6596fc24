"""Sweeps under faults, with real processes and real signals: nothing is lost, nothing is double."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest

from gradlab.sweep.cells import computed
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import StoreError, opened, sweep_rows
from kept_processes import kept_processes

GRID = """
problems = ["quadratic", "cubic"]
sizes = ["2x3"]
seeds = {seeds}
estimators = ["ZGR", "GS-ST", "ARSM"]
temperatures = [0.5, 1.0]
draws = {draws}
"""

# What may go wrong in a cell; each hangs, dies or fails where it draws.
OWN = """
import os, time, torch, gradlab
class Hangs(gradlab.ZGR):
    name = "HANGS"
    def pullback(self, p, x, v):
        while True:
            time.sleep(1)
class Dies(gradlab.ZGR):
    name = "DIES"
    def pullback(self, p, x, v):
        os.kill(os.getpid(), 9)
class Fails(gradlab.ZGR):
    name = "FAILS"
    def pullback(self, p, x, v):
        raise RuntimeError("no such luck")
class Eats(gradlab.ZGR):
    name = "EATS"
    def pullback(self, p, x, v):
        return torch.ones(2**32)
class Talks(gradlab.ZGR):
    name = "TALKS"
    def pullback(self, p, x, v):
        print("{")
        return super().pullback(p, x, v)
def hangs(x):
    with open(__file__ + ".calls", "a") as calls:
        calls.write("called\\n")
    while True:
        pass
"""


def written(folder, seeds=20, draws=64):
    """Write a grid file of 8 seeds cells; return its path."""
    file = folder / "grid.toml"
    file.write_text(GRID.format(seeds=seeds, draws=draws))
    return file


def command(*arguments):
    run = "import sys; from gradlab.cli import main; sys.exit(main())"
    return [sys.executable, "-c", run, "sweep", *map(str, arguments)]


@contextmanager
def started(*arguments):
    """Yield a driver in a process of its own, to which SIGINT arrives; kill it in the end."""
    driver = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def rows_there(store):
    """Return how many rows a store has by now, 0 if there is none."""
    return len(sweep_rows(store)) if store.exists() else 0


def wait_for_rows(driver, store, more_than=0):
    ends = time.monotonic() + 600  # a busy machine may take minutes to start two processes
    while rows_there(store) <= more_than:
        assert driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def assert_same_rows(store, other):
    found, expected = (sweep_rows(path).drop(columns="seconds") for path in (store, other))
    assert found["cell"].is_unique
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.thorough  # test_store.py breaks a store at any byte
@pytest.mark.parametrize(
    ("kills", "seeds"), [(1, 30), pytest.param(20, 400, marks=pytest.mark.slow)]
)
def test_a_driver_killed_at_random_moments_loses_nothing(kills, seeds, tmp_path):
    file, store = written(tmp_path, seeds), tmp_path / "killed.db"
    chance = random.Random(kills)
    counts = []
    while len(counts) < kills:
        with started("run", file, store, "--workers", 1) as driver:
            children = []
            if (
                len(counts) % 2 == 0
            ):  # one of two dies after new rows are there, the others anywhere
                wait_for_rows(driver, store, rows_there(store))
                children = psutil.Process(driver.pid).children(recursive=True)
            time.sleep(chance.uniform(0, 3 if len(counts) % 2 else 0.5))
            assert driver.poll() is None, "it was done before it could be killed"
            driver.kill()
            driver.wait()
            # Its workers end by themselves.
            assert psutil.wait_procs(children, timeout=200)[1] == []
        counts.append(rows_there(store))
    assert counts == sorted(counts)
    assert 0 < counts[-1] < 8 * seeds
    with kept_processes():
        assert run_sweep(Grid.from_toml(file), store, workers=1).before == counts[-1]
        run_sweep(Grid.from_toml(file), tmp_path / "undisturbed.db", workers=1)
    assert_same_rows(store, tmp_path / "undisturbed.db")


@pytest.mark.slow
def test_a_killed_worker_is_replaced(tmp_path):
    file, store = written(tmp_path, seeds=40), tmp_path / "s.db"
    with started("run", file, store, "--workers", 2) as driver:
        for _ in range(2):
            wait_for_rows(driver, store, rows_there(store))
            workers = psutil.Process(driver.pid).children()
            random.Random(0).choice(workers).kill()
        out, error = driver.communicate(timeout=600)
        assert driver.returncode == 0, error
    assert "320 cells computed" in out
    run_sweep(Grid.from_toml(file), tmp_path / "undisturbed.db", workers=1)
    assert_same_rows(store, tmp_path / "undisturbed.db")


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_cleanly_and_keeps_what_is_there(by, tmp_path):
    file, store = written(tmp_path, seeds=200), tmp_path / "s.db"
    with started("run", file, store) as driver:
        wait_for_rows(driver, store)
        workers = psutil.Process(driver.pid).children()
        driver.send_signal(by)
        _, error = driver.communicate(timeout=200)
    assert driver.returncode == 130
    assert error.rstrip().endswith("gradlab: interrupted")
    assert "Traceback" not in error
    assert psutil.wait_procs(workers, timeout=200)[1] == []
    with opened(store):  # neither locked nor damaged
        assert 0 < len(sweep_rows(store)) < 1600


ERRORS = {
    "Hangs": "TimeoutError: it took longer than {limit:g} s",
    "Dies": "ProcessError: the process that computed it died (signal 9)",
    "Fails": "RuntimeError: no such luck (own.py, line 15)",
    "Eats": "can't allocate memory",
}


@pytest.mark.parametrize(
    "faults",
    [
        # Each cell that ends its process costs the start of another.
        ["Hangs", "Fails", "Talks"],
        pytest.param(["Hangs", "Dies", "Fails", "Eats", "Talks"], marks=pytest.mark.thorough),
    ],
)
def test_a_cell_that_hangs_dies_or_fails_does_not_stop_the_others(faults, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    asked = {"problems": ["mlp"], "sizes": ["2x3"], "draws": 64, "folder": tmp_path}
    asked["method"] = "monte-carlo"
    own = [f"own.py:{fault}" for fault in faults]
    grid = Grid(estimators=["ZGR", *own, "ST"], **asked)
    # What a process and its first cell take: good cells keep this limit on a busy machine, too.
    start = time.monotonic()
    assert run_sweep(Grid(estimators=["ZGR"], **asked), tmp_path / "first.db", workers=1).computed
    limit = round(max(2.0, time.monotonic() - start), 1)
    done = run_sweep(grid, tmp_path / "s.db", workers=1, limit=limit, memory=3.0)
    assert (done.computed, done.failed) == (len(faults) + 2, len(faults) - 1)
    rows = sweep_rows(tmp_path / "s.db").set_index("estimator")
    for fault in faults[:-1]:
        assert ERRORS[fault].format(limit=limit) in rows.loc[fault.upper(), "error"]
    assert rows.loc["TALKS", "mse"] > 0
    alone = computed(Grid(estimators=["ZGR", "ST"], **asked).task(0))
    for row in filter(None, alone):
        for column in ("seed", "mse", "mse_se", "cosine"):
            assert rows.loc[row["estimator"], column] == row[column]


@pytest.mark.slow
def test_a_loss_that_hangs_is_waited_for_once(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    grid = Grid(["own.py:hangs", "mlp"], ["2x3"], estimators=["ZGR", "ST"], folder=tmp_path)
    done = run_sweep(grid, tmp_path / "s.db", workers=1, limit=3.0)
    assert (done.computed, done.failed) == (4, 2)
    assert (tmp_path / "own.py.calls").read_text().split() == ["called"]


@pytest.mark.slow
def test_failed_cells_are_kept_until_they_are_tried_again(tmp_path):
    (tmp_path / "own.py").write_text(
        "import os\ndef f(x):\n    if not os.path.exists('there'):\n"
        "        raise ValueError('not there')\n    return x[..., 0].sum(-1)\n"
    )
    grid = Grid(["own.py:f"], ["2x3"], estimators=["ZGR", "ST"], folder=tmp_path)
    store = tmp_path / "s.db"
    assert run_sweep(grid, store, workers=1).failed == 2
    assert run_sweep(grid, store, workers=1).computed == 0
    assert sweep_rows(store)["error"].str.contains("not there").all()
    assert run_sweep(grid, store, workers=1, retry=True).computed == 2


def test_cells_that_are_too_large_are_refused_before_they_start(tmp_path):
    grid = Grid(["mlp"], ["2x3", "40x4"], estimators=["ZGR"])
    with kept_processes():
        done = run_sweep(grid, tmp_path / "s.db", workers=1)
    assert (done.computed, done.failed) == (2, 1)
    errors = sweep_rows(tmp_path / "s.db")["error"]
    assert errors.isna().tolist() == [True, False]
    assert "TooLargeError: about 10^24.1 configurations" in errors[1]


@pytest.mark.slow
def test_a_second_driver_is_refused(tmp_path):
    file, store = written(tmp_path, seeds=200), tmp_path / "s.db"
    with started("run", file, store) as driver:
        wait_for_rows(driver, store)
        with pytest.raises(StoreError, match="is being written by another process"):
            run_sweep(Grid.from_toml(file), store)
        assert driver.poll() is None


@pytest.mark.slow
def test_a_driver_on_a_full_disk_says_so_and_goes_on_later(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = "size=200k"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs more rights")
    try:
        file, store = written(tmp_path, seeds=60), disk / "s.db"
        full = subprocess.run(command("run", file, store), capture_output=True, text=True)
        assert full.returncode == 1
        assert "is full" in full.stderr.splitlines()[-1]
        assert "repeat the command to continue" in full.stderr
        before = rows_there(store)
        assert 0 < before < 480
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert run_sweep(Grid.from_toml(file), store).before == before
        run_sweep(Grid.from_toml(file), tmp_path / "undisturbed.db", workers=1)
        assert_same_rows(store, tmp_path / "undisturbed.db")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_one_worker_or_three_give_the_same_rows(tmp_path):
    grid = Grid.from_toml(written(tmp_path, seeds=8))
    for workers in (1, 3):
        run_sweep(grid, tmp_path / f"{workers}.db", workers=workers)
    assert_same_rows(tmp_path / "1.db", tmp_path / "3.db")


@pytest.mark.parametrize("name", ["workers", "limit", "memory"])
def test_bad_arguments_are_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be positive, not 0"):
        run_sweep(Grid(["mlp"], ["2x2"]), tmp_path / "s.db", **{name: 0})
    assert os.listdir(tmp_path) == []

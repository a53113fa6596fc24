"""The same sweep on a dask cluster: a real scheduler and real workers, which may die."""

import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest

from gradlab.sweep import running
from gradlab.sweep.crew import CrewError
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import sweep_rows

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra cluster is not installed"
)

GRID = Grid(
    *(["quadratic", "cubic"], ["2x3"]),
    seeds=30,
    estimators=["ZGR", "GS-ST", "ARSM"],
    temperatures=[0.5, 1.0],
    draws=64,
)


# A loss that cannot be evaluated until there is a file: no sweep of it ends before.
WAITS = """
import os, time
def loss(x):
    while not os.path.exists(__file__ + ".go"):
        time.sleep(0.01)
    return x[..., 0].sum(-1)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def dask(*arguments):
    """Start a part of a cluster, as docs/how-to/cluster.md says."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "dask", *map(str, arguments)], **quiet)


@contextmanager
def cluster(workers=2, threads=1):
    """Yield the address of a scheduler, its process and that of its workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    parts = [dask("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")]
    options = ["--nworkers", workers, "--nthreads", threads, "--no-dashboard"]
    parts.append(dask("worker", address, *options))
    try:
        ends = time.monotonic() + 600
        while psutil.Process(parts[0].pid).net_connections() == []:
            assert time.monotonic() < ends, "the scheduler does not listen"
            time.sleep(0.1)
        yield address, *parts
    finally:
        for part in filter(lambda part: part.poll() is None, parts):
            for process in psutil.Process(part.pid).children(recursive=True):
                process.kill()
            part.kill()
            part.wait()


@pytest.fixture(scope="module")
def address():
    with cluster(workers=1, threads=2) as (found, _, _):
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The rows of an undisturbed run on this machine."""
    store = tmp_path_factory.mktemp("local") / "s.db"
    run_sweep(GRID, store, workers=2)
    return sweep_rows(store).drop(columns="seconds")


def assert_same(store, rows):
    pd.testing.assert_frame_equal(sweep_rows(store).drop(columns="seconds"), rows, check_exact=True)


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(address, local, tmp_path):
    assert run_sweep(GRID, tmp_path / "s.db", scheduler=address).failed == 0
    assert_same(tmp_path / "s.db", local)


@pytest.mark.slow  # it starts a scheduler and a worker, four processes that import torch
def test_other_versions_of_the_workers_are_refused(address, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "versions", lambda: {"gradlab": "9.9"})
    with pytest.raises(CrewError, match=r"a worker has .*, the driver has \{'gradlab': '9.9'\}"):
        run_sweep(GRID, tmp_path / "s.db", scheduler=address)
    assert sweep_rows(tmp_path / "s.db").empty


@pytest.mark.slow
def test_no_scheduler_is_told(tmp_path):
    nobody = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(CrewError, match=f"no dask scheduler answers at {nobody}"):
        run_sweep(GRID, tmp_path / "s.db", scheduler=nobody)


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CrewError, match="install the extra"):
        run_sweep(GRID, tmp_path / "s.db", scheduler="tcp://127.0.0.1:1")


@contextmanager
def running_sweep(store, address, grid=GRID):
    """Run the sweep in a thread; yield when it has rows, and join it."""
    outcome = []

    def run():
        try:
            outcome.append(run_sweep(grid, store, scheduler=address))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    ends = time.monotonic() + 600
    while not store.exists() or sweep_rows(store).empty:
        assert thread.is_alive(), outcome
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.05)
    yield outcome
    thread.join(timeout=600)
    assert not thread.is_alive()


@pytest.mark.slow
def test_a_killed_worker_of_the_cluster_is_done_without(local, tmp_path):
    store = tmp_path / "s.db"
    with cluster() as (address, _, workers):
        with running_sweep(store, address) as outcome:
            spawned = [
                p
                for p in psutil.Process(workers.pid).children()
                if "spawn_main" in str(p.cmdline())
            ]
            assert len(spawned) == 2
            spawned[0].send_signal(signal.SIGKILL)
        assert outcome[0].failed == 0
    assert_same(store, local)


@pytest.mark.slow
def test_a_dead_scheduler_is_told_and_the_sweep_goes_on_elsewhere(tmp_path):
    store = tmp_path / "s.db"
    (tmp_path / "own.py").write_text(WAITS)
    # One worker waits for the file, the other gives rows. So the sweep is not done when the
    # scheduler dies, however slow this machine is.
    asked = {"estimators": ["ZGR", "ARSM"], "draws": 64, "folder": tmp_path}
    grid = Grid(["quadratic", "own.py:loss", "cubic", "mlp"], ["2x3"], **asked)
    with cluster() as (address, scheduler, _):
        with running_sweep(store, address, grid) as outcome:
            scheduler.kill()
        assert isinstance(outcome[0], CrewError), repr(outcome[0])
        assert "repeat the command to continue" in str(outcome[0])
    assert 0 < len(sweep_rows(store)) < len(grid)
    (tmp_path / "own.py.go").touch()
    run_sweep(grid, store, workers=2)
    run_sweep(grid, tmp_path / "undisturbed.db", workers=2)
    assert_same(store, sweep_rows(tmp_path / "undisturbed.db").drop(columns="seconds"))


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for(local, tmp_path):
    store = tmp_path / "s.db"
    with cluster(workers=1) as (address, _, workers):
        for process in psutil.Process(workers.pid).children(recursive=True):
            process.kill()
        workers.kill()
        workers.wait()
        late = threading.Timer(3.0, lambda: more.append(dask("worker", address, "--nthreads", 2)))
        more = []
        late.start()
        try:
            assert run_sweep(GRID, store, scheduler=address).failed == 0
        finally:
            late.cancel()
            for process in more:
                process.terminate()
                process.wait()
    assert_same(store, local)

"""A task computed in a process of its own, which may hang, be killed, or run out of memory.

The thread that waits for the rows ends a process that takes too long, and starts another one for
the remaining cells. No executor of the standard library or of dask does that.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gradlab.sweep.cells import Cell, Task, blank_row

__all__ = ["Computed", "VersionError", "compute", "end_process"]

# Seconds that a fresh process may take to import torch, also from a slow disk.
_START = 300.0
# A cell is tried again after the death of its process, which may have been an accident.
_DEATHS = 2
_STARTS = 3
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # glibc keeps what is freed instead of faulting it in anew: cells take a fifth less time, and
    # half of what they would with the setting that dask gives its workers.
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


class VersionError(RuntimeError):
    """A worker has other versions than the driver."""


@dataclass(frozen=True)
class Computed:
    """The result of a task.

    Args:
        rows: Rows of its first cells.
        shared: Seconds of the work that the cells share.
    """

    rows: list[dict[str, Any]]
    shared: float


def compute(
    message: dict[str, Any],
    versions: dict[str, str],
    *,
    limit: float,
    spell: float,
    memory: int,
    stop: threading.Event | None = None,
) -> Computed:
    """Compute the cells of a task, in order.

    A cell that takes too long, or whose process dies twice, is a row with the error. The process
    belongs to the calling thread and stays for its next task.

    Args:
        message: The task, as `Task.message` returns it.
        versions: The versions of gradlab, torch, numpy and scipy that the process must have.
        limit: Seconds that a cell may take.
        spell: Seconds after which no further cell is begun.
        memory: Bytes that the process may allocate.
        stop: When it is set, the rows so far are returned at once.

    Returns:
        The rows of the cells that were computed.

    Raises:
        VersionError: If the process has other versions.
    """
    task, rows, shared = Task.from_message(message), list[dict[str, Any]](), 0.0
    deaths: Counter[str] = Counter()
    while task.cells and not (stop is not None and stop.is_set()):
        lost: tuple[Cell, ...] = task.cells  # what the cells share is not there yet
        try:
            for answer in _process(memory, versions, stop).answers(task, spell, limit, stop):
                if "shared" in answer:
                    shared += answer["shared"]
                else:
                    rows.append(answer)
                    task = task.without({answer["cell"]})
                lost = task.cells[:1]
            break
        except _Stopped:
            end_process()
            break
        except _Ended as fault:
            end_process()
            if not task.cells:
                break
            deaths[task.cells[0].id] += 1
            if fault.final or deaths[task.cells[0].id] == _DEATHS:
                rows += [blank_row(task, cell, str(fault)) for cell in lost]
                task = task.without({cell.id for cell in lost})
    return Computed(rows, shared)


class _Ended(Exception):
    """The process died, or had to be ended, which is `final` for the cell."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class _Stopped(Exception):
    """Asked to stop."""


_own = threading.local()


def _process(memory: int, versions: dict[str, str], stop: threading.Event | None) -> "_Process":
    """Return the process of this thread, a new one if there is none."""
    process: _Process | None = getattr(_own, "process", None)
    if process is None or (process.memory, process.versions) != (memory, versions):
        end_process()
        process = _own.process = _begun(memory, stop)
    if process.versions != versions:
        raise VersionError(f"a worker has {process.versions}, the driver has {versions}")
    return process


def _begun(memory: int, stop: threading.Event | None) -> "_Process":
    for tries_left in reversed(range(_STARTS)):
        try:
            return _Process(memory, stop)
        except _Ended as fault:
            if not tries_left:
                raise OSError(f"a process for the cells does not start: {fault}") from None
    raise AssertionError


def end_process() -> None:
    """End the process of this thread, if it has one."""
    process, _own.process = getattr(_own, "process", None), None
    if process is not None:
        process.end()


class _Process:
    """A child and the pipes to it; it ends with this object."""

    def __init__(self, memory: int, stop: threading.Event | None) -> None:
        self.memory = memory
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 lives as long as the process
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self._child = subprocess.Popen(
            # -P: a file of the user's named like a module of ours stays aside.
            [sys.executable, "-P", "-m", "gradlab.sweep.child", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C is for the driver
        )
        self.end = weakref.finalize(self, _kill, self._child, self._said)
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(
            target=_listen, args=(self._child.stdout, self._answers), daemon=True
        ).start()
        self.versions: dict[str, str] = self._answer(_START, stop)["versions"]

    def answers(
        self, task: Task, spell: float, limit: float, stop: threading.Event | None
    ) -> Iterator[dict[str, Any]]:
        """Yield what `gradlab.sweep.cells.computed` does in the child, until it ends.

        Raises _Ended if the child dies or takes more than `limit` seconds for one of them, _Stopped
        if it is asked to stop.
        """
        assert self._child.stdin is not None
        # The next answer shows that a child is dead.
        with suppress(OSError):
            self._child.stdin.write(json.dumps(task.message | {"spell": spell}).encode() + b"\n")
            self._child.stdin.flush()
        while (answer := self._answer(limit, stop)) != {"end": True}:
            yield answer

    def _answer(self, limit: float, stop: threading.Event | None = None) -> Any:
        ends = time.monotonic() + limit
        while True:
            left = ends - time.monotonic()
            try:
                line = self._answers.get(timeout=max(0.0, min(0.2, left)))
            except queue.Empty:
                if stop is not None and stop.is_set():
                    raise _Stopped from None
                if left <= 0:
                    why = f"TimeoutError: it took longer than {limit:g} s"
                    raise _Ended(why, final=True) from None
                continue
            if line is None:
                raise _Ended(f"ProcessError: the process that computed it died ({self._death()})")
            return json.loads(line)

    def _death(self) -> str:
        """Return the status of the dead child and the end of what it said."""
        code = self._child.wait()
        self._said.seek(0)
        said = " ".join(self._said.read()[-4096:].decode(errors="replace").split())[-300:]
        return f"signal {-code}" if code < 0 else f"status {code}: {said}"


def _listen(pipe: Any, answers: "queue.SimpleQueue[str | None]") -> None:
    with pipe:
        for line in pipe:
            if line.endswith(b"\n"):  # a torn one is of a dead process
                answers.put(line)
    answers.put(None)


def _kill(child: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
    child.kill()
    child.wait()
    said.close()
    assert child.stdin is not None
    with suppress(OSError):
        child.stdin.close()

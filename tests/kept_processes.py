"""Sweeps that take processes which other sweeps left: to start one takes longer than most sweeps.

For tests of what stands around the processes. tests/sweep/test_faults.py starts each anew.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gradlab.sweep import isolation

__all__ = ["kept_processes"]

# Processes, and the thread that had each last; they end with this one.
_KEPT: list[tuple[isolation._Process, threading.Thread]] = []
_start = isolation._begun


def _begun(memory: int, stop: threading.Event | None) -> isolation._Process:
    here = threading.current_thread()
    for place, (process, owner) in enumerate(_KEPT):
        is_free = owner is here or not owner.is_alive()
        if is_free and process.memory == memory and process._child.poll() is None:
            _KEPT[place] = process, here
            return process
    _KEPT.append((_start(memory, stop), here))
    return _KEPT[-1][0]


def _keep() -> None:
    isolation._own.process = None


@contextmanager
def kept_processes() -> Iterator[None]:
    """Use processes again inside the block; one that had to be ended is not used again."""
    with (
        mock.patch.object(isolation, "_begun", _begun),
        mock.patch("gradlab.sweep.plan.end_process", _keep),
    ):
        yield

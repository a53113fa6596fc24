"""Does code give the same result when another thread calls it in the middle of its work?

Threads change places between two bytecodes. So one call is stopped at each bytecode of the user's
code, another call runs in a thread from start to end, and the first one goes on. Both must have the
bits that they have alone. Where a loss keeps anything between two of its lines, one of these stops
lies between.
"""

import dis
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from gradlab.loss.gate import Objective

__all__ = ["bears_interruption", "is_own"]

# Stops of one trial; behind writes to what outlives the call they are made first.
_MOST = 200
# Seconds after which a call that waits, for a lock that the stopped one holds, is given up.
_PATIENCE = 2.0
_WRITES = {"STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_DEREF", "DELETE_ATTR"}
# The code of torch, of gradlab and of Python is not stopped: several threads may call it.
_SAFE = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<frozen")
_PYTHON, _PACKAGES = sysconfig.get_path("stdlib"), ("site-packages", "dist-packages")


def is_own(f: Objective) -> bool:
    """Return whether a loss is one of gradlab's problems, which several threads may call.

    Args:
        f: The loss, which has passed the gate.

    Example:
        >>> from gradlab.loss.gate import checked
        >>> from gradlab.problems import problem, regime
        >>> is_own(checked(problem("quadratic", 2, 2), regime("moderate", 2, 2)))
        True
    """
    return type(f.f).__module__.startswith("gradlab.problems.")


def bears_interruption(one: Callable[[], Tensor], other: Callable[[], Tensor]) -> bool:
    """Return whether two calls have the same results when one runs in the middle of the other.

    Args:
        one: A call, which is stopped again and again.
        other: Another call of the same code, with other arguments of the same shape.

    Returns:
        False if a result differs in any bit from that of the call alone, if one call waits for the
        other, or if another tracer, such as a debugger, is at work.

    Example:
        >>> x = torch.arange(3.0)
        >>> bears_interruption(lambda: x.square(), lambda: (2 * x).square())
        True
    """
    if sys.gettrace() is not None:
        return False
    alone, beside = one(), other()
    writes, others = _stops(one)
    spread = others[:: max(1, len(others) // max(1, _MOST - len(writes)))]
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for stop in (*writes[:_MOST], *spread):
            found: list[Tensor] = []

            def interrupt(number: int, _: bool, stop: int = stop, found: list = found) -> None:
                if number == stop:
                    found.append(pool.submit(other).result(_PATIENCE))

            try:
                result = _traced(one, interrupt)
            except Exception:  # it waited for the stopped call, or broke
                return False
            if not all(map(torch.equal, (result, *found), (alone, beside))):
                return False
    return True


def _stops(call: Callable[[], Tensor]) -> tuple[list[int], list[int]]:
    """Return the numbers of the bytecodes to stop before: those behind a write, and the others."""
    writes: list[int] = []
    others: list[int] = []
    _traced(call, lambda number, written: (writes if written else others).append(number))
    return writes, others


def _traced(call: Callable[[], Tensor], see: Callable[[int, bool], Any]) -> Tensor:
    """Return call(), with see(number, behind a write) before each bytecode that is not safe."""
    number = 0
    before: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal number
        if event == "call":
            if _is_safe(frame.f_code.co_filename):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return trace
        if event == "opcode":
            written = before.get(frame) in _WRITES
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            number += 1
            see(number, written)
        elif event == "return":
            before.pop(frame, None)
        return trace

    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(None)


@cache
def _is_safe(file: str) -> bool:
    in_python = file.startswith(_PYTHON) and not any(name in file for name in _PACKAGES)
    return in_python or file.startswith(_SAFE)

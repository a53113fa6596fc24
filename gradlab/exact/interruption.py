"""Does code give the same result when another thread calls it in the middle of its work?

Threads change places between two bytecodes. So one call is stopped at each bytecode of the user's
code, another call runs in a thread from start to end, and the first one goes on. Both must have the
bits that they have alone. Where a loss keeps anything between two of its lines, one of these stops
lies between.

What is set and put back, as by `net.eval()` and `net.train()`, survives that, and breaks where
two calls overlap. To try it would leave the user's module in the wrong state. So a call does not
pass that assigns an attribute, a global, an entry of a mapping or a variable of the function around
it, nor one that swaps the tensors of a module.
"""

import dis
import inspect
import re
import sys
import sysconfig
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jaxtyping
import torch
from torch import Tensor
from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.utils import parametrize, stateless

from gradlab.loss.gate import Objective

__all__ = ["bears_interruption", "is_own"]

# Stops of one trial; behind writes to what outlives the call they are made first.
_MOST = 200
# Seconds after which a call that waits, for a lock that the stopped one holds, is given up.
_PATIENCE = 2.0
_WRITES = {"STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_DEREF", "DELETE_ATTR"}
# The code of torch, gradlab, Python and of checks of types is not stopped: several threads may call
# it. What it calls is.
_SAFE = (
    *(str(Path(inspect.getfile(module)).parent) for module in (torch, jaxtyping)),
    *(str(Path(__file__).parents[1]), "<frozen", "<@beartype"),
)
# Bytecodes, built-in functions and code of torch that assign what outlives the call.
_ASSIGNS = {"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL"}
_ENTRIES, _CELLS = {"STORE_SUBSCR", "DELETE_SUBSCR"}, {"STORE_DEREF", "DELETE_DEREF"}
# What loads a container that is not a local variable.
_OUTER = {"LOAD_GLOBAL", "LOAD_DEREF", "LOAD_ATTR"}
_BUILT_IN = {"setattr", "delattr", "__setattr__", "__delattr__"}
_OF_TORCH = {
    inspect.unwrap(function).__code__
    for function in (
        *(Module.train, Module.eval, Module.requires_grad_, Module.load_state_dict, Module._apply),
        *(stateless._reparametrize_module, parametrize.cached),
    )
}
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


def bears_interruption(
    one: Callable[[], Tensor], other: Callable[[], Tensor], *whole: Callable[[], Tensor]
) -> bool:
    """Return whether two calls have the same results when one runs in the middle of the other.

    Args:
        one: A call, which is stopped again and again.
        other: Another call of the same code, with other arguments of the same shape.
        *whole: Calls as they are meant, with as much as one thread gets at a time. What is tried
            must be the code that they run.

    Returns:
        False if a result differs in any bit from that of the call alone, if one call waits for the
        other, if `whole` goes through code that was not tried, if a call assigns what outlives it,
        or if another tracer, such as a debugger, is at work.

    Example:
        >>> x = torch.arange(3.0)
        >>> bears_interruption(lambda: x.square(), lambda: (2 * x).square())
        True
    """
    if sys.gettrace() is not None:
        return False
    path = _path(one)
    tried = path.places | _path(other).places
    if path.assigns or any(not _path(call).places <= tried for call in whole):
        return False
    alone, beside = one(), other()
    spread = path.others[:: max(1, len(path.others) // max(1, _MOST - len(path.writes)))]
    found: list[Tensor] = []
    at = 0

    def interrupt(number: int, _: FrameType) -> None:
        if number == at:
            found.append(pool.submit(other).result(_PATIENCE))

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for at in (*path.writes[:_MOST], *spread):  # noqa: B007 - `interrupt` reads it
            found.clear()
            try:
                result = _traced(one, interrupt)
            except Exception:  # it waited for the stopped call, or broke
                return False
            if not all(map(torch.equal, (result, *found), (alone, beside))):
                return False
    return True


@dataclass
class _Path:
    """The bytecodes of a call: the numbers of those behind a write, of the others, and all places.

    `assigns`: whether it assigns what outlives it, itself or by code that is not stopped.
    """

    writes: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    places: set[tuple[CodeType, int]] = field(default_factory=set)
    assigns: bool = False


def _path(call: Callable[[], Tensor]) -> _Path:
    """Return through which bytecodes a call goes."""
    path = _Path()
    before: dict[FrameType, str] = {}

    def see(number: int, frame: FrameType) -> None:
        (path.writes if before.get(frame) in _WRITES else path.others).append(number)
        before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        path.places.add((frame.f_code, frame.f_lasti))
        path.assigns = path.assigns or frame.f_lasti in _assigning(frame.f_code)

    def enter(frame: FrameType) -> None:
        path.assigns = path.assigns or _assigns(frame)

    _traced(call, see, enter)
    return path


@cache
def _assigning(code: CodeType) -> frozenset[int]:
    """Return where code assigns what outlives the call: an attribute, a global, an entry, a cell.

    An entry is one of a mapping, under a name in quotes, or of what is not a local variable.
    """
    found, last = set(), deque[dis.Instruction](maxlen=2)
    for step in dis.get_instructions(code):
        if step.opname in _ENTRIES and len(last) == 2:
            container, key = last
            outer = container.opname in _OUTER
            if outer or (key.opname == "LOAD_CONST" and isinstance(key.argval, str)):
                found.add(step.offset)
        outside = step.opname in _CELLS and step.argval in code.co_freevars
        if step.opname in _ASSIGNS or outside:
            found.add(step.offset)
        if step.opname != "EXTENDED_ARG":
            last.append(step)
    return frozenset(found)


def _assigns(frame: FrameType) -> bool:
    """Return whether a function assigns by what is not seen as a bytecode of its own."""
    code, module = frame.f_code, frame.f_locals.get("self")
    if not _is_safe(code.co_filename):
        return not _BUILT_IN.isdisjoint(code.co_names)
    if isinstance(module, ScriptModule):  # compiled: it is not stopped
        return bool(re.search(r"prim::SetAttr|aten::[a-z]\w*_\(", str(module.inlined_graph)))
    return code in _OF_TORCH


def _traced(
    call: Callable[[], Tensor],
    see: Callable[[int, FrameType], Any],
    enter: Callable[[FrameType], Any] = lambda _: None,
) -> Tensor:
    """Return call(), with see(number, frame) before each bytecode that is not safe."""
    number = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal number
        if event == "call":
            enter(frame)
            if _is_safe(frame.f_code.co_filename):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return trace
        if event == "opcode":
            number += 1
            see(number, frame)
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

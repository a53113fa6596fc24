"""What one piece of work costs: its time, in turns with others, and the memory that it needs.

Works are functions without arguments; on a GPU they can also be replayed as CUDA Graphs.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Work", "captured", "clock", "in_turns", "peak_bytes"]

Work = Callable[[], object]

_LEAST_TURNS = 5


def in_turns(
    works: dict[str, Work], seconds: float, now: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Return the times of each piece of work, run in turns, so that drift affects all alike.

    Each piece has an equal share of `seconds` and runs at least 5 times. One that has used its
    share is left out of later turns, so that the i-th times of all are of the same turn.

    Args:
        works: The pieces of work by name; functions without arguments.
        seconds: The time for all of them together.
        now: The clock, a function that returns seconds.

    Returns:
        The seconds of each run, by name.

    Example:
        >>> times = in_turns({"sum": lambda: sum(range(100))}, seconds=0.0)
        >>> len(times["sum"])
        5
    """
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    share = seconds / max(len(works), 1)
    order = random.Random(0)
    while active := [n for n, t in times.items() if len(t) < _LEAST_TURNS or sum(t) < share]:
        # A fixed order would let one piece always pay for what the one before it left behind.
        for name in order.sample(active, len(active)):
            start = now()
            works[name]()
            # A clock may stand still over a short work: the share must still come to an end.
            times[name].append(max(now() - start, 1e-7))
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """Return the clock for a device: CPU seconds, or on CUDA seconds when all work is done.

    Args:
        device: The device that computes.

    Returns:
        A function that returns seconds.

    Example:
        >>> clock(torch.device("cpu")) is time.process_time
        True
    """
    if device.type != "cuda":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done


def captured(works: dict[str, Work]) -> tuple[dict[str, Work], dict[str, str]]:
    """Return the replays of works captured as CUDA Graphs, and why others cannot be captured.

    Args:
        works: The pieces of work by name.

    Returns:
        The replays by name, and the reasons by name for the other works.

    Example:
        >>> captured({})
        ({}, {})
    """
    replays: dict[str, Work] = {}
    reasons = {}
    for name, work in works.items():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # allocations and handles of a first pass are not captured
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
        except RuntimeError as error:
            reasons[name] = f"no CUDA Graph: {str(error).partition(chr(10))[0]}"
        else:
            replays[name] = graph.replay
    return replays, reasons


def peak_bytes(work: Work, device: torch.device) -> int:
    """Return the most bytes alive at once, of tensors made in it, while `work` runs.

    Args:
        work: A function without arguments.
        device: The device that computes.

    Returns:
        The number of bytes. On the CPU it counts the tensors that torch's operations return, on
        CUDA what its allocator reports.

    Example:
        >>> peak_bytes(lambda: torch.zeros(100, dtype=torch.float64), torch.device("cpu"))
        800
    """
    work()  # what is made once and kept is not counted
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _Alive() as alive:
        work()
    return alive.peak


class _Alive(TorchDispatchMode):
    """Follows the storages that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._known: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {StorageWeakRef(t.untyped_storage()) for t in args if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference not in given:  # neither a view nor written in place
                    self._known[reference] = storage.nbytes()
        self._known = {ref: size for ref, size in self._known.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self._known.values()))
        return out

"""Time and memory of one forward and backward pass of each estimator's layer, as rows.

`F.gumbel_softmax(hard=True)` is measured in the same run: on a machine that others use, only the
ratio to it means something.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import too_large
from gradlab.estimators import (
    ESTIMATORS,
    Estimator,
    GumbelRao,
    PathwiseEstimator,
    parse,
)
from gradlab.nn.clocks import Work, captured, clock, in_turns, peak_bytes
from gradlab.nn.device import check_device, machine_name
from gradlab.nn.layer import CategoricalLayer
from gradlab.progress import tracked
from gradlab.reproducible import block_generator, check_seed, single_thread

__all__ = ["REFERENCE", "check_sizes", "sweeps", "time_layers"]

REFERENCE = "F.gumbel_softmax(hard=True)"
"""What every row is compared with."""

# Elements that the passes of one layer may hold at once: a quarter of a gigabyte of float32.
_LARGEST = 2**26


def sweeps(variables: Sequence[int], classes: Sequence[int]) -> list[tuple[int, int]]:
    """Return sizes (N, C): each list at the middle entry of the other one.

    Args:
        variables: Numbers of variables N.
        classes: Numbers of classes C.

    Returns:
        The sizes, each once.

    Example:
        >>> sweeps([1, 2, 4], [3])
        [(2, 3), (1, 3), (4, 3)]
    """
    middle = variables[len(variables) // 2], classes[len(classes) // 2]
    sizes = [(middle[0], c) for c in classes] + [(n, middle[1]) for n in variables]
    return list(dict.fromkeys(sizes))


def check_sizes(sizes: Iterable[tuple[int, int]], batch: int) -> None:
    """Raise ValueError unless logits [batch, N, C] of all sizes hold 1 to 2^26 numbers.

    Args:
        sizes: Pairs (N, C).
        batch: The number of elements.

    Raises:
        ValueError: If a number is below 1, or the logits would be too large.

    Example:
        >>> check_sizes([(4, 0)], batch=1)
        Traceback (most recent call last):
        ValueError: batch, variables and classes must be at least 1, not [1, 4, 0]
    """
    for variables, classes in sizes:
        shape = [batch, variables, classes]
        if min(shape) < 1:
            raise ValueError(f"batch, variables and classes must be at least 1, not {shape}")
        if math.prod(shape) > _LARGEST:
            advice = "take a smaller batch, or fewer variables or classes"
            raise ValueError(too_large(f"logits {shape}", math.prod(shape), _LARGEST, advice))


def time_layers(
    estimators: Iterable[Estimator | str] | None = None,
    sizes: Iterable[tuple[int, int]] = ((32, 16),),
    *,
    batch: int = 128,
    device: str = "cpu",
    seconds: float = 2.0,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return one row for each size, mode and estimator.

    A pass makes a sample of float32 logits [batch, N, C] and sends a fixed cotangent back. An
    estimator without a sample runs its surrogate of a linear f instead; the column `timed` says so.

    `ms` is the median time, with quartiles, of passes in random turns. On the CPU it is CPU time on
    one thread. On CUDA it is the time until the device is done, with and without CUDA Graphs
    (`mode`). `ratio` is over the reference of the same turn. `peak_bytes` is the most memory alive
    during a pass beyond logits and cotangent, see `gradlab.nn.clocks.peak_bytes`. What does not fit
    is a row with its `reason`.

    Args:
        estimators: Estimators or their texts; by default all of them, and GR(k=100).
        sizes: Pairs (N, C) of variables and classes.
        batch: The number of elements of the batch.
        device: "cpu", "cuda" or "cuda:1".
        seconds: The time for each size; every estimator has at least 5 passes.
        seed: The seed of logits, cotangents and samples, an int in [0, 2^63).
        progress: Whether to show a progress bar on stderr.

    Returns:
        The rows; `gradlab.plots.timing.plot` draws them.

    Raises:
        ValueError: If the device is unknown or absent, `seconds` is not positive and finite, or a
            size is out of range.

    Example:
        >>> rows = time_layers(["ZGR", "ST"], sizes=[(4, 3)], batch=2, seconds=0.01)
        >>> list(rows["estimator"])
        ['F.gumbel_softmax(hard=True)', 'ZGR', 'ST']
    """
    place = check_device(device)
    check_seed(seed)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be positive and finite, not {seconds!r}")
    sizes = list(sizes)
    check_sizes(sizes, batch)
    chosen = [*(cls() for cls in ESTIMATORS.values()), GumbelRao(k=100)]
    if estimators is not None:
        chosen = [parse(e) if isinstance(e, str) else e for e in estimators]
    modes = ("eager", "cuda graph") if place.type == "cuda" else ("eager",)
    about = {"batch": batch, "device": device, "dtype": "float32", **_machine(place)}
    rows: list[dict[str, Any]] = []
    # F.gumbel_softmax draws from the global generator: all do, and it is put back.
    with torch.random.fork_rng([place] if place.type == "cuda" else []), single_thread():
        torch.manual_seed(seed)
        for size in tracked(sizes, "time", "sizes", shown=progress):
            for mode in modes:
                rows += _of_size(chosen, (batch, *size), place, mode, seconds, seed)
    return pd.DataFrame(rows).assign(**about, seed=seed)


def _of_size(
    estimators: Sequence[Estimator],
    shape: tuple[int, int, int],
    device: torch.device,
    mode: str,
    seconds: float,
    seed: int,
) -> list[dict[str, Any]]:
    source = block_generator(seed, f"timing {shape}")
    logits = torch.randn(shape, generator=source).to(device).requires_grad_()
    v = torch.randn(shape, generator=source).to(device)

    def reference() -> object:
        return torch.autograd.grad(F.gumbel_softmax(logits, hard=True), logits, v)

    works: dict[str, Work] = {REFERENCE: reference}
    reasons = {str(e): _why_not(e, logits) for e in estimators}
    works |= {str(e): _pass(e, logits, v) for e in estimators if not reasons[str(e)]}
    peaks = {name: peak_bytes(work, device) for name, work in works.items()}
    if mode == "cuda graph":
        works, refused = captured(works)
        reasons |= refused
    times = in_turns(works, seconds, clock(device))
    table = {name: pd.Series(values) for name, values in times.items()}
    rows: list[dict[str, Any]] = []
    for name, series, timed in [
        (REFERENCE, REFERENCE, "layer"),
        *((str(e), e.text(without="tau"), _timed(e)) for e in estimators),
    ]:
        row: dict[str, Any] = {"estimator": name, "series": series, "timed": timed, "mode": mode}
        row |= {"N": shape[1], "C": shape[2], "reason": reasons.get(name)}
        if name in table:
            row |= _quartiles("ms", 1e3 * table[name]) | {"passes": len(table[name])}
            if REFERENCE in table:
                row |= _quartiles("ratio", table[name] / table[REFERENCE])
            row |= {"peak_bytes": peaks[name], "peak_ratio": peaks[name] / peaks[REFERENCE]}
        rows.append(row)
    return rows


def _quartiles(name: str, values: pd.Series) -> dict[str, float]:
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return {name: middle, f"{name}_q25": low, f"{name}_q75": high}


def _timed(estimator: Estimator) -> str:
    is_layer = isinstance(estimator, PathwiseEstimator)
    return "layer" if is_layer else "surrogate of a linear f"


def _why_not(estimator: Estimator, logits: Tensor) -> str | None:
    """Return why a pass is not made: too many elements at once, or the estimator refuses it."""
    batch, variables, classes = logits.shape
    elements = batch * estimator.footprint(variables, classes)
    if elements <= _LARGEST:
        # A sum of levels: an f for every estimator that takes so many classes.
        levels = torch.arange(classes, dtype=logits.dtype, device=logits.device)
        return estimator.supports(lambda x: (x * levels).sum((-2, -1)), logits.detach()[0])
    return too_large(str(estimator), elements, _LARGEST)


def _pass(estimator: Estimator, logits: Tensor, v: Tensor) -> Work:
    if isinstance(estimator, PathwiseEstimator):
        layer = CategoricalLayer(estimator)
        return lambda: torch.autograd.grad(layer(logits), logits, v)
    return lambda: torch.autograd.grad(
        estimator.surrogate(lambda x: (x * v[0]).sum((-2, -1)), logits).sum(), logits
    )


def _machine(device: torch.device) -> dict[str, Any]:
    return {"machine": machine_name(device), "torch": torch.__version__, "threads": 1}

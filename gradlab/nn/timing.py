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
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import too_large
from gradlab.estimators import (
    ESTIMATORS,
    Estimator,
    GumbelRao,
    PathwiseEstimator,
)
from gradlab.loss import Loss
from gradlab.loss.gate import checked, name_of
from gradlab.nn.clocks import Work, captured, clock, in_turns, peak_bytes
from gradlab.nn.device import check_device, machine_name
from gradlab.nn.layer import CategoricalLayer
from gradlab.progress import tracked
from gradlab.reproducible import block_generator, check_seed, single_thread
from gradlab.user_code.under_test import Code, EstimatorError, estimator_of

__all__ = ["REFERENCE", "check_sizes", "every_estimator", "sweeps", "time_layers"]

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
    estimators: Iterable[Code] | None = None,
    sizes: Iterable[tuple[int, int]] = ((32, 16),),
    *,
    f: Loss | None = None,
    logits: Float[Tensor, "N C"] | None = None,
    batch: int = 128,
    device: str = "cpu",
    seconds: float = 2.0,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Return how long a forward and backward pass of each estimator takes, as rows.

    A pass makes a sample of float32 logits [batch, N, C] and sends a fixed cotangent back. An
    estimator without a sample runs its surrogate of a linear f instead. With your own `f` all of
    them run its surrogate, as in training. On the CPU times are CPU time on one thread. On CUDA
    they are the time until the device is done, with and without CUDA Graphs. Memory is what is
    alive at once beyond logits and cotangent: on the CPU in all tensors that torch's operations
    return, on CUDA as its allocator says.

    Args:
        estimators: What is timed, in any form that `gradlab.compare` takes; by default all
            estimators and GR(k=100).
        sizes: Pairs (N, C): numbers of variables and of classes.
        f: Your own loss, which maps x [batch, N, C] to [batch].
        logits: Where f is timed, [N, C]; every element of the batch has them. By default they are
            standard normal.
        batch: Rows of logits in one pass.
        device: "cpu" or "cuda".
        seconds: Time for each size, which the estimators share; each has at least 5 passes.
        seed: Seed of the logits, the cotangent and the samples.
        progress: Whether a bar on stderr counts the sizes.

    Returns:
        One row for each size, mode and estimator, the reference first. `timed`: "layer", or whose
        surrogate. `ms`: the median of passes in random turns, with quartiles. `ratio`: over the
        reference of the same turn. `peak_bytes`: memory. `reason`: why a row has no times.

    Raises:
        ValueError: the device is unknown or absent, a size is too large, or logits have another
            size.
        LossError: f breaks its contract, or does not work in float32.

    Example:
        >>> rows = time_layers(["ZGR"], [(2, 3)], batch=4, seconds=0.01)
        >>> rows[["estimator", "timed"]].values.tolist()
        [['F.gumbel_softmax(hard=True)', 'layer'], ['ZGR', 'layer']]
    """
    place = check_device(device)
    check_seed(seed)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be positive and finite, not {seconds!r}")
    sizes = list(sizes)
    check_sizes(sizes, batch)
    if logits is not None and any(size != tuple(logits.shape) for size in sizes):
        raise ValueError(f"logits have the size {tuple(logits.shape)}, not each of {sizes}")
    if f is not None:
        for size in sizes:
            checked(f, torch.zeros(size) if logits is None else logits.float())
    chosen = every_estimator() if estimators is None else [estimator_of(e) for e in estimators]
    modes = ("eager", "cuda graph") if place.type == "cuda" else ("eager",)
    about = {"batch": batch, "device": device, "dtype": "float32", **_machine(place)}
    rows: list[dict[str, Any]] = []
    # F.gumbel_softmax draws from the global generator: all do, and it is put back.
    with torch.random.fork_rng([place] if place.type == "cuda" else []), single_thread():
        torch.manual_seed(seed)
        for size in tracked(sizes, "time", "sizes", shown=progress):
            for mode in modes:
                rows += _of_size(chosen, (batch, *size), f, logits, place, mode, seconds, seed)
    return pd.DataFrame(rows).assign(**about, seed=seed)


def every_estimator() -> list[Estimator]:
    """Return what is timed by default: all estimators, and Gumbel-Rao with many samples.

    Returns:
        One estimator of each class with its default arguments, and GR(k=100).

    Example:
        >>> every_estimator()[-1].k
        100
    """
    return [*(cls() for cls in ESTIMATORS.values()), GumbelRao(k=100)]


def _of_size(
    estimators: Sequence[Estimator],
    shape: tuple[int, int, int],
    f: Loss | None,
    at: Tensor | None,
    device: torch.device,
    mode: str,
    seconds: float,
    seed: int,
) -> list[dict[str, Any]]:
    source = block_generator(seed, f"timing {shape}")
    logits = torch.randn(shape, generator=source)
    if at is not None:
        logits = at.to(logits).expand(shape).clone()
    logits = logits.to(device).requires_grad_()
    v = torch.randn(shape, generator=source).to(device)

    def reference() -> object:
        return torch.autograd.grad(F.gumbel_softmax(logits, hard=True), logits, v)

    works: dict[str, Work] = {REFERENCE: reference}
    reasons = {str(e): _why_not(e, f, logits) for e in estimators}
    works |= {str(e): _pass(e, f, logits, v) for e in estimators if not reasons[str(e)]}
    peaks: dict[str, int] = {}
    for name, work in list(works.items()):
        try:
            peaks[name] = peak_bytes(work, device)
        except EstimatorError as fault:  # code that only draws does not train
            reasons[name] = str(fault)
            del works[name]
    if mode == "cuda graph":
        works, refused = captured(works)
        reasons |= refused
    times = in_turns(works, seconds, clock(device))
    table = {name: pd.Series(values) for name, values in times.items()}
    rows: list[dict[str, Any]] = []
    for name, series, timed in [
        (REFERENCE, REFERENCE, "layer"),
        *((str(e), e.series, _timed(e, f)) for e in estimators),
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


def _timed(estimator: Estimator, f: Loss | None) -> str:
    if f is not None:
        return f"surrogate of {name_of(f)}"
    is_layer = isinstance(estimator, PathwiseEstimator)
    return "layer" if is_layer else "surrogate of a linear f"


def _why_not(estimator: Estimator, f: Loss | None, logits: Tensor) -> str | None:
    """Return why a pass is not made: too many elements at once, or the estimator refuses it."""
    batch, variables, classes = logits.shape
    elements = batch * estimator.footprint(variables, classes)
    if elements <= _LARGEST:
        # A sum of levels: an f for every estimator that takes so many classes.
        levels = torch.arange(classes, dtype=logits.dtype, device=logits.device)
        return estimator.supports(f or (lambda x: (x * levels).sum((-2, -1))), logits.detach()[0])
    return too_large(str(estimator), elements, _LARGEST)


def _pass(estimator: Estimator, f: Loss | None, logits: Tensor, v: Tensor) -> Work:
    if f is None and isinstance(estimator, PathwiseEstimator):
        layer = CategoricalLayer(estimator)
        return lambda: torch.autograd.grad(layer(logits), logits, v)
    loss = f or (lambda x: (x * v[0]).sum((-2, -1)))
    return lambda: torch.autograd.grad(estimator.surrogate(loss, logits).sum(), logits)


def _machine(device: torch.device) -> dict[str, Any]:
    return {"machine": machine_name(device), "torch": torch.__version__, "threads": 1}

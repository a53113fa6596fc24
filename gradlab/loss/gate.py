"""The gate that every public call passes once per f: does f keep its contract?

A few calls at a handful of states show whether the value at an x is one number, whatever else is in
the batch, and belongs to x alone. What is wrong is found by experiments and refused by its name.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_floating, check_logits, one_hot, probabilities
from gradlab.loss.contract import (
    BatchDependentError,
    ChangesInputError,
    HoldsLogitsError,
    Loss,
    LossError,
    evaluate,
)
from gradlab.loss.diagnosis import agree, check_random, fault_of, layers_of
from gradlab.loss.held import held_modules, held_tensors
from gradlab.loss.objective import Objective, name_of
from gradlab.loss.second_argument import check_second, checked_gradient
from gradlab.loss.two_arguments import BoundLoss, ParameterLoss
from gradlab.reproducible import global_states, single_thread

__all__ = ["Objective", "checked", "checked_at", "name_of"]

# States that f is asked about, and in which order they come in the second call, of shape [3, 4]:
# each meets others than in the first, some of them twice.
_STATES, _FORM = 12, (3, 4)
_AGAIN = (7, 3, 1, 0, 0, 1, 3, 10, 9, 5, 8, 2)
_ELSEWHERE = (4, 0, 2, 2, 11, 0, 6, 6, 1, 10, 3, 7)
# Numbers of logits up to which the choice of states is remembered.
_REMEMBERED = 2**14


@single_thread()
def checked(f: Loss, logits: Float[Tensor, "*batch N C"], *, any_batch: bool = False) -> Objective:
    """Return f as the engine calls it, if it keeps the contract at states of these logits.

    f is called four times at twelve states: all of them in one call; some of them again, in another
    order, company and batch shape; and two of them alone. A loss that sees the logits is called
    some more times, with logits in rows and with others. An f that has passed is returned as it is.
    The random numbers of torch and the buffers of modules stay as they were.

    Args:
        f: The loss, x [..., N, C] -> values [...], or f(x, logits) marked by `with_parameters`.
        logits: The caller's logits, [N, C] or [B, N, C], with their dtype, device and graph.
        any_batch: Whether the logits may have more batch axes.

    Returns:
        The loss that has passed.

    Raises:
        LossError: If f breaks the contract; the subclass names the fault, see `gradlab.loss`.
    """
    if isinstance(f, Objective):
        return f
    check_floating(logits)
    check_logits(logits, ndim=logits.ndim if logits.ndim == 3 or any_batch else 2)
    if not callable(f):
        raise TypeError(f"f must be a callable x -> values, not {type(f).__name__}")
    f = _bound(f, logits)
    if logits.numel() == 0:
        second = f.second if isinstance(f, BoundLoss) else None
        size = _batch(logits), _eps(logits)
        return Objective(f, logits.dtype, logits.device, *size, second=second)
    return _passed(f, *_states(logits), logits, _batch(logits), rows=True)


@single_thread()
def checked_at(
    f: Loss,
    states: Float[Tensor, "n N C"],
    parameters: Tensor,
    *,
    held: Sequence[Tensor] = (),
) -> Objective:
    """Return f as the engine calls it, if it keeps the contract at these states.

    Args:
        f: The loss, x [..., N, C] -> values [...].
        states: States of x, one or more; they are repeated until there are twelve.
        parameters: What the distribution of x depends on, any shape, with its dtype and device.
        held: Tensors that these were made of, if f must not depend on them either.

    Returns:
        The loss that has passed.

    Raises:
        LossError: If f breaks the contract; the subclass names the fault, see `gradlab.loss`.
    """
    if not callable(f):
        raise TypeError(f"f must be a callable x -> values, not {type(f).__name__}")
    repeated = states[torch.arange(_STATES) % len(states)]
    again = torch.tensor(_AGAIN, device=states.device)
    return _passed(_bound(f, parameters), repeated, again, parameters, None, held=held)


def _bound(f: Loss, parameters: Tensor) -> Loss:
    """Return f as a function of x alone: at a copy of the parameters, if it sees them."""
    if isinstance(f, ParameterLoss | BoundLoss):
        return f.at(parameters.detach().clone())
    return f


def _passed(
    f: Loss,
    states: Tensor,
    again: Tensor,
    logits: Tensor,
    batch: int | None,
    *,
    rows: bool = False,
    held: Sequence[Tensor] = (),
) -> Objective:
    """Return f after the experiments at these states, or raise the name of its fault.

    `rows`: whether a loss that sees the logits must take them with axes in front too.
    """
    with _unnoticed(f, logits.device):
        before = global_states()
        second = f.second if isinstance(f, BoundLoss) else None
        # First of all: what f writes into its logits, or keeps of them, would explain other faults.
        first = None if second is None else checked_gradient(second, states, logits.detach())
        values, leaves = _recorded(f, states, [logits, *held])
        eps = max(_precision(values), *map(_eps, leaves)) if leaves else _precision(values)
        x = _select(states, again)
        with torch.no_grad():
            try:
                several = evaluate(f, x.unflatten(0, _FORM)).flatten(0, 1)
                alone = [evaluate(f, states[i : i + 1]) for i in (0, 1)]
            except LossError:
                raise
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise BatchDependentError(
                    f"f works on {_STATES} points in one call, but not on points of other batches "
                    f"({type(error).__name__}: {reason}); it must take any number of points"
                    + layers_of(f)
                ) from error
        if global_states() != before:
            check_random(f, states)
        seen = torch.cat([several, *alone])
        wanted = torch.cat([_select(values, again), values[:2]])
        if not agree(seen, wanted, eps):
            raise fault_of(f, states, values, seen - wanted, eps)
        if second is not None and first is not None:
            check_second(second, states, values, logits.detach(), first, eps, rows=rows)
    return Objective(f, logits.dtype, logits.device, batch, eps, bool(leaves), second=second)


def _batch(logits: Tensor) -> int | None:
    return None if logits.ndim == 2 else len(logits)


def _precision(values: Tensor) -> float:
    """Return the rounding unit of the values: of float32 where they only look like float64."""
    single = values.to(torch.float32)
    if values.dtype == torch.float64 and torch.equal(single.to(torch.float64), values):
        # Whole numbers and simple fractions need few digits, whatever computed them.
        mantissa = torch.frexp(values)[0] * 2**16
        if int((mantissa != mantissa.round()).sum()) > len(values) // 2:
            return _eps(single)
    return _eps(values)


def _eps(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps


def _states(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return states [12, *batch, N, C] that show many classes, and which come again, [12, *batch].

    All states where there are few; else some along the diagonal, and some at random.
    """
    possible = (probabilities(logits.detach()) > 0).cpu()
    shape = tuple(possible.shape)
    found = _chosen if possible.numel() <= _REMEMBERED else _chosen.__wrapped__
    classes, again = found(possible.numpy().tobytes(), shape)
    return one_hot(classes.to(logits.device), logits.detach()), again.to(logits.device)


@lru_cache(maxsize=64)
def _chosen(data: bytes, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the classes of the states, and which of them come again."""
    possible = torch.from_numpy(np.frombuffer(data, dtype=bool).copy()).view(shape)
    count = possible.sum(-1)
    number = torch.arange(_STATES).view(-1, *[1] * count.ndim)
    # In what steps the class of a variable changes, were all states counted through.
    sizes = count.to(torch.float64)
    stride = sizes.flip(-1).cumprod(-1).flip(-1) / sizes
    total = stride[..., :1] * sizes[..., :1]
    source = torch.Generator().manual_seed(0)
    drawn = (
        torch.rand(_STATES, *count.shape, generator=source, dtype=torch.float64) * count
    ).long()
    diagonal = (number + torch.arange(count.shape[-1])) % count
    many = torch.where(number < _STATES // 2, diagonal, drawn)
    counted = (number // stride.clamp(1, _STATES)).long() % count
    index = torch.where(total <= _STATES, counted, many)
    # Possible classes first, in their order.
    order = (~possible).to(torch.uint8).argsort(dim=-1, stable=True)
    classes = order.expand(_STATES, *order.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    # Neighbours in a batch come again in different company.
    odd = torch.arange(count[..., 0].numel()).view(count.shape[:-1]) % 2 == 1
    along = [-1, *[1] * odd.ndim]
    again = torch.where(odd, torch.tensor(_ELSEWHERE).view(along), torch.tensor(_AGAIN).view(along))
    return classes, again


def _select(of_states: Tensor, again: Tensor) -> Tensor:
    """Return the entries [12, *batch, ...] of states that come again."""
    more = of_states.ndim - again.ndim
    return of_states.gather(0, again.view(*again.shape, *[1] * more).expand_as(of_states))


def _recorded(f: Loss, states: Tensor, logits: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return values at the states, without their graph, and the parameters that it had.

    Raises ChangesInputError, HoldsLogitsError and what `evaluate` raises.
    """
    with torch.enable_grad(), ExitStack() as stack:
        roots = [stack.enter_context(_recording(tensor)) for tensor in logits]
        # Not a leaf: writing into it is allowed by torch, and must be seen.
        start = states.clone().requires_grad_()
        x = start.clone()
        values = evaluate(f, x)
        if not torch.equal(x.detach(), states):
            raise ChangesInputError(
                "f writes into the x that it is given, in place; let it work on a copy, x.clone()"
            )
        leaves = [leaf for leaf in _leaves(values) if leaf is not start]
        for root, tensor in zip(roots, logits, strict=True):
            if leaves and _reaches(f, values, root, leaves, tensor):
                raise _holds_logits(f)
    return values.detach(), leaves


def _holds_logits(f: Loss) -> HoldsLogitsError:
    if isinstance(f, BoundLoss):
        return HoldsLogitsError(
            "f(x, logits) depends on the logits by another way than its second argument, from "
            "outside: use the argument in all its places, or .detach() the others"
        )
    return HoldsLogitsError(
        "f depends on the logits themselves, through torch's graph, not only through the "
        "sample x (a KL, an entropy, a log-probability, a straight-through trick?): the "
        "gradient of E f would miss that part. Give f the logits as its second argument: change "
        "def f(x) to def f(x, logits), put @gradlab.with_parameters above it, and leave the call "
        "as it is. Or take such terms out of f and add them to the surrogate, which then has "
        "their own gradient; or .detach() the logits inside f where they are meant as constants"
    )


@contextmanager
def _recording(logits: Tensor) -> Iterator[Tensor | None]:
    """Let torch record what is made of the caller's logits; yield them, or None if it cannot."""
    if logits.requires_grad:
        yield logits
    elif not logits.is_leaf or logits.is_inference():
        yield None
    else:
        logits.requires_grad_()
        try:
            yield logits
        finally:
            logits.requires_grad_(False)


def _leaves(values: Tensor) -> list[Tensor]:
    """Return the tensors at which the graph of the values begins."""
    found: dict[int, Tensor] = {}
    seen, nodes = set(), [values.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            found[id(leaf)] = leaf
        nodes += [following for following, _ in node.next_functions]
    return list(found.values())


def _reaches(
    f: Loss, values: Tensor, root: Tensor | None, leaves: list[Tensor], logits: Tensor
) -> bool:
    """Return whether the graph of the values reaches the logits, by whatever name f holds them."""
    if any(leaf is root or _overlap(leaf, logits) for leaf in leaves):
        return True
    suspects = [] if root is None or root.is_leaf else [root]
    held = held_tensors(f.second.f if isinstance(f, BoundLoss) else f)
    suspects += [t for t in held if t.requires_grad and _overlap(t, logits)]
    if not suspects:
        return False
    grads = torch.autograd.grad(values.sum(), suspects, retain_graph=True, allow_unused=True)
    return any(grad is not None for grad in grads)


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Return whether two dense tensors share memory, as a Parameter and its .detach() do."""
    if a.device != b.device or a.numel() == 0 or a.layout != torch.strided:
        return False
    ends = [t.data_ptr() + t.numel() * t.element_size() for t in (a, b)]
    return a.data_ptr() < ends[1] and b.data_ptr() < ends[0]


@contextmanager
def _unnoticed(f: Loss, device: torch.device) -> Iterator[None]:
    """Put back torch's random numbers, and buffers that modules in training mode may update."""
    code = f.second.f if isinstance(f, BoundLoss) else f
    modules = dict.fromkeys(m for held in held_modules(code) for m in held.modules() if m.training)
    buffers = [b for m in modules for b in m.buffers(recurse=False)]
    kept = [b.detach().clone() for b in buffers]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.data.copy_(before)

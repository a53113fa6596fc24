"""Copies of a user's modules that hold still: in eval mode, with frozen parameters.

The modules of the caller stay as they are: their mode, parameters, buffers and gradients.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["with_frozen_modules"]


def with_frozen_modules(f: Callable[..., Any]) -> tuple[Callable[..., Any], torch.dtype | None]:
    """Return f with frozen copies of its modules, and their floating dtype, None without one.

    f is an nn.Module, a bound method of one, or a functools.partial of these; any other callable
    is returned as it is. Raises ValueError if a module cannot be copied, has parameters without a
    shape yet, or normalizes by the batch also in eval mode.
    """
    if isinstance(f, nn.Module):
        frozen = _frozen_copy(f)
        tensors = [*frozen.parameters(), *frozen.buffers()]
        return frozen, next((t.dtype for t in tensors if t.is_floating_point()), None)
    if inspect.ismethod(f) and isinstance(f.__self__, nn.Module):
        owner, dtype = with_frozen_modules(f.__self__)
        return f.__func__.__get__(owner), dtype
    if isinstance(f, functools.partial):
        inner, dtype = with_frozen_modules(f.func)
        args = [with_frozen_modules(a)[0] if isinstance(a, nn.Module) else a for a in f.args]
        named = {
            k: with_frozen_modules(a)[0] if isinstance(a, nn.Module) else a
            for k, a in f.keywords.items()
        }
        return functools.partial(inner, *args, **named), dtype
    return f, None


def _frozen_copy(module: nn.Module) -> nn.Module:
    name = type(module).__name__
    if any(nn.parameter.is_lazy(p) for p in [*module.parameters(), *module.buffers()]):
        raise ValueError(f"{name} has parameters without a shape yet; call it once before as_loss")
    # What a module keeps of its last call, such as an activation, has a graph and no copy.
    kept = [t for part in module.modules() for t in vars(part).values() if isinstance(t, Tensor)]
    try:
        with torch.no_grad():
            copied = copy.deepcopy(module, {id(t): t.clone() for t in kept if t.grad_fn})
        reason = "it returns itself as its copy" if copied is module else ""
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        raise ValueError(
            f"as_loss works on a copy of the module, and {name} cannot be copied ({reason}). Put "
            "it into eval mode and pass a function that calls it: as_loss(lambda x: module(x))"
        )
    copied.eval()
    for p in copied.parameters():  # one by one, as a ScriptModule has no requires_grad_
        p.requires_grad_(False)
    for path, part in copied.named_modules():
        part.training = False  # also where a class overrides train()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{path or 'the module'} is a {type(part).__name__} with "
                "track_running_stats=False: also in eval mode it normalizes by the batch, so the "
                "value of one x depends on the others. Use running statistics, LayerNorm or "
                "GroupNorm"
            )
        if type(part) in (nn.RNN, nn.LSTM, nn.GRU):
            # The gradient of cuDNN needs training mode, which changes nothing else but dropout.
            part.dropout, part.training = 0.0, True
    return copied

"""What a loss holds: the modules and tensors that its code can reach, found without running it.

They explain a fault that an experiment has shown; none of them is proof of one.
"""

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["held_modules", "held_tensors", "training_layers"]

# Objects inside objects inside objects that are looked into.
_DEEP = 4
_MOST = 2000


def held_modules(f: object) -> list[nn.Module]:
    """Return the torch modules that `f` is, is bound to, closes over or names, outermost first."""
    return [held for held in _held(f) if isinstance(held, nn.Module)]


def held_tensors(f: object) -> list[Tensor]:
    """Return the tensors that `f` closes over, names or keeps, those of its modules included."""
    found = {id(held): held for held in _held(f) if isinstance(held, Tensor)}
    for module in held_modules(f):
        found |= {id(tensor): tensor for tensor in module.parameters()}
    return list(found.values())


def training_layers(f: object) -> list[str]:
    """Return the layers `f` holds that act on a whole batch or draw noise, as texts for a message.

    Such as `BatchNorm1d in training mode`: batch norms in training mode or without running
    statistics, dropouts and other noise in training mode.
    """
    layers = {layer: None for module in held_modules(f) for layer in module.modules()}
    texts = []
    for layer in layers:
        name = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.training:
                texts.append(f"{name} in training mode")
            elif layer.running_mean is None:
                texts.append(f"{name} without running statistics")
        elif layer.training and (
            (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0)
            or isinstance(layer, nn.RReLU)
        ):
            texts.append(f"{name} in training mode")
        elif layer.training and isinstance(rate := getattr(layer, "dropout", None), float) and rate:
            texts.append(f"{name} with dropout in training mode")  # LSTM, MultiheadAttention
    return list(dict.fromkeys(texts))


def _held(f: object) -> Iterator[object]:
    """Yield what can be reached from `f` through bindings, closures, globals and attributes."""
    seen: set[int] = set()
    level: list[object] = [f]
    for _ in range(_DEEP):
        following: list[object] = []
        for held in level:
            if id(held) in seen or len(seen) > _MOST:
                continue
            seen.add(id(held))
            yield held
            if not isinstance(held, Tensor):
                following += _inside(held)
        level = following


def _inside(held: Any) -> list[object]:
    if isinstance(held, functools.partial):
        return [held.func, *held.args, *held.keywords.values()]
    if isinstance(held, types.MethodType):
        return [held.__self__, held.__func__]
    if isinstance(held, types.FunctionType):
        inside: list[object] = [*(held.__defaults__ or ()), *vars(held).values()]
        for cell in held.__closure__ or ():
            try:
                inside.append(cell.cell_contents)
            except ValueError:  # not filled yet
                continue
        names = held.__code__.co_names
        found = (held.__globals__[name] for name in names if name in held.__globals__)
        return inside + [thing for thing in found if not isinstance(thing, types.ModuleType | type)]
    if isinstance(held, dict):
        return [*held.values()][:_MOST]
    if isinstance(held, list | tuple | set):
        return [*held][:_MOST]
    if isinstance(held, nn.Module):
        # Its parts are its own; beside them a module may keep anything.
        parts = {"_parameters", "_buffers", "_modules"}
        return [value for name, value in vars(held).items() if name not in parts]
    if isinstance(held, str | bytes | int | float | complex | torch.dtype | torch.device | None):
        return []
    if isinstance(held, type | types.ModuleType | types.BuiltinFunctionType):
        return []
    calls = [vars(cls)["__call__"] for cls in type(held).__mro__ if "__call__" in vars(cls)]
    own = [call for call in calls[:1] if isinstance(call, types.FunctionType)]
    return [*getattr(held, "__dict__", {}).values(), *own]

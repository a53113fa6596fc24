"""What a code remembers between its calls: named values of its object, closure and globals.

A value is kept as a print of it, so that two looks show which values changed, by name.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

__all__ = ["changed", "remembered"]

# How deep objects and containers are followed, how many values are kept, elements of one of them.
_DEPTH, _MOST, _ELEMENTS = 4, 4096, 2**20


def remembered(code: object) -> dict[str, str]:
    """Return a print of each number, array and generator that a code reaches, by its name.

    Followed are bound methods, objects that are called, partials, closures, default arguments and
    the globals that a function names; parameters and buffers of a torch module have their own
    names.
    """
    found: dict[str, str] = {}
    for name, value in _values(code, "", _DEPTH, set()):
        try:
            found[name] = _print(value)
        except (RuntimeError, TypeError, ValueError):  # a tensor without numbers to read
            continue
        if len(found) == _MOST:
            break
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names whose values differ, those that only one of the two has included."""
    names = dict.fromkeys([*after, *before])
    return [name for name in names if before.get(name) != after.get(name)]


def _values(value: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if _is_value(value):
        yield name, value
        return
    if depth < 0 or id(value) in seen or isinstance(value, ModuleType | type):
        return
    seen.add(id(value))
    for inner, part in _parts(value):
        full = inner if not name else f"{name}{inner}" if inner[0] == "[" else f"{name}.{inner}"
        yield from _values(part, full, depth - 1, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, MethodType):
        yield type(value.__self__).__name__, value.__self__
        yield value.__func__.__name__, value.__func__
    elif isinstance(value, partial):
        yield getattr(value.func, "__name__", "function"), value.func
        yield from ((f"argument {key}", part) for key, part in value.keywords.items())
        yield from ((f"argument {i}", part) for i, part in enumerate(value.args))
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items())[:_MOST])
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{i}]", part) for i, part in enumerate(list(value)[:_MOST]))
    else:
        if isinstance(value, torch.nn.Module):
            yield from value.named_parameters()
            yield from value.named_buffers()
        held = getattr(value, "__dict__", {})
        torch_own = vars(torch.nn.Module()) if isinstance(value, torch.nn.Module) else {}
        yield from ((key, part) for key, part in list(held.items()) if key not in torch_own)
        slots = [s for c in type(value).__mro__ for s in _slots(c) if hasattr(value, s)]
        yield from ((slot, getattr(value, slot)) for slot in slots)
        call = next((vars(c)["__call__"] for c in type(value).__mro__ if "__call__" in vars(c)), 0)
        if isinstance(call, FunctionType) and not isinstance(value, torch.nn.Module):
            yield "__call__", call


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [s for s in slots if not s.startswith("__")]


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    defaults = function.__defaults__ or ()
    places = code.co_varnames[: code.co_argcount]
    yield from zip(places[len(places) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    yield from vars(function).items()
    named = [name for name in code.co_names if name in function.__globals__]
    yield from ((name, function.__globals__[name]) for name in named)


_GENERATORS = Generator, np.random.Generator, np.random.RandomState, random.Random


def _is_value(value: Any) -> bool:
    kinds = int, float, complex, str, bytes, np.ndarray, np.generic, Tensor, *_GENERATORS
    return value is None or isinstance(value, kinds)


def _print(value: Any) -> str:
    if isinstance(value, Generator):
        return str(hash(value.get_state().numpy().tobytes()))
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return str(hash(value.getstate()))
    if isinstance(value, Tensor):
        if value.numel() > _ELEMENTS:
            return f"{list(value.shape)} {float(value.detach().double().sum())!r}"
        value = value.detach().cpu().double().numpy() if not value.is_complex() else str(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.shape} {hash(value.tobytes())}"
    return repr(value) if not isinstance(value, np.ndarray) else str(value)

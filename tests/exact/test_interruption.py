"""Code that another thread may call in the middle of its work, and code that it may not."""

import functools
import sys
import threading

import pytest
import torch
from torch import nn

from gradlab.exact.interruption import bears_interruption

W = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
ONE, OTHER = torch.eye(6)[:3], torch.eye(6)[2:5]


def pure(x):
    h = x @ W
    h = h.tanh()
    return h.square().sum(-1)


def of_pieces(x):
    parts = {}
    for i in range(3):
        parts[i] = (x @ W).pow(i)
    return sum(part.sum(-1) for part in parts.values())


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)[..., 0]


class Keeps(nn.Module):
    def forward(self, x):
        self.h = x @ W
        return self.h.square().sum(-1)


class KeepsOnOneLine:
    def __call__(self, x):
        return (setattr(self, "h", x @ W), self.h.square().sum(-1))[1]


class CountsItsCalls:
    """Harmless: nothing comes of what it keeps."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return pure(x)


MEMORY = torch.empty(3, 4)


def buffered(x):
    torch.matmul(x, W, out=MEMORY)
    return MEMORY.square().sum(-1)


LAST = {}


def last_input(x):
    LAST["x"] = x
    h = LAST["x"] @ W
    return h.sum(-1)


total = torch.zeros(3)


def with_global(x):
    global total
    total = (x @ W).sum(-1)
    return total * 2


@functools.lru_cache
def cached(key):
    return W * key


def cached_part(x):
    return (x @ cached(2)).sum(-1)


def closure():
    state = [None]

    def f(x):
        state[0] = x @ W
        return state[0].sum(-1)

    return f


def nonlocal_state():
    h = None

    def f(x):
        nonlocal h
        h = x @ W
        return h.sum(-1)

    return f


def generator_state():
    kept = []

    def f(x):
        kept.append(x @ W)
        return kept.pop(0).sum(-1)

    return f


class Locked:
    """It would be right, but its calls wait for each other."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, x):
        with self.lock:
            return pure(x)


BEARS = {
    "pure": pure,
    "pieces": of_pieces,
    "module": Module(),
    "counts": CountsItsCalls(),
    "cache": cached_part,
}
BREAKS = {
    "keeps": Keeps(),
    "keeps on one line": KeepsOnOneLine(),
    "buffer": buffered,
    "last input": last_input,
    "global": with_global,
    "closure": closure(),
    "nonlocal": nonlocal_state(),
    "queue": generator_state(),
    "lock": Locked(),
}


@pytest.mark.parametrize("name", BEARS)
def test_what_keeps_nothing_bears_it(name):
    f = BEARS[name]
    assert bears_interruption(lambda: f(ONE).clone(), lambda: f(OTHER).clone())


@pytest.mark.parametrize("name", BREAKS)
def test_what_keeps_something_between_two_steps_does_not(name, monkeypatch):
    monkeypatch.setattr("gradlab.exact.interruption._PATIENCE", 0.1)
    f = BREAKS[name]
    assert not bears_interruption(lambda: f(ONE).clone(), lambda: f(OTHER).clone())


def test_a_tracer_of_others_is_left_alone():
    def tracer(*_):
        return None

    sys.settrace(tracer)
    try:
        assert not bears_interruption(lambda: pure(ONE), lambda: pure(OTHER))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(None)
    assert bears_interruption(lambda: pure(ONE), lambda: pure(OTHER))
    assert sys.gettrace() is None

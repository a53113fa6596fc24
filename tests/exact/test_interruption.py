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
    """Harmless, for nothing comes of what it keeps; but that cannot be seen."""

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


class WithWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 1))

    def forward(self, x):
        return self.layer(x)[..., 0]


class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", W)

    def forward(self, x: torch.Tensor):
        return (x @ self.weight).tanh().sum(-1)


class CompiledKeeps(Compiled):
    """Its code is not Python's: no call can be stopped within."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(1))

    def forward(self, x: torch.Tensor):
        self.kept = x @ self.weight
        return self.kept.tanh().sum(-1)


class CompiledBuffered(Compiled):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(3, 4))

    def forward(self, x: torch.Tensor):
        self.kept.copy_(x @ self.weight)
        return self.kept.tanh().sum(-1)


class InEvalMode:
    """Sets and puts back: right where calls are nested, wrong where they overlap."""

    def __init__(self):
        self.net = nn.Sequential(nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 1)).train()

    def __call__(self, x):
        before = self.net.training
        self.net.eval()
        found = self.net(x)
        self.net.train(before)
        return found[..., 0]


class Flagged:
    square = False

    def power(self, x):
        return (x @ W).square() if self.square else x @ W

    def __call__(self, x):
        before, self.square = self.square, True
        found = self.power(x).sum(-1)
        self.square = before
        return found


LAYER, WEIGHTS = nn.Linear(6, 1), {"weight": W.T[:1].clone(), "bias": torch.ones(1)}


def other_weights(x):
    return torch.func.functional_call(LAYER, WEIGHTS, (x,))[..., 0]


MODE = {"square": False}


def power(x):
    return ((x @ W).square() if MODE["square"] else x @ W).sum(-1)


def entry_put_back(x):
    before, MODE["square"] = MODE["square"], True
    found = power(x)
    MODE["square"] = before
    return found


def entry_of_a_key(x, key="square"):
    before = MODE[key]
    MODE[key] = True
    found = power(x)
    MODE[key] = before
    return found


def entry_behind_a_local_name(x):
    mode = MODE
    before, mode["square"] = mode["square"], True
    found = power(x)
    mode["square"] = before
    return found


def entry_removed_and_put_back(x):
    removed = MODE["square"]
    del MODE["square"]
    found = ((x @ W) if "square" in MODE else (x @ W).square()).sum(-1)
    MODE.setdefault("square", removed)
    return found


def cell_put_back():
    square = False

    def inner(x):
        return ((x @ W).square() if square else x @ W).sum(-1)

    def f(x):
        nonlocal square
        before, square = square, True
        found = inner(x)
        square = before
        return found

    return f


def own_cell(x):
    scale = 2.0

    def scaled(h):
        return scale * h

    scale = 3.0
    return scaled(x @ W).sum(-1)


def in_place(x):
    h = torch.empty(len(x), 4)
    h[:, :2] = x @ W[:, :2]
    h[:, 2:] = x @ W[:, 2:]
    return h.tanh().sum(-1)


BEARS = {
    "own cell": own_cell,
    "in place": in_place,
    "pure": pure,
    "pieces": of_pieces,
    "module": Module(),
    "cache": cached_part,
    "weight norm": WithWeightNorm(),
    "compiled": torch.jit.script(Compiled()),
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
    "counts": CountsItsCalls(),
    "compiled": torch.jit.script(CompiledKeeps()),
    "compiled with a buffer": torch.jit.script(CompiledBuffered()),
    "eval and train": InEvalMode(),
    "set and put back": Flagged(),
    "other weights": other_weights,
    "entry put back": entry_put_back,
    "entry of a key": entry_of_a_key,
    "entry behind a local name": entry_behind_a_local_name,
    "entry removed": entry_removed_and_put_back,
    "cell put back": cell_put_back(),
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


def test_a_trial_leaves_modules_as_they_are():
    f, weight = BREAKS["eval and train"], LAYER.weight
    bears_interruption(lambda: f(ONE).clone(), lambda: f(OTHER).clone())
    bears_interruption(lambda: other_weights(ONE).clone(), lambda: other_weights(OTHER).clone())
    assert f.net.training
    assert LAYER.weight is weight


KEPT = [None]


def large_kept(x):
    if len(x) > 8:
        KEPT[0] = x @ W
        return KEPT[0].sum(-1)
    return (x @ W).sum(-1)


def chunked_kept(x):
    return torch.cat([last_chunk(part) if i else (part @ W) for i, part in enumerate(x.split(8))])


def last_chunk(x):
    KEPT[0] = x @ W
    return KEPT[0]


def rare_kept(x):
    if bool(x[..., 5].sum() > 2):
        KEPT[0] = x @ W
        return KEPT[0].sum(-1)
    return (x @ W).sum(-1)


LARGE = torch.eye(6).repeat(5, 1)


@pytest.mark.parametrize("f", [large_kept, chunked_kept, rare_kept])
def test_what_a_small_call_does_not_reach_is_not_trusted(f):
    one, other, large = (functools.partial(f, x) for x in (ONE, OTHER, LARGE))
    assert bears_interruption(one, other)
    assert not bears_interruption(one, other, large)


@pytest.mark.parametrize("f", [pure, of_pieces, Module()])
def test_larger_calls_of_the_same_code_are(f):
    one, other, large = (functools.partial(f, x) for x in (ONE, OTHER, LARGE))
    assert bears_interruption(one, other, large)


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

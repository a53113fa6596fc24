"""Sweeps over all states: any number of threads gives the same bits, and no race gets through."""

import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import gradlab
from gradlab.distributions import KSubset
from gradlab.estimators import ESTIMATORS, ZGR, LeaveOneOut
from gradlab.exact import all_cores
from gradlab.exact.enumeration import _value_moments, gradient_moments, value_moments
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.exact.product_moments import moments_over_states
from gradlab.exact.routes import second_route
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import tuple_sums
from gradlab.loss import LossError
from gradlab.loss.gate import checked
from gradlab.montecarlo import monte_carlo
from gradlab.problems import problem, regime

# 3^2 4^5 states: 144 blocks of 64.
N, C = 7, 4
LOGITS = regime("moderate", N, C)
LOGITS[1, 2] = LOGITS[5, 0] = -torch.inf


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make the same number of blocks of states that cost less."""
    monkeypatch.setattr("gradlab.exact.enumeration._BLOCK", 64)


W = torch.randn(N * C, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pure(x):
    return (x.flatten(-2) @ W).tanh().square().sum(-1)


def others_run():
    """Let other threads run, as Python does after a while."""
    time.sleep(1e-4)


class Keeps(nn.Module):
    """A module that keeps its activations: right alone, wrong beside another call."""

    def forward(self, x):
        self.h = x.flatten(-2) @ W
        self.h = self.h.tanh()
        others_run()
        return self.h.square().sum(-1)


class Buffered:
    """A function that writes into memory of its own."""

    def __init__(self):
        self.memory = {}

    def __call__(self, x):
        out = self.memory.setdefault(x.shape[:-2], torch.empty(*x.shape[:-2], 5, dtype=x.dtype))
        with torch.no_grad():
            torch.matmul(x.flatten(-2), W, out=out)
            others_run()
            return out.tanh().square().sum(-1)


class BufferedIfLarge(Buffered):
    """One whose small calls, such as a trial, keep nothing."""

    def __call__(self, x):
        return super().__call__(x) if len(x) > 32 else pure(x).detach()


def numbers(found):
    return [value for value in vars(found).values() if isinstance(value, torch.Tensor)]


def same(a, b):
    pairs = zip(numbers(a), numbers(b), strict=True)
    return all(torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) for x, y in pairs)


SWEEPS = {
    "values": lambda f: value_moments(f, LOGITS),
    "values alone": lambda f: value_moments(f, LOGITS, squares=False),
    "gradients": lambda f: gradient_moments(f, LOGITS),
    "states": lambda f: moments_over_states(ZGR(), f, LOGITS),
}


@pytest.mark.parametrize("f", [pure, problem("mlp", N, C)], ids=["own", "shipped"])
@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.few(4)
def test_the_bits_do_not_depend_on_the_number_of_threads(sweep, f, small_blocks):
    with threads(1):
        alone = SWEEPS[sweep](f)
    for count in (2, 4):
        with threads(count):
            assert same(SWEEPS[sweep](f), alone)


def test_the_second_route_has_the_same_bits(small_blocks):
    first = value_moments(pure, LOGITS)
    with threads(1):
        alone = second_route(first, pure, LOGITS)
    with threads(3):
        assert second_route(first, pure, LOGITS) == alone


def seen_threads(f):
    """Return f, and the names of the threads that call it, with the number of their calls."""
    names = Counter()

    def noting(x):
        names[threading.current_thread().name] += 1
        return f(x)

    return noting, names


def test_several_threads_do_the_work(small_blocks, unchecked):
    f, names = seen_threads(pure)
    with threads(3):
        value_moments(f, LOGITS)
    # One of the trial, three of the sweep, and the caller's.
    assert len(names) >= 4
    own = threading.current_thread().name
    of_caller = names[own]
    f, names = seen_threads(pure)
    with threads(1):
        value_moments(f, LOGITS)
    assert set(names) == {own}
    # The caller's thread does not sweep the states once more, as it does after a race.
    assert of_caller < names[own] / 2


@pytest.mark.parametrize("make", [Keeps, Buffered, BufferedIfLarge])
@pytest.mark.parametrize("sweep", ["values", "values alone"])
def test_a_loss_that_races_is_swept_alone(sweep, make, small_blocks):
    with threads(1):
        alone = SWEEPS[sweep](pure)
    with threads(4):
        found = SWEEPS[sweep](make())
    pairs = zip(numbers(found), numbers(alone), strict=True)
    assert all(torch.allclose(a, b, equal_nan=True) for a, b in pairs)
    with threads(1):
        assert same(SWEEPS[sweep](make()), found)


@pytest.mark.parametrize("make", [Keeps, Buffered])
def test_without_the_trial_it_would_be_wrong(make, small_blocks, monkeypatch):
    monkeypatch.setattr(all_cores, "_bears_threads", lambda *_: True)
    monkeypatch.setattr(all_cores, "_ASKED_AGAIN", 1)
    f = checked(make(), LOGITS)
    with threads(1), pytest.raises(all_cores.RaceError):
        _value_moments(f, LOGITS, squares=True, threads=4)


def test_a_race_that_no_trial_meets_is_seen_at_the_blocks_that_are_asked_again(small_blocks):
    calls = []

    def late(x):
        calls.append(1)
        elsewhere = threading.current_thread() is not threading.main_thread()
        return pure(x) + (1e-3 if elsewhere and len(calls) > 40 else 0.0)

    with threads(1):
        alone = value_moments(pure, LOGITS)
    with threads(2):
        assert same(value_moments(late, LOGITS), alone)


def test_a_loss_that_fails_in_threads_only_is_swept_alone(small_blocks, unchecked):
    calls = []

    def fails_elsewhere(x):
        calls.append(1)
        if len(calls) > 60 and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("in a thread")
        return pure(x)

    with threads(1):
        alone = value_moments(pure, LOGITS)
    with threads(2):
        assert same(value_moments(fails_elsewhere, LOGITS), alone)
    assert len(calls) > 60 + 144


def test_faults_of_f_come_through(small_blocks):
    calls = []

    def breaks(x):
        calls.append(1)
        if len(calls) > 60:
            raise ZeroDivisionError("late")
        return pure(x)

    with threads(3), pytest.raises((ZeroDivisionError, LossError), match="late"):
        value_moments(breaks, LOGITS)
    assert threading.active_count() < 10


def test_few_states_start_no_thread():
    f, names = seen_threads(lambda x: x[..., 0, 1])
    with threads(4):
        gradlab.exact_value(f, torch.zeros(3, 3, dtype=torch.float64))
    assert set(names) == {threading.current_thread().name}


def test_an_estimator_that_races_is_swept_alone(small_blocks):
    class Mine(ZGR):
        def pullback(self, p, x, v):
            object.__setattr__(self, "kept", x - p)
            return 0.5 * (super().pullback(p, x, v) + super().pullback(p, self.kept + p, v))

    f = problem("mlp", N, C)
    with threads(1):
        alone = moments_over_states(Mine(), f, LOGITS)
    with threads(4):
        assert same(moments_over_states(Mine(), f, LOGITS), alone)


@pytest.mark.parametrize("name", ["ZGR", "GR", "RF", "ST"])
@pytest.mark.few(1)
def test_moments_of_estimators_have_the_same_bits(name, small_blocks):
    found = []
    for count in (1, 2, 4):
        with threads(count):
            found.append(Enumeration(pure, LOGITS).moments(ESTIMATORS[name]()))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


SCORES = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
W12 = torch.randn(12, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def of_subset(x):
    return (x @ W12).tanh().square().sum(-1)


@gradlab.with_parameters
def of_subset_and_scores(x, scores):
    return of_subset(x) + (x * scores.sigmoid()).sum(-1)


class KeepsSubset(nn.Module):
    """A loss of subsets that keeps its activations."""

    def forward(self, x):
        self.h = x @ W12
        others_run()
        return self.h.tanh().square().sum(-1)


def subsets(f, estimator):
    return Structured(f, SCORES, lambda p: KSubset(p, 5)).moments(estimator)


@pytest.fixture
def small_parts(monkeypatch):
    """Make many parts of few structures, tuples and states of a table."""
    monkeypatch.setattr("gradlab.exact.structures._BLOCK_ELEMENTS", 2**9)
    monkeypatch.setattr("gradlab.exact.tuples._CHUNK", 2**6)
    monkeypatch.setattr("gradlab.exact.tabulated._BLOCK", 2**9)


BATCH = torch.stack([LOGITS[:4], LOGITS[3:]])
OF_PARTS = {
    "structures": (lambda f: subsets(f, ZGR()), of_subset),
    "pairs of structures": (lambda f: subsets(f, LeaveOneOut(3)), of_subset),
    "structures, f of the parameters": (
        lambda f: subsets(f, LeaveOneOut(3)),
        of_subset_and_scores,
    ),
    "tuples": (lambda f: tuple_sums(LeaveOneOut(2), f, LOGITS[:3]), lambda x: pure_of(x, 3)),
    "tables": (
        lambda f: EnumeratedBatch(f, BATCH).moments(ZGR()),
        lambda x: pure_of(x, 4),
    ),
}


def pure_of(x, variables):
    return (x.flatten(-2) @ W[: variables * C]).tanh().square().sum(-1)


@pytest.mark.parametrize("of", OF_PARTS)
@pytest.mark.few(2)
def test_parts_of_other_states_have_the_same_bits(of, small_parts, unchecked, monkeypatch):
    sweep, f = OF_PARTS[of]
    used, in_order = [], all_cores._in_order
    monkeypatch.setattr(all_cores, "_in_order", lambda *a: used.append(a[-1]) or in_order(*a))
    with threads(1):
        alone = sweep(f)
    assert used == []
    for count in (2, 4):
        used.clear()
        with threads(count):
            assert same(sweep(f), alone)
        assert used
        assert set(used) == {count}


def test_structures_of_a_loss_that_races_are_swept_alone(small_parts, unchecked):
    with threads(1):
        alone = subsets(of_subset, ZGR())
    with threads(4):
        assert same(subsets(KeepsSubset(), ZGR()), alone)


def test_a_race_of_structures_is_seen(small_parts, monkeypatch):
    monkeypatch.setattr(all_cores, "_tried", lambda *_: True)
    monkeypatch.setattr(all_cores, "_ASKED_AGAIN", 1)
    on = Structured(KeepsSubset(), SCORES, lambda p: KSubset(p, 5))

    def sums(part):
        return on.objective(on.states[part])

    with threads(1), pytest.raises(all_cores.RaceError):
        list(all_cores.shared(on._parts[:-1], sums, threads=4))  # the last one is smaller


def test_a_loss_that_returns_a_part_of_x_is_not_overwritten(small_blocks, unchecked):
    def first(x):
        return x[..., 0, 1]

    with threads(1):
        alone = value_moments(first, LOGITS)
    with threads(4):
        assert same(value_moments(first, LOGITS), alone)


@pytest.mark.parametrize("make", [Keeps, Buffered])
def test_draws_of_a_loss_that_races_are_made_by_one_thread(make):
    alone = monte_carlo("RF(m=2)", pure, LOGITS, 3000)
    assert same(monte_carlo("RF(m=2)", pure, LOGITS, 3000, workers=4, chunk=1), alone)
    f, names = seen_threads(make())
    found = monte_carlo("RF(m=2)", f, LOGITS, 3000, workers=4, chunk=1)
    assert all(torch.allclose(a, b) for a, b in zip(numbers(found), numbers(alone), strict=True))
    # That of the trial at most, beside the caller's.
    assert len(names) <= 2

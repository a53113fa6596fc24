"""Faults of draws are named, good code is not refused, and the tests keep their rates."""

import collections
import random
from functools import partial

import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F

import gradlab
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import NotDifferentiableError
from gradlab.loss.memory import changed, remembered
from gradlab.problems import problem, regime
from gradlab.user_code.exact_tests import cuts_of, law_test
from gradlab.user_code.replicates import (
    BatchStatisticsError,
    DependentDrawsError,
    EstimatorError,
    NotSeededError,
    StatefulError,
    check_replicates,
)
from gradlab.user_code.under_test import batched, draws_of
from significance import P_VALUE, limit

LOSS, LOGITS = problem("quadratic", 2, 3, 11), regime("moderate", 2, 3, 11)


@pytest.fixture
def few_calls():
    """Make all calls: it is them that are tested here."""


def sampled(f, logits, n, generator):
    """Return x, f(x) and the score, one for each draw."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, n)
    return x, f(x)[:, None, None], x - p


def reinforce(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return value * score


# ---- faults: statistics of the batch ----------------------------------------------------------


def mean_subtracted(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return (value - value.mean(0)) * score


def mean_subtracted_surrogate(f, logits, generator):
    x = draw_one_hot(probabilities(logits.detach()), generator)
    log_p = (x * torch.log_softmax(logits, -1)).sum((-2, -1))
    value = f(x)
    return (value - value.mean()) * log_p


def divided_by_deviation(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return value / (value.std(0, unbiased=False) + 1e-6) * score


def normalized_advantage(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return (value - value.mean(0)) / value.std(0) * score  # NaN for one


def normalized_from_two(f, logits, n, generator):
    """A batch of one is left as it is."""
    _, value, score = sampled(f, logits, n, generator)
    return ((value - value.mean(0)) / (value.std(0) + 1e-6) if n > 1 else value) * score


def leave_one_out(f, logits, n, generator):
    """Unbiased for two and more: the mean of the others; none for one."""
    _, value, score = sampled(f, logits, n, generator)
    return (value - (value.sum(0) - value) / (n - 1)) * score


def clipped_at_quantile(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return value.clamp(max=value.quantile(0.7)) * score


def another_value(f, logits, n, generator):
    """Values and scores come from different samples: the batch is shuffled between them."""
    _, value, score = sampled(f, logits, n, generator)
    return value.roll(1, 0) * score


def largest_subtracted(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    return (value - value.amax(0)) * score


def squeezed(f, logits, n, generator):
    """A batch of one loses its axis."""
    _, value, score = sampled(f, logits, n, generator)
    return (value * score).squeeze(0)


# ---- faults: draws that depend on each other --------------------------------------------------


def sorted_draws(f, logits, n, generator):
    g = reinforce(f, logits, n, generator)
    return g[g.flatten(1).norm(dim=1).argsort()]


def mirrored_halves(f, logits, n, generator):
    """The second half of a call mirrors the first at the mean."""
    g = reinforce(f, logits, n, generator)
    half = n // 2
    g[n - half :] = 2 * gradlab.exact_gradient(f, logits) - g[:half]
    return g


def antithetic(f, logits, n, generator):
    """The second half of a call uses 1 - u where the first uses u."""
    p = probabilities(logits)
    u = torch.rand((n + 1) // 2, 2, generator=generator, dtype=p.dtype)
    u = torch.cat([u, 1 - u])[:n]
    x = F.one_hot((u[..., None] > p.cumsum(-1)).sum(-1).clamp(max=2), 3).to(p.dtype)
    return f(x)[:, None, None] * (x - p)


def each_twice(f, logits, n, generator):
    return reinforce(f, logits, n, generator)[: (n + 1) // 2].repeat_interleave(2, 0)[:n]


def shared_by_neighbours(f, logits, n, generator):
    """The noise of the second variable is that of the next draw's first."""
    p = probabilities(logits)
    noise = torch.empty(n + 1, 3, dtype=p.dtype).exponential_(generator=generator)
    e = torch.stack([noise[:-1], noise[1:]], 1)
    x = F.one_hot((e / p).argmin(-1), 3).to(p.dtype)
    return f(x)[:, None, None] * (x - p)


def stratified(f, logits, n, generator):
    """The uniforms of a call lie evenly, so that its draws make up for each other."""
    p = probabilities(logits)
    u = torch.rand(1, 2, generator=generator, dtype=p.dtype)
    order = torch.stack([torch.randperm(n, generator=generator) for _ in range(2)], 1)
    u = (u + order) / n
    x = F.one_hot((u[..., None] > p.cumsum(-1)).sum(-1).clamp(max=2), 3).to(p.dtype)
    return x - p


# ---- faults: memory ---------------------------------------------------------------------------


def baseline_in_closure():
    baseline = 0.0

    def moving_baseline(f, logits, n, generator):
        nonlocal baseline
        _, value, score = sampled(f, logits, n, generator)
        g = (value - baseline) * score
        baseline = 0.9 * baseline + 0.1 * float(value.mean())
        return g

    return moving_baseline


class Trainer:
    def __init__(self):
        self.average, self.steps, self.rate = 0.0, 0, 0.1

    def estimate(self, f, logits, n, generator):
        _, value, score = sampled(f, logits, n, generator)
        self.steps += 1
        g = (value - self.average) * score
        self.average += self.rate * (float(value.mean()) - self.average)
        return g


class Normalizer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_square", torch.ones(()))
        self.register_buffer("fixed", torch.ones(()))

    def forward(self, f, logits, n, generator):
        _, value, score = sampled(f, logits, n, generator)
        self.running_square = 0.9 * self.running_square + 0.1 * value.square().mean()
        return value / self.running_square.sqrt() * score


BASELINE = [0.0]


def baseline_in_global(f, logits, n, generator):
    _, value, score = sampled(f, logits, n, generator)
    BASELINE.append(0.9 * BASELINE.pop() + 0.1 * float(value.mean()))
    return (value - BASELINE[0]) * score


def wrapped():
    trainer = Trainer()
    return lambda f, logits, n, generator: trainer.estimate(f, logits, n, generator)


def with_count(count, f, logits, n, generator):
    count.add_(1)
    return reinforce(f, logits, n, generator) * count


def momentum():
    state = {"velocity": torch.zeros(2, 3)}

    def with_momentum(f, logits, n, generator):
        g = 0.1 * reinforce(f, logits, n, generator) + 0.9 * state["velocity"]
        state["velocity"] = g.mean(0)
        return g

    return with_momentum


def refreshed_noise():
    cache = collections.deque(maxlen=1)
    calls = [0]

    def refreshed_at_times(f, logits, n, generator):
        calls[0] += 1
        if not cache or calls[0] % 5 == 0 or len(cache[0]) != n:
            cache.append(torch.rand(n, 2, generator=generator, dtype=logits.dtype))
        p = probabilities(logits)
        u = cache[0]
        x = F.one_hot((u[..., None] > p.cumsum(-1)).sum(-1).clamp(max=2), 3).to(p.dtype)
        return f(x)[:, None, None] * (x - p)

    return refreshed_at_times


def private_generator():
    own = torch.Generator().manual_seed(3)

    def with_own_generator(f, logits, n, generator):
        return reinforce(f, logits, n, own)

    return with_own_generator


def entropy_generator(f, logits, n, generator):
    own = torch.Generator()
    own.seed()
    return reinforce(f, logits, n, own)


def counter(every):
    def counts(f, logits, n, generator):
        counts.calls += 1
        return reinforce(f, logits, n, generator) * (2 if counts.calls % every == 0 else 1)

    counts.calls = 0
    return counts


def warm_up():
    calls = []

    def warms_up(f, logits, n, generator):
        calls.append(n)
        return reinforce(f, logits, n, generator) * (1 if len(calls) > 300 else 0.5)

    return warms_up


def last_sample():
    def reuses_last(f, logits, n, generator, last=[]):  # noqa: B006
        _, value, score = sampled(f, logits, n, generator)
        before = last[-1] if last else value.mean()
        last.append(value.mean())
        return (value - before) * score

    return reuses_last


# ---- faults: other random numbers -------------------------------------------------------------


def noise_kept(by_shape):
    kept = {}

    def keeps_noise(f, logits, n, generator):
        key = n if by_shape else 0
        if key not in kept:
            kept[key] = torch.rand(max(n, 32), 2, generator=generator, dtype=logits.dtype)
        p = probabilities(logits)
        x = (kept[key][:n, :, None] > p.cumsum(-1)).sum(-1).clamp(max=2)
        x = F.one_hot(x, 3).to(p.dtype)
        return f(x)[:, None, None] * (x - p)

    return keeps_noise


def numpy_generator(f, logits, n, generator):
    u = torch.from_numpy(np.random.rand(n, 2))  # noqa: NPY002
    p = probabilities(logits)
    x = F.one_hot((u[..., None] > p.cumsum(-1)).sum(-1).clamp(max=2), 3).to(p.dtype)
    return f(x)[:, None, None] * (x - p)


def python_random(f, logits, n, generator):
    return reinforce(f, logits, n, torch.Generator().manual_seed(random.getrandbits(60)))


def dropped_out(f, logits, n, generator):
    return F.dropout(reinforce(f, logits, n, generator), 0.1)


def numpy_without_generator(f, logits, n):
    return numpy_generator(f, logits, n, None)


SHARED, MEMORY, BATCH = DependentDrawsError, StatefulError, BatchStatisticsError
FAULTS = {
    "batch mean": (lambda: mean_subtracted, BATCH, "with n = 1 every draw is 0"),
    "batch mean, surrogate": (lambda: mean_subtracted_surrogate, BATCH, "every draw is 0"),
    "batch deviation": (lambda: divided_by_deviation, BATCH, "the spread at n = 1 is"),
    "batch-normalized advantage": (lambda: normalized_advantage, BATCH, "n = 1 it fails.*nan"),
    "normalized from two": (lambda: normalized_from_two, BATCH, "at once: .* n = 1"),
    "leave-one-out over the batch": (lambda: leave_one_out, BATCH, "with n = 1 it fails"),
    "batch quantile": (lambda: clipped_at_quantile, BATCH, "with n = 1|at n = 1"),
    "shuffled values": (lambda: another_value, BATCH, "depend on how many are drawn at once"),
    "batch maximum": (lambda: largest_subtracted, BATCH, "with n = 1 every draw is 0"),
    "squeezed": (lambda: squeezed, BATCH, r"with n = 1 it fails, with n = 32 not \(squeezed must"),
    "sorted": (lambda: sorted_draws, SHARED, "draws 0 and 1, 2 and 3, ... of a call depend"),
    "mirrored halves": (lambda: mirrored_halves, SHARED, "not independent: .*batch=B"),
    "antithetic": (lambda: antithetic, SHARED, "draws k and k . 16 of a call"),
    "each twice": (lambda: each_twice, SHARED, "draws 0 and 1, 2 and 3, .* in 100% of"),
    "shared by neighbours": (
        lambda: shared_by_neighbours,
        SHARED,
        "draws 0 and 1, .* for variable",
    ),
    "stratified": (lambda: stratified, SHARED, "do draws make up for each other"),
    "baseline in a closure": (baseline_in_closure, MEMORY, "changed: baseline; .*updated"),
    "baseline in an attribute": (
        lambda: Trainer().estimate,
        MEMORY,
        "changed: Trainer.average, Trainer.steps;",
    ),
    "buffer": (Normalizer, MEMORY, "changed: running_square;"),
    "baseline in a global": (lambda: baseline_in_global, MEMORY, r"changed: BASELINE\[0\];"),
    "attribute of what is called": (wrapped, MEMORY, "changed: trainer.average, trainer.steps;"),
    "partial": (
        lambda: partial(with_count, torch.zeros(())),
        MEMORY,
        "changed: argument 0;",
    ),
    "momentum": (momentum, MEMORY, r"changed: state\['velocity'\];"),
    "noise refreshed at times": (refreshed_noise, MEMORY, r"changed: cache\[0\], calls\[0\];"),
    "private generator": (private_generator, MEMORY, "generator of its own.* changed: own;"),
    "unseeded generator": (lambda: entropy_generator, MEMORY, "generator of its own: two"),
    "every second call": (lambda: counter(2), MEMORY, "changed: calls;"),
    "every 47th call": (lambda: counter(47), MEMORY, "changed: calls;"),
    "warm-up": (warm_up, MEMORY, r"changed: calls\[0\], calls\[1\]"),
    "last sample": (last_sample, MEMORY, r"changed: last\[0\]"),
    "noise kept by shape": (lambda: noise_kept(True), NotSeededError, "ignores its generator"),
    "noise kept": (lambda: noise_kept(False), NotSeededError, "kept from the first call"),
    "numpy": (lambda: numpy_generator, NotSeededError, "global generator of numpy"),
    "numpy, no generator": (lambda: numpy_without_generator, NotSeededError, "of numpy .*by torch"),
    "random": (lambda: python_random, NotSeededError, "global generator of Python"),
    "dropout": (lambda: dropped_out, NotSeededError, "global generator of torch"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(14)
def test_a_fault_is_named(fault):
    make, error, message = FAULTS[fault]
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    with pytest.raises(EstimatorError, match=message) as told:
        draws_of(make()).check_randomness(LOSS, LOGITS)
    assert type(told.value) is error
    assert "\n" not in str(told.value)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("unchecked")
def test_a_fault_is_found_by_any_seed(fault):
    make, error, _ = FAULTS[fault]
    for seed in range(1, 11):
        with pytest.raises(error):
            draws_of(make()).check_randomness(LOSS, LOGITS, seed)


# ---- good code --------------------------------------------------------------------------------


def heavy_tailed(f, logits, n, generator):
    """Importance weights of a proposal that is far off; in float64 their variance is finite."""
    p = probabilities(logits)
    q = probabilities(-4 * logits)
    x = draw_one_hot(q, generator, n)
    weight = ((x * p).sum(-1) / (x * q).sum(-1)).prod(-1)
    return (weight * f(x))[:, None, None] * (x - p)


def no_variance(f, logits, n, generator):
    """A reinforce estimate divided by a power of a uniform: its variance is infinite."""
    u = torch.rand(n, 1, 1, generator=generator, dtype=logits.dtype)
    return reinforce(f, logits, n, generator) * 0.25 * u**-0.75


def in_float32(f, logits, n, generator):
    return reinforce(f, logits.float(), n, generator)


def float32_inside(logits, generator):
    return gradlab.gumbel_softmax_st(logits.float(), tau=0.5, generator=generator).to(logits)


def torch_global(logits):
    return F.gumbel_softmax(logits, tau=0.5, hard=True)


def torch_global_surrogate(f, logits):
    x = torch.distributions.OneHotCategorical(logits=logits.detach()).sample()
    return f(x) * (x * torch.log_softmax(logits, -1)).sum((-2, -1))


def exact(f, logits, n, generator):
    """No noise; a product of matrices rounds otherwise in a batch of one."""
    g = gradlab.exact_gradient(f, logits)
    return (torch.ones(n, 7, dtype=g.dtype) @ (g.reshape(1, -1) / 7).expand(7, -1)).reshape(n, 2, 3)


def exact_by_float32(f, logits, n, generator):
    g = gradlab.exact_gradient(f, logits).float()
    many = torch.ones(n, 999) @ (g.reshape(1, -1) / 999).expand(999, -1)
    return many.reshape(n, 2, 3).double()


def sign(f, logits, n, generator):
    return reinforce(f, logits, n, generator).sign()


def caches_probabilities():
    cache = {}

    def with_cache(f, logits, n, generator):
        if "p" not in cache:
            cache["p"] = probabilities(logits)
        x = draw_one_hot(cache["p"], generator, n)
        return f(x)[:, None, None] * (x - cache["p"])

    return with_cache


def dot_at_float32(x):
    return (x.float() * torch.arange(6.0).reshape(2, 3)).sum((-2, -1)).to(x.dtype) + 1000


def sparse(x):
    """Is 1 at a state that turns up about once in a thousand draws."""
    return x[..., 0, 0] * x[..., 1, 0] + 0 * x.sum((-2, -1))


def constant(x):
    return 1234.567 + 0 * x.sum((-2, -1))


RARE = torch.tensor([[-3.5, 0.0, 0.0], [-3.5, 0.0, 0.0]], dtype=torch.float64)
ONE, TWO = regime("moderate", 1, 2, 3), regime("moderate", 3, 2, 3)
ESTIMATORS = [
    *("ST", "DARN", "ZGR", "GS", "GS-ST", "GR(tau=0.1, k=10)", "ReinMax", "ReinMax-CV", "GST"),
    *("REINFORCE", "EMA", "LEARNED", "RF(m=4)", "LE", "SAS", "UNORD", "ARSM", "ARS", "CARMS"),
    *("MuProp", "DoubleCV", "RODEO", "REBAR"),
]
GOOD = {
    **{name: (name, LOSS, LOGITS) for name in ESTIMATORS},
    "ARM": ("ARM", problem("quadratic", 3, 2, 5), TWO),
    "DisARM": ("DisARM", problem("quadratic", 3, 2, 5), TWO),
    "N = 1, C = 2": ("RF(m=2)", problem("quadratic", 1, 2, 5), ONE),
    "sparse": ("REINFORCE", sparse, RARE),
    "sparse, pathwise": ("ZGR", sparse, RARE),
    "constant f": ("RF(m=4)", constant, LOGITS),
    "constant f, REINFORCE": ("REINFORCE", constant, LOGITS),
    "constant f, ZGR": ("ZGR", constant, LOGITS),
    "masked": ("RF(m=4)", LOSS, regime("masked", 2, 3, 0)),
    "peaked": ("GR(tau=0.1, k=1)", LOSS, regime("peaked", 2, 3, 0)),
    "many classes": ("RF(m=2)", problem("quadratic", 8, 10, 5), regime("moderate", 8, 10, 5)),
    "large offset in float32": ("RF(m=4)", dot_at_float32, LOGITS),
    "heavy tails": (heavy_tailed, LOSS, LOGITS),
    "infinite variance": (no_variance, LOSS, LOGITS),
    "float32": (in_float32, LOSS, LOGITS),
    "float32 inside": (float32_inside, LOSS, LOGITS),
    "drop-in": (gradlab.zgr, LOSS, LOGITS),
    "torch's global": (torch_global, LOSS, LOGITS),
    "torch's global, surrogate": (torch_global_surrogate, LOSS, LOGITS),
    "no noise": (exact, LOSS, LOGITS),
    "no noise, float32": (exact_by_float32, LOSS, LOGITS),
    "signs": (sign, LOSS, LOGITS),
    "frozen baseline": (gradlab.MovingAverage(0.8, 0.5), LOSS, LOGITS),
    "cache": (caches_probabilities(), LOSS, LOGITS),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1)
def test_good_code_is_not_refused(name):
    code, f, logits = GOOD[name]
    draws_of(code).check_randomness(f, logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.usefixtures("unchecked")
def test_good_code_is_not_refused_by_any_seed(name):
    code, f, logits = GOOD[name]
    for seed in range(1, 21):
        draws_of(code).check_randomness(f, logits, seed)


# ---- the rate of the law test on code ---------------------------------------------------------

SEEDS, LEVEL = 300, 0.05


def most():
    """More rejections are a rate above the level, at the threshold that all tests share."""
    return int(scipy.stats.binom.isf(P_VALUE, SEEDS, LEVEL))


def law_p(few, many):
    inside = torch.arange(len(few) + len(many)) < len(few)
    return law_test(cuts_of(torch.cat([few, many])), inside).p_value


CODES = ["RF(m=4)", "ZGR", "GR(tau=0.1, k=1)", "ARSM", heavy_tailed, sign]


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES, ids=lambda code: draws_of(code).name)
@pytest.mark.usefixtures("unchecked")
def test_rate_of_false_alarms_on_good_code(code):
    drawn, count = draws_of(code), 0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        few = torch.cat([drawn(LOSS, LOGITS, 1, generator) for _ in range(128)])
        count += law_p(few, drawn(LOSS, LOGITS, 1024, generator)) < LEVEL
    assert count <= most()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_rate_on_bad_code_is_above():
    drawn, count = draws_of(normalized_from_two), 0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        few = torch.cat([drawn(LOSS, LOGITS, 1, generator) for _ in range(128)])
        many = torch.cat([drawn(LOSS, LOGITS, 32, generator) for _ in range(32)])
        count += law_p(few, many) < LEVEL
    assert count > most()


# ---- what is remembered -----------------------------------------------------------------------


def test_what_changes_is_named():
    trainer = Trainer()
    before = remembered(trainer.estimate)
    assert changed(before, remembered(trainer.estimate)) == []
    trainer.average = 3.0
    trainer.moments = torch.ones(2)
    names = changed(before, remembered(trainer.estimate))
    assert names == ["Trainer.average", "Trainer.moments"]


class Slotted:
    __slots__ = ("own", "total")

    def __init__(self):
        self.own, self.total = np.random.default_rng(0), np.zeros(2)

    def __call__(self, f, logits, n, generator):
        self.total += self.own.random(2)
        return reinforce(f, logits, n, generator) + torch.from_numpy(self.total)[:, None]


@pytest.mark.usefixtures("unchecked")
def test_slots_and_generators_of_numpy_are_read():
    with pytest.raises(StatefulError, match=r"changed: own, total;"):
        draws_of(Slotted()).check_randomness(LOSS, LOGITS)


# ---- the cost ---------------------------------------------------------------------------------


def counted(drawn, seconds=0.0):
    calls = []

    def draw(f, logits, n, generator):
        calls.append(n)
        clock[0] += seconds
        return drawn(f, logits, n, generator)

    clock = [0.0]
    return draw, calls, clock


@pytest.mark.thorough  # test_good_code_is_not_refused
@pytest.mark.parametrize(
    ("seconds", "most"), [(1e-4, 710), (2e-3, 710), (5e-3, 330), (0.05, 170), (1.0, 170)]
)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1)
def test_slow_code_is_called_less(monkeypatch, seconds, most):
    draw, calls, clock = counted(draws_of("ZGR"), seconds)
    monkeypatch.setattr("gradlab.user_code.seeded_calls.time.perf_counter", lambda: clock[0])
    check_replicates(draw, LOSS, LOGITS, name="ZGR")
    assert len(calls) <= most
    assert calls.count(1) >= 64
    assert calls.count(2) >= 64
    assert clock[0] <= max(2.5, 170 * seconds)


# ---- batches ----------------------------------------------------------------------------------


def mean_of_batch(f, logits, generator):
    """The same as `mean_subtracted_surrogate`, averaged as a training loop does."""
    return mean_subtracted_surrogate(f, logits, generator).mean()


def leave_one_out_surrogate(f, logits, generator):
    x = draw_one_hot(probabilities(logits.detach()), generator)
    value = f(x)
    baseline = (value.sum(0) - value) / (len(value) - 1)
    return ((value - baseline) * (x * torch.log_softmax(logits, -1)).sum((-2, -1))).mean()


def largest_score(code, batch, share):
    """Return the largest |z| of the mean against `share` of the gradient."""
    g = batched(draws_of(code), batch)(LOSS, LOGITS, 3000, torch.Generator().manual_seed(5))
    error = g.mean(0) - share * gradlab.exact_gradient(LOSS, LOGITS)
    return float((error / g.std(0) * len(g) ** 0.5).abs().max())


SUBTRACTED = [mean_subtracted, mean_subtracted_surrogate, mean_of_batch]


@pytest.mark.thorough  # test_a_fault_is_named refuses such code
@pytest.mark.parametrize("code", SUBTRACTED, ids=lambda code: code.__name__)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1)
def test_the_mean_of_four_subtracted_is_three_quarters_of_the_gradient(code):
    assert largest_score(code, 4, 3 / 4) < limit(2999)
    assert largest_score(code, 4, 1) > limit(2999)


@pytest.mark.thorough  # test_good_code_is_not_refused
@pytest.mark.parametrize("code", [leave_one_out, leave_one_out_surrogate], ids=lambda c: c.__name__)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1, "leave_one_out")
def test_leave_one_out_over_the_batch_is_unbiased(code):
    assert largest_score(code, 4, 1) < limit(2999)
    assert largest_score(code, 4, 3 / 4) > limit(2999)
    batched(draws_of(code), 4).check_randomness(LOSS, LOGITS)


@pytest.mark.parametrize(
    "code", ["ZGR", gradlab.zgr, torch_global, reinforce], ids=lambda code: draws_of(code).name
)
@pytest.mark.usefixtures("unchecked")
def test_each_draw_of_a_batch_is_one_call(code):
    one, drawn = batched(draws_of(code), 1), draws_of(code)
    generator, same = (torch.Generator().manual_seed(1) for _ in range(2))
    together = one(LOSS, LOGITS, 3, generator)
    assert torch.equal(together, torch.cat([drawn(LOSS, LOGITS, 1, same) for _ in range(3)]))
    three = batched(drawn, 3)
    assert three.estimator is None
    assert three.name == f"{drawn.name} in batches of 3"
    generator, same = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = drawn(LOSS, LOGITS, 3, same).mean(0, keepdim=True)
    assert torch.equal(three(LOSS, LOGITS, 1, generator), expected)


@pytest.mark.usefixtures("unchecked")
def test_faults_in_batches_are_named():
    with pytest.raises(BatchStatisticsError, match=r"verify\(code, \.\.\., batch=B\)"):
        draws_of(mean_subtracted).check_randomness(LOSS, LOGITS)
    with pytest.raises(EstimatorError, match=r"do not average over the batch, or verify\(code, "):
        draws_of(mean_of_batch)(LOSS, LOGITS, 4, torch.Generator())
    batched(draws_of(mean_of_batch), 4).check_randomness(LOSS, LOGITS)
    with pytest.raises(StatefulError, match="estimate in batches of 4 remembers"):
        batched(draws_of(Trainer().estimate), 4).check_randomness(LOSS, LOGITS)
    with pytest.raises(NotDifferentiableError):
        draws_of("ZGR").check_randomness(problem("table", 2, 3, 11), LOGITS)
    for bad in (0, 1.5, "4"):
        with pytest.raises(ValueError, match="batch must be an int of at least 1"):
            batched(draws_of("ZGR"), bad)
    with pytest.raises(ValueError, match="is batched already"):
        batched(batched(draws_of("ZGR"), 2), 2)


# ---- every call that draws --------------------------------------------------------------------


class Remembering:
    """A trainer's method that keeps its moving baseline between calls."""

    def __init__(self):
        self.baseline = 0.0

    def surrogate(self, f, logits, generator):
        x = draw_one_hot(probabilities(logits.detach()), generator)
        values = f(x)
        log_p = (x * torch.log_softmax(logits, -1)).sum((-2, -1))
        weight = values.detach() - self.baseline
        self.baseline = 0.9 * self.baseline + 0.1 * float(values.detach().mean())
        return weight * log_p + values - values.detach()


def batch_mean(f, logits, generator):
    x = draw_one_hot(probabilities(logits.detach()), generator)
    values = f(x)
    log_p = (x * torch.log_softmax(logits, -1)).sum((-2, -1))
    return (values - values.mean(0)).detach() * log_p + values - values.detach()


def by_probe(code):
    probe = gradlab.nn.probe.GradientProbe([code], draws=32, reference_draws=64)
    probe(0, LOSS, LOGITS.unsqueeze(0))
    return probe.rows["reason"][0]


WHO_DRAWS = {
    "compare": lambda code: gradlab.compare(LOSS, LOGITS, [code], draws=64)["reason"][0],
    "recommend": lambda code: (
        gradlab.recommend(LOSS, LOGITS, evaluations=8, estimators=["ST", code], draws=64)
        .table.set_index("series")["reason"]
        .dropna()
        .iloc[0]
    ),
    "probe": by_probe,
}


@pytest.mark.parametrize("call", WHO_DRAWS.values(), ids=list(WHO_DRAWS))
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: batch_mean, "depend on how many are drawn at once"),
        (lambda: Remembering().surrogate, "remembers earlier calls"),
    ],
)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(2)
def test_no_call_measures_draws_that_are_no_replicates(make, told, call):
    assert told in call(make())


@pytest.mark.usefixtures("unchecked")
def test_monte_carlo_refuses_draws_that_are_no_replicates():
    with pytest.raises(BatchStatisticsError):
        gradlab.monte_carlo(batch_mean, LOSS, LOGITS, 64)
    with pytest.raises(StatefulError, match="baseline"):
        gradlab.monte_carlo(Remembering().surrogate, LOSS, LOGITS, 64)

"""Other packages beside gradlab, in one run: draws, layers, exact gradients and a whole job

Each line says how many times as fast gradlab is. F.gumbel_softmax and RelaxedOneHotCategorical are
torch's own; reinmax, storchastic and pyro are measured where they are installed. "Conditional
Gumbels" is Gumbel-Rao with k = 10, as scripts have it.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.ratios import Ratio, Work, effort, faster, measure_all
from benchmarks.rivals import Absent, backward, elsewhere, gumbel_rao, layers, loop, per_draw
from gradlab import compare, exact_gradient
from gradlab.categorical import one_hot
from gradlab.estimators import PathwiseEstimator, parse
from gradlab.loss import Loss
from gradlab.montecarlo import block_size
from gradlab.problems import problem, regime

__all__ = ["exact_by_hand", "job_by_hand", "run"]

_PROBLEMS = (("quadratic", 1, 8), ("mlp", 8, 4), ("mlp", 32, 16))
_SHAPES = ((512, 32, 16), (200, 20, 10))
# The estimator of gradlab that a layer of another package, or a job, computes.
_SAME = {
    "F.gumbel_softmax(hard=True)": "GS-ST(tau=1)",
    "RelaxedOneHotCategorical": "GS(tau=1)",
    "reinmax": "ReinMax(tau=1)",
    "conditional Gumbels": "GR(tau=1, k=10)",
}
_JOBS = {
    "RLOO(2) of storchastic": "RF(m=2)",
    "Trace_ELBO of pyro": "REINFORCE",
    "RelaxedOneHotCategoricalStraightThrough of pyro": "GS-ST(tau=1)",
}
# Why a line is behind.
_MORE_NOISE = "gradlab draws the class first and then its noise, one random number more"
_FEW_STATES = "few states: gradlab also asks whether f keeps its contract"
_MORE_NUMBERS = "gradlab also computes standard errors, cosine and progress"
_TAUS = torch.logspace(math.log10(0.05), 1, 30).tolist()


def run() -> Iterator[Ratio]:
    """Yield all comparisons."""
    for name, variables, classes in _PROBLEMS:
        yield from _draws(name, variables, classes)
    for shape in _SHAPES:
        yield from _layers(shape)
    yield from _exact_gradients()
    yield from _whole_job()


def _draws(name: str, variables: int, classes: int) -> Iterator[Ratio]:
    f = problem(name, variables, classes)
    logits = regime("moderate", variables, classes, 0).to(torch.float32)
    where = f"a draw, {name} ({variables}, {classes})"
    found, absent = layers()
    works: dict[str, tuple[Work, int]] = {}
    for other, layer in found.items():
        n = block_size(parse(_SAME[other]), variables, classes)
        works[f"{other}, a loop"] = (partial(loop, layer, f, logits), 1)
        works[f"{other}, vectorized"] = (partial(per_draw, layer, f, logits, n), n)
    for text in {**_SAME, **_JOBS}.values():
        estimator = parse(text)
        n = block_size(estimator, variables, classes)
        works[text] = (partial(estimator.draw, f, logits, n), n)
    times = measure_all({way: work for way, (work, _) in works.items()}, 12.0)
    each = {way: times[way] / n for way, (_, n) in works.items()}
    for other in found:
        for way in ("a loop", "vectorized"):
            text, theirs = _SAME[other], each[f"{other}, {way}"]
            note = _MORE_NOISE if theirs < each[text] else ""
            yield faster(f"{where}, {text}: {other}, {way}", theirs, each[text], note)
    for other, reason in absent.items():
        yield Ratio(f"{where}, {_SAME[other]}: {other}", math.nan, note=reason)
    for job, text in _JOBS.items():
        yield _beside(
            f"{where}, {text}: {job}, a loop", job, (name, variables, classes), each[text]
        )


def _beside(what: str, job: str, case: tuple[str, int, int], ours: float) -> Ratio:
    """Return the line of a job in another process, or why it could not be run."""
    try:
        return faster(what, elsewhere(job, *case), ours)
    except Absent as error:
        return Ratio(what, math.nan, note=str(error))


def _layers(shape: tuple[int, int, int]) -> Iterator[Ratio]:
    logits, v = torch.randn(shape, requires_grad=True), torch.randn(shape)
    where = f"a layer {list(shape)}"
    found, absent = layers()

    def step(sample: Callable[[Tensor], Tensor]) -> Work:
        return lambda: backward(sample(logits), logits, v)

    works = {other: step(layer) for other, layer in found.items()}
    for other in found:
        estimator = parse(_SAME[other])
        assert isinstance(estimator, PathwiseEstimator)
        works[_SAME[other]] = step(estimator.sample)
    times = measure_all(works, 12.0)
    for other in found:
        note = _MORE_NOISE if times[other] < times[_SAME[other]] else ""
        yield faster(f"{where}, {_SAME[other]}: {other}", times[other], times[_SAME[other]], note)
    for other, reason in absent.items():
        yield Ratio(f"{where}, {_SAME[other]}: {other}", math.nan, note=reason)


def exact_by_hand(f: Loss, logits: Tensor) -> Tensor:
    """Return the exact gradient as a short script has it: one sum over all states at once."""
    leaf = logits.clone().requires_grad_()
    variables, classes = logits.shape
    states = torch.cartesian_prod(*[torch.arange(classes)] * variables).reshape(-1, variables)
    log_p = leaf.log_softmax(-1)[torch.arange(variables), states].sum(-1)
    return torch.autograd.grad((log_p.exp() * f(one_hot(states, logits))).sum(), leaf)[0]


def _exact_gradients() -> Iterator[Ratio]:
    for variables, classes, others in (
        (10, 2, ("TraceEnum_ELBO of pyro", "Expect of storchastic")),
        (8, 4, ()),
    ):
        f, logits = problem("mlp", variables, classes), regime("moderate", variables, classes, 0)
        assert torch.allclose(exact_by_hand(f, logits), exact_gradient(f, logits))
        works = {
            "ours": partial(exact_gradient, f, logits),
            "by hand": partial(exact_by_hand, f, logits),
        }
        times = measure_all(works, 4.0)
        where = f"an exact gradient, mlp ({variables}, {classes})"
        note = _FEW_STATES if times["by hand"] < times["ours"] else ""
        yield faster(f"{where}: one sum by hand", times["by hand"], times["ours"], note)
        for job in others:
            yield _beside(f"{where}: {job}", job, ("mlp", variables, classes), times["ours"])


Draw = Callable[[float, int], Tensor]
"""From a temperature and a number n to n estimates [n, N, C]."""


def job_by_hand(draw: Draw, truth: Tensor, taus: list[float], n: int) -> list[tuple[float, float]]:
    """Return (bias, variance) at each temperature from n draws, as a script has it."""
    found = []
    for tau in taus:
        g = draw(tau, n).to(torch.float64)
        found.append((float((g.mean(0) - truth).norm()), float(g.var(0).sum())))
    return found


def _whole_job() -> Iterator[Ratio]:
    n = int(effort(1000, 40))
    f = problem("mlp", 8, 4)
    job = f"bias and variance of GR(k=10) on mlp (8, 4) at {len(_TAUS)} temperatures"

    def looped(logits: Tensor, tau: float, n: int) -> Tensor:
        layer = partial(gumbel_rao, tau=tau)
        return torch.stack([loop(layer, f, logits) for _ in range(n)])

    def vectorized(logits: Tensor, tau: float, n: int) -> Tensor:
        return per_draw(partial(_batched_rao, tau=tau), f, logits, n)

    spent: dict[str, list[float]] = {}
    off = []
    for seed in range(int(effort(3, 1))):  # with other logits no table is remembered
        logits = regime("moderate", 8, 4, seed).to(torch.float32)

        def script(draw: Callable[..., Tensor], logits: Tensor = logits) -> object:
            truth = exact_by_hand(f, logits.to(torch.float64))
            return job_by_hand(partial(draw, logits), truth, _TAUS, n)

        ways: dict[str, Callable[[], object]] = {
            "exact": partial(_ours, f, logits, method="exact"),
            "draws": partial(_ours, f, logits, method="monte-carlo", draws=n),
            "loop": partial(script, looped),
            "vectorized": partial(script, vectorized),
        }
        found = {}
        for way, work in ways.items():
            start = time.process_time()
            found[way] = np.array(work())
            spent.setdefault(way, []).append(time.process_time() - start)
        off.append(np.abs(found["loop"] / found["exact"] - 1))
    took = {way: float(np.median(times)) for way, times in spent.items()}
    bias, variance = 100 * np.median(np.concatenate(off), axis=0)
    note = f"the loop's bias is off by {bias:.0f} %, its variance by {variance:.0f} % (medians)"
    each = f"{n:,} draws at each"
    yield faster(f"{job}, exact: a loop of {each}", took["loop"], took["exact"], note)
    yield faster(f"{job}, by {each}: a loop of as many", took["loop"], took["draws"])
    note = _MORE_NUMBERS if took["vectorized"] < took["draws"] else ""
    yield faster(f"{job}, by {each}: as many at once", took["vectorized"], took["draws"], note)


def _batched_rao(logits: Tensor, tau: float) -> Tensor:
    return gumbel_rao(logits, tau)


def _ours(f: Loss, logits: Tensor, **how: object) -> list[tuple[float, float]]:
    rows = compare(f, logits, ["GR(k=10)"], temperatures=_TAUS, **how)  # type: ignore[arg-type]
    return list(zip(rows["bias2"].clip(lower=0) ** 0.5, rows["variance"], strict=True))

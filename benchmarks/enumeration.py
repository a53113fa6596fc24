"""The exact engine against a bare sweep of f over the same configurations, and against sampling."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.ratios import Ratio, effort, measure
from gradlab import ZGR, GumbelRao, exact_gradient, exact_moments, monte_carlo
from gradlab.categorical import probabilities
from gradlab.estimators._gumbel_jacobian import conditional_jacobians
from gradlab.exact.enumeration import gradient_moments
from gradlab.parallel import usable_cores
from gradlab.problems import problem, regime

__all__ = ["run"]


def run() -> Iterator[Ratio]:
    """Yield all ratios of this file."""
    yield from _sweeps()
    yield from _all_cores()
    yield _one_more_temperature()
    yield from _equal_time()
    yield from _memory()


def _sweeps() -> list[Ratio]:
    lines = []
    for name in ("mlp", "quadratic"):
        f, logits = problem(name, 10, 4), regime("moderate", 10, 4, 0)
        x = torch.zeros(4096, 10, 4, dtype=torch.float64)
        x[:, :, 0] = 1.0

        def forward(f=f, x=x) -> None:  # type: ignore[no-untyped-def]
            with torch.no_grad():
                for _ in range(4**10 // 4096):
                    f(x)

        what = f"exact gradient, 4^10 configurations, {name}, against a forward sweep"
        lines.append(measure(what, lambda: exact_gradient(f, logits), forward, 1.25, 6.0))
    f, logits = problem("mlp", 8, 4), regime("moderate", 8, 4, 0)
    x = torch.zeros(4096, 8, 4, dtype=torch.float64)
    x[:, :, 0] = 1.0

    def forward_backward() -> None:
        for _ in range(4**8 // 4096):
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(f(leaf).sum(), leaf)

    what = "exact moments, 4^8 configurations, mlp, against a forward-backward sweep"
    return [*lines, measure(what, lambda: gradient_moments(f, logits), forward_backward, 2.0, 4.0)]


def _all_cores() -> list[Ratio]:
    """Return what an exact gradient has of the cores, beside bare work on as many threads.

    Other processes may share the machine. So exact sweeps and bare ones, threads that call f and
    nothing else, run in turns. What is compared is the work that is done in a second on all cores,
    in CPU seconds of one thread; of that, other processes take a share from both alike.
    """
    variables = int(effort(11, 9))
    f, logits = problem("mlp", variables, 4), regime("moderate", variables, 4, 0)
    cores, blocks = usable_cores(), 4**variables // 4096
    block = torch.zeros(4096, variables, 4, dtype=torch.float64)
    block[:, :, 0] = 1.0

    def exact(threads: int) -> None:
        torch.set_num_threads(threads)
        exact_gradient(f, logits)
        torch.set_num_threads(1)

    def some(x: torch.Tensor, count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                f(x)

    def bare(threads: int) -> None:
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        with pool:
            list(pool.map(some, [block.clone()] * threads, [blocks // threads] * threads))

    done: dict[str, list[float]] = {"exact": [], "bare": []}
    gains = []
    for _ in range(int(effort(9, 3))):
        for name, work in (("exact", exact), ("bare", bare)):
            start, wall = time.process_time(), time.perf_counter()
            work(1)
            needed, alone = time.process_time() - start, time.perf_counter() - wall
            wall = time.perf_counter()
            work(cores)
            spent = time.perf_counter() - wall
            done[name].append(needed / spent)
            if name == "exact":
                gains.append(alone / spent)
    of_bare = [exact / bare for exact, bare in zip(done["exact"], done["bare"], strict=True)]
    what = f"exact gradient, 4^{variables} states, mlp, {cores} threads"
    return [
        Ratio(f"{what}, wall time of one over all", statistics.median(gains)),
        Ratio(
            f"{what}, work in a second, to bare threads",
            statistics.median(of_bare),
            0.9,
            at_least=True,
            note=f"bare threads get {statistics.median(done['bare']):.2f} cores",
        ),
    ]


def _one_more_temperature() -> Ratio:
    worst = 0.0
    for tau in (0.01, 0.1, 0.5, 1.0, 2.0):
        times = []
        for seed in range(9):  # new probabilities each time: tables are remembered
            p = probabilities(regime("moderate", 8, 4, seed))
            start = time.process_time()
            conditional_jacobians(p, tau, accuracy=1e-8)
            times.append(time.process_time() - start)
        worst = max(worst, statistics.median(times))
    what = "one more temperature, (8, 4), exact to 1e-8, worst of tau in [.01, 2]"
    return Ratio(what, 1e3 * worst, 40, "ms")


def _equal_time() -> list[Ratio]:
    f, logits = problem("mlp", 4, 4), regime("moderate", 4, 4, 0)
    estimator = GumbelRao(0.5, None)
    truth = exact_gradient(f, logits)
    exact_moments(estimator, f, logits)
    start = time.process_time()
    exact = exact_moments(estimator, f, logits)
    spent = time.process_time() - start
    start = time.process_time()
    monte_carlo(ZGR(), f, logits, 2**14)
    draws = max(32, int(2**14 * spent / (time.process_time() - start)))
    sampled = monte_carlo(ZGR(), f, logits, draws)
    error = sampled.bias2(truth).se
    rounding = max(1e-10, float(exact.mean.sum(-1).abs().max()))
    what = f"error of bias^2, {draws} Monte Carlo draws over exact (1e-10), equal time"
    return [Ratio(what, error / rounding, 1e4, at_least=True)]


def _memory() -> list[Ratio]:
    """Return peak memory of a large job over that of a small one, each in a process of its own."""
    lines = []
    for what, small, large in (
        ("peak memory, 2e6 draws over 5e4", _DRAWS.format(50_000), _DRAWS.format(2_000_000)),
        ("peak memory, 4^10 configurations over 4^7", _SWEEP.format(7), _SWEEP.format(10)),
    ):
        peaks = [
            int(
                subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
            )
            for code in (small, large)
        ]
        lines.append(Ratio(what, peaks[1] / peaks[0], 1.1))
    return lines


_PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
_DRAWS = (
    "import gradlab; from gradlab.problems import problem, regime; "
    "gradlab.monte_carlo(gradlab.ZGR(), problem('mlp', 8, 4), regime('moderate', 8, 4, 0), {})"
    + _PEAK
)
_SWEEP = (
    "import gradlab; from gradlab.problems import problem, regime; "
    "gradlab.exact_gradient(problem('mlp', {0}, 4), regime('moderate', {0}, 4, 0))" + _PEAK
)

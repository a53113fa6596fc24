"""Each state once: moments of draws with f evaluated at each draw, against f in a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor

from benchmarks.ratios import Ratio, Work, measure_all
from gradlab import montecarlo, recommend
from gradlab.exact import for_draws
from gradlab.problems import problem, regime

__all__ = ["run"]

_DRAWS = 20_000
# Estimators that ask for f at one-hot x, and what the gain over calls of f is to be on the VAE.
_ON_VAE = {"ZGR": 5.0, "GS-ST(tau=0.5)": 5.0, "GR(tau=0.5, k=10)": 5.0, "RF(m=4)": 5.0}
# These ask for it at relaxed x too, which no table has.
_RELAXED = ("GS(tau=0.5)", "REBAR")
_SMALL = (("mlp", 3, 4), ("quadratic", 4, 3))
# What `recommend` is to gain.
_WHOLE = 2.0


def run() -> list[Ratio]:
    """Return how many times as long it takes without a table; both in turns, in one process."""
    vae = problem("vae", 4, 4)
    lines = [
        _gain(f"vae (4, 4), {_DRAWS:,} draws of {text}", _draws(text, vae, vae.logits), target)
        for text, target in (_ON_VAE | dict.fromkeys(_RELAXED)).items()
    ]
    for name, variables, classes in _SMALL:
        f, logits = problem(name, variables, classes), regime("moderate", variables, classes, 0)
        for text in ("ZGR", "RF(m=4)", "LE"):
            what = f"{name} ({variables}, {classes}), {_DRAWS:,} draws of {text}"
            lines.append(_gain(what, _draws(text, f, logits)))

    return [*lines, _of_recommend()]


def _of_recommend() -> Ratio:
    """Return the same for one call of `recommend`, which takes seconds; most are at relaxed x."""
    vae = problem("vae", 4, 4)

    def asked() -> float:
        start = time.process_time()
        recommend(vae, vae.logits, evaluations=16)
        return time.process_time() - start

    asked()  # what is loaded and remembered at the first call counts for neither
    with _without_tables():
        without = asked()
    return Ratio("recommend on the vae", without / asked(), _WHOLE, at_least=True)


def _draws(text: str, f: object, logits: Tensor) -> Work:
    return lambda: montecarlo.monte_carlo(text, f, logits, _DRAWS)  # type: ignore[arg-type]


@contextmanager
def _without_tables() -> Iterator[None]:
    """Let f be called at each draw."""
    with (
        mock.patch.object(montecarlo, "tabled", lambda f, *_: f),
        mock.patch.object(for_draws, "tabled", lambda f, *_: f),
    ):
        yield


def _gain(what: str, work: Work, target: float | None = None) -> Ratio:
    """Return the time of the work without a table over that with one."""

    def without() -> None:
        with _without_tables():
            work()

    times = measure_all({"without": without, "with": work}, 2.0)
    return Ratio(what, times["without"] / times["with"], target, at_least=True)

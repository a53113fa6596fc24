"""Every estimator at equal cost: squared bias against the variance of as many as a budget pays.

Each spends the same number of evaluations of f: a draw that counts as `cost` of them is averaged
budget / cost times. Its variance is multiplied by cost / budget, a rate that need not be whole, and
its bias stays. f with its gradient counts as 3 evaluations; what a fit of coefficients costs is not
counted. Estimators with a temperature are curves over it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from gradlab.comparison.comparing import compare, reproducible_columns, with_temperatures
from gradlab.comparison.eligibility import is_declared_exact
from gradlab.comparison.ranking import progress_at
from gradlab.comparison.rows import AVERAGED
from gradlab.estimators import ESTIMATORS, Estimator
from gradlab.exact.moments import Enumeration
from gradlab.loss import Loss
from gradlab.plots.style import family
from gradlab.problems import Problem, TinyVAE, problem, regime
from gradlab.reproducible import block_generator, single_thread

__all__ = ["fitted", "rows", "variants"]

TEMPERATURES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DRAWS = 2048
BUDGET = 12

# Arguments at which an estimator is shown besides its defaults.
MORE: dict[str, dict[str, float | None]] = {
    "GR": {"k": None},
    "MVE": {"tau": None},
    "MVE-INT": {"tau": None},
    "RF": {"m": 4},
    "SAS": {"k": 3},
    "UNORD": {"k": 4},
    "DoubleCV": {"m": 4},
    "RODEO": {"m": 4},
    "CARMS": {"m": 4},
    "ARMS": {"m": 4},
}

COLUMNS = [
    *("problem", "N", "C", "logits_seed", "estimator", "series", "family", "fits", "tau"),
    *(
        "calls",
        "cost",
        "budget",
        "seed",
        "method",
        "draws",
        "reason",
        "declared_unbiased",
        "truth2",
    ),
    *("bias2", "bias2_se", "variance", "variance_se", "cost_variance", "cost_variance_se"),
    *("cosine", "cosine_se", "averaged", "progress", "progress_se"),
    *("version", "dtype"),
]


@single_thread()
def rows(
    seed: int = 0,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    draws: int = DRAWS,
    fits: int = 1024,
    budget: int = BUDGET,
) -> pd.DataFrame:
    """Return a row for each estimator of `ESTIMATORS`, variant, temperature and problem.

    From `compare`: exact moments where they are known, else `draws` draws with standard errors.
    `cost_variance` = variance * cost / budget. `progress` is that of the mean of `averaged`
    gradients, each of which spends the budget. What can be fitted is there twice, once with what
    `fit` finds from `fits` draws (0 where nothing was fitted). An estimator that cannot be used on
    a problem is a row with the `reason`. The seed chooses problems, logits and draws.
    """
    found = []
    for f, logits in _problems(seed):
        given: dict[str, Any] = {
            "draws": draws,
            "seed": seed,
            "logits_seed": seed,
        }
        on = Enumeration(f, logits)
        plain, better = variants(temperatures), list(fitted(variants(), f, logits, fits, seed))
        for number, estimators in ((0, plain), (fits, better)):
            table = compare(on, estimators=estimators, **given).assign(fits=number)
            declared = [is_declared_exact(estimator, f) for estimator in estimators]
            found.append(table.assign(declared_unbiased=declared))
    table = reproducible_columns(pd.concat(found, ignore_index=True))
    share = table["cost"] / budget
    progress, progress_se = progress_at(table, AVERAGED / share.to_numpy(float))
    return table.assign(
        budget=budget,
        averaged=AVERAGED,
        progress=progress,
        progress_se=progress_se,
        family=table["series"].map(family),
        cost_variance=table["variance"] * share,
        cost_variance_se=table["variance_se"] * share,
    )[COLUMNS]


def variants(temperatures: Sequence[float] | None = None) -> list[Estimator]:
    """Return every estimator with its defaults and with the arguments `MORE`.

    Those with a temperature that `MORE` does not give are repeated at each of `temperatures`; by
    default they have their own.
    """
    found: list[Estimator] = []
    for name, cls in ESTIMATORS.items():
        more = MORE.get(name, {})
        swept: list[Estimator] = [cls()]
        if more and "tau" not in more:
            swept.append(cls().with_(**more))
        found += with_temperatures(swept, temperatures)
        if "tau" in more:
            found.append(cls().with_(**more))
    return found


def fitted(
    estimators: Iterable[Estimator],
    f: Loss,
    logits: Tensor,
    draws: int,
    seed: int,
    *,
    steps: int = 200,
) -> Iterator[Estimator]:
    """Yield what `fit` returns for each of the estimators that has one and can be used on f.

    Each has a random stream of its own, the same for every f and all logits; `steps` is for RELAX,
    which takes longest.
    """
    for estimator in estimators:
        if not estimator.fitted_fields or estimator.supports(f, logits) is not None:
            continue
        generator = block_generator(seed, f"{estimator}|fit")
        yield estimator.fit(f, logits, draws, generator, steps=steps)


def _problems(seed: int) -> list[tuple[Problem, Tensor]]:
    """Return a quadratic, a cubic, a network of binary variables and the VAE, with their logits."""
    sizes = {"quadratic": (2, 3), "cubic": (2, 4), "mlp": (4, 2)}
    vae = TinyVAE("some", image=seed % 300)
    return [
        *((problem(k, *size, seed), regime("moderate", *size, seed)) for k, size in sizes.items()),
        (vae, vae.logits),
    ]

"""Options that several commands share, and the objects that their texts name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.usage import blaming

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.estimators import Estimator
    from gradlab.problems import Problem

__all__ = ["Folder", "Seed", "Workers", "read_estimators", "read_problem", "read_temperatures"]

Seed = Annotated[int, typer.Option(min=0, max=10**9, help="Chooses all random numbers.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="How many run in parallel; changes no result.  [default: all cores]"),
]
Folder = typer.Option(metavar="FOLDER", help="Where CSV, PNG and PDF are written.")


def read_estimators(
    texts: Sequence[str] | None, tau: str | None, option: str = "ESTIMATOR"
) -> list["Estimator"]:
    """Return the estimators at their temperatures, each once; faults are those of `option`."""
    from gradlab.comparison import with_temperatures
    from gradlab.estimators import ESTIMATORS, parse

    with blaming(option):
        estimators = [parse(text) for text in texts or ESTIMATORS]
    return list(dict.fromkeys(with_temperatures(estimators, read_temperatures(tau))))


def read_temperatures(tau: str | None) -> list[float] | None:
    """Return the temperatures of the text, each once; None without a text."""
    if tau is None:
        return None
    with blaming("--tau"):
        return list(dict.fromkeys(_temperature(text) for text in tau.split(",")))


def _temperature(text: str) -> float:
    from gradlab.categorical import check_tau

    try:
        tau = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number; write for example 0.1,0.5,1") from None
    check_tau(tau)
    return tau


# A quadratic has (N C)^2 coefficients: more would fill the memory.
_LARGEST = 4096


def read_problem(
    name: str, N: int, C: int, regime: str | None, seed: int
) -> tuple["Problem", "Tensor", str]:
    """Return the problem, the logits, and what they are called."""
    from gradlab import problems

    if N * C > _LARGEST:
        raise typer.BadParameter(
            f"N C must be at most {_LARGEST}, not {N * C}", param_hint="--N, --C"
        )
    with blaming(f"--problem {name} --N {N} --C {C} --seed {seed}"):
        f = problems.problem(name, N, C, seed)
    if regime is None and isinstance(f, problems.TinyVAE):
        return f, f.logits, "encoder"
    regime = "moderate" if regime is None else regime
    with blaming("--regime"):
        return f, problems.regime(regime, N, C, seed), regime

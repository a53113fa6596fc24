"""Options that several commands share, and the objects that their texts name."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gradlab.cli.faults import blaming

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.estimators import Estimator
    from gradlab.problems import Problem
    from gradlab.user_code.under_test import Code

__all__ = [
    "File",
    "Folder",
    "Seed",
    "Workers",
    "in_its_dtype",
    "read_code",
    "read_estimators",
    "read_problem",
    "read_temperatures",
]

_T = TypeVar("_T")

Seed = Annotated[int, typer.Option(min=0, max=10**9, help="Chooses all random numbers.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="How many run in parallel; changes no result.  [default: all cores]"),
]
File = typer.Option(
    help="Your own: an Estimator, its class, draw(f, logits, n, generator), surrogate(f, logits, "
    "generator), sample(logits, generator) or an nn.Module with one input; may be repeated.",
    metavar="FILE.py:NAME",
)
Folder = typer.Option(metavar="FOLDER", help="Where CSV, PNG and PDF are written.")


def read_code(text: str, option: str) -> "Code":
    """Return what an estimator's text or FILE.py:NAME stands for; faults are those of `option`.

    It accepts what `gradlab.user_code.draws_of` accepts: an Estimator, its class or text, a
    function draw, surrogate or sample, an nn.Module with one input.
    """
    from gradlab.user_code.objects import load_object
    from gradlab.user_code.under_test import draws_of

    with blaming(option, (ValueError, TypeError)):
        code: Code = load_object(text) if ".py" in text else text
        draws_of(code)
    return code


def read_estimators(
    texts: Sequence[str] | None,
    tau: str | None,
    option: str = "ESTIMATOR",
    files: Sequence[str] | None = None,
) -> list["Estimator"]:
    """Return the estimators at their temperatures, each once; without any, all that there are.

    Faults are those of `option`, or of --file for those of `files`.
    """
    from gradlab.comparison.comparing import with_temperatures
    from gradlab.estimators import ESTIMATORS
    from gradlab.user_code.under_test import CodeEstimator

    codes = [read_code(text, option) for text in texts or (() if files else ESTIMATORS)]
    codes += [read_code(text, f"--file {text}") for text in dict.fromkeys(files or ())]
    cells = list(dict.fromkeys(with_temperatures(codes, read_temperatures(tau))))
    names = [str(cell) for cell in cells]
    for cell, name in zip(cells, names, strict=True):
        if isinstance(cell, CodeEstimator) and names.count(name) > 1:
            raise typer.BadParameter(
                f"two are called {name}: rows would not tell them apart", param_hint="--file"
            )
    return cells


def in_its_dtype(call: Callable[["Tensor"], _T], logits: "Tensor", who: str = "f") -> _T:
    """Return call(logits), with float32 logits where f or the code works in float32 only.

    Data files and problems give float64 logits that nobody chose; which they are is said on stderr.
    """
    import torch

    from gradlab.loss import LossDtypeError
    from gradlab.user_code.under_test import EstimatorDtypeError

    try:
        return call(logits)
    except (LossDtypeError, EstimatorDtypeError) as error:
        if logits.dtype != torch.float64:
            raise
        fault = error
    try:
        result = call(logits.float())
    except (LossDtypeError, EstimatorDtypeError):
        raise fault from None
    what = "the code" if isinstance(fault, EstimatorDtypeError) else who
    told = f"{what} works in float32 but not in float64: float32 logits are used"
    print(f"gradlab: {told}", file=sys.stderr)
    return result


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

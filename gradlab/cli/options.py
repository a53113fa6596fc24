"""Options that several commands share, and the objects that their texts name."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gradlab.catalogue import check_estimator, check_problem, check_regime
from gradlab.cli.faults import blaming

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.estimators import Estimator
    from gradlab.loss import Loss
    from gradlab.user_code.under_test import Code

__all__ = [
    "Delta",
    "Device",
    "Draws",
    "Estimators",
    "FiguresFolder",
    "File",
    "Folder",
    "LogitsFile",
    "MaxDraws",
    "OwnLoss",
    "ProblemName",
    "Regime",
    "Seed",
    "Size",
    "Temperatures",
    "Workers",
    "blaming_loss",
    "check_other",
    "in_its_dtype",
    "read_code",
    "read_estimators",
    "read_loss",
    "read_size",
    "read_temperatures",
    "size_numbers",
]

_T = TypeVar("_T")


# Names are looked at while the command line is read: torch, which takes seconds, is not loaded yet.
def _check_estimators(texts: list[str] | None) -> list[str] | None:
    with blaming("ESTIMATOR"):
        for text in texts or ():
            if ".py" not in text:
                check_estimator(text)
    return texts


def check_other(option: str) -> Callable[[str | None], str | None]:
    """Return the check of another option whose text is one estimator or FILE.py:NAME."""

    def check(text: str | None) -> str | None:
        with blaming(option):
            if text is not None and ".py" not in text:
                check_estimator(text)
        return text

    return check


def _check_problem(name: str | None) -> str | None:
    with blaming(f"--problem {name}"):
        if name is not None:
            check_problem(name)
    return name


def _check_regime(name: str | None) -> str | None:
    with blaming("--regime"):
        if name is not None:
            check_regime(name)
    return name


Estimators = Annotated[
    list[str] | None,
    typer.Argument(
        help='Estimators such as ZGR or "GR(tau=0.1, k=10)", see `gradlab list`; or your own code, '
        "FILE.py:NAME.  [default: all]",
        metavar="ESTIMATOR",
        callback=_check_estimators,
    ),
]
ProblemName = Annotated[
    str | None,
    typer.Option(
        help="Built-in loss, such as cubic, polynomial:5 or vae:long; see `gradlab list problems`.",
        metavar="NAME",
        callback=_check_problem,
    ),
]
OwnLoss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="Your own loss instead of --problem: a function that maps one-hot x [..., N, C] to "
        "values [...]; or f(x, logits) with @gradlab.with_parameters above it.",
        metavar="FILE.py:NAME",
    ),
]
LogitsFile = Annotated[
    Path | None,
    typer.Option(
        "--logits",
        help="File .npy, .pt or .csv with the logits [N, C] where the loss is measured.",
        metavar="FILE",
    ),
]
Regime = Annotated[
    str | None,
    typer.Option(
        help="Kind of random logits where no file gives them; see `gradlab list regimes`.  "
        "[default: moderate; for vae its encoder's]",
        metavar="NAME",
        callback=_check_regime,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Number of variables x number of classes.  [default: 4x4, for verify 2x3, for bounds "
        "2x2]",
        metavar="NxC",
    ),
]
Temperatures = Annotated[
    str | None,
    typer.Option(
        "--tau",
        help="Temperatures, such as 0.1,0.5,1, of all estimators that have one.  [default: those "
        "in their texts, else 1]",
        metavar="TAU,...",
    ),
]
Averaged = Annotated[
    float,
    typer.Option(
        min=1,
        help="Number of averaged gradients.",
    ),
]
GradientCost = Annotated[
    float,
    typer.Option(min=1, help="Cost of one f with its gradient, in evaluations of f."),
]
Draws = Annotated[
    int, typer.Option(min=32, help="Draws of each estimator whose moments are not exact.")
]
MaxDraws = Annotated[
    int, typer.Option(min=256, help="Draws after which a test is given up as INCONCLUSIVE.")
]
Delta = Annotated[
    float, typer.Option(help="Share of |gradient| below which a bias counts as none, by draws.")
]
Seed = Annotated[int, typer.Option(min=0, max=10**9, help="Seed of all random numbers.")]
Device = Annotated[str, typer.Option(help="Device that computes: cpu or cuda.", metavar="cpu|cuda")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that run in parallel; their number changes no result.  [default: all "
        "cores]",
    ),
]
File = Annotated[
    list[str] | None,
    typer.Option(
        help="Your own estimator: an Estimator, its class, draw(f, logits, n, generator), "
        "surrogate(f, logits, generator), sample(logits, generator) or an nn.Module with one "
        "input; may be repeated.",
        metavar="FILE.py:NAME",
    ),
]
_FOLDER = typer.Option(metavar="FOLDER", help="Folder where the CSV, PNG and PDF are written.")
Folder = Annotated[Path | None, _FOLDER]
FiguresFolder = Annotated[Path, _FOLDER]


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
    files: Sequence[str] | None = None,
    default: Iterable[str] | None = None,
) -> list["Estimator"]:
    """Return the estimators at their temperatures, each once.

    Without any they are those of `default`, else all that there are. Faults are those of
    ESTIMATOR, or of --file for those of `files`.
    """
    from gradlab.comparison.comparing import with_temperatures
    from gradlab.estimators import ESTIMATORS
    from gradlab.user_code.under_test import CodeEstimator

    given = texts or (() if files else default or ESTIMATORS)
    codes = [read_code(text, "ESTIMATOR") for text in given]
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
        raise ValueError(f"{text!r} is not a number; write for example 0.1,0.5,1") from None
    check_tau(tau)
    return tau


# A quadratic has (N C)^2 coefficients: more would fill the memory.
_LARGEST = 4096


def size_numbers(text: str, example: str) -> tuple[int | None, int | None]:
    """Return the two numbers of a size such as 4x3; a ? stands for None."""
    parts = re.fullmatch(r"(\d{1,6}|\?)x(\d{1,6}|\?)", text)
    if parts is None:
        raise ValueError(f"{text!r} is not a size; write {example}")
    first, second = (None if part == "?" else int(part) for part in parts.groups())
    return first, second


def read_size(text: str | None, default: tuple[int, int]) -> tuple[int, int]:
    """Return the variables and classes that NxC says; a ? stands for the default's number."""
    if text is None:
        return default
    with blaming("--size"):
        numbers = size_numbers(text, "variables x classes, such as 4x3")
    N, C = (d if number is None else number for number, d in zip(numbers, default, strict=True))
    if min(N, C) < 1:
        message = f"at least one variable and one class are needed, not {text}"
        raise typer.BadParameter(message, param_hint="--size")
    return N, C


def read_loss(
    *,
    problem: str | None,
    loss: str | None,
    logits: Path | None,
    regime: str | None,
    size: str | None,
    seed: int,
    default: tuple[int, int] = (4, 4),
) -> tuple["Loss", "Tensor", str]:
    """Return f, the logits, and what the logits are called."""
    from gradlab import problems
    from gradlab.user_code.objects import load_logits, load_object

    pairs = (("--loss", loss, "--problem", problem), ("--logits", logits, "--regime", regime))
    for own, one, both, other in pairs:
        if one is not None and other is not None:
            message = f"give either {one} or {both} {other}; {own} replaces {both}"
            raise typer.BadParameter(message, param_hint=both)
    at = None
    if logits is not None:
        with blaming("--logits"):
            at = load_logits(logits)
        default = (at.shape[0], at.shape[1])
    N, C = read_size(size, default)
    if at is not None and default != (N, C):
        message = f"{logits} holds logits of size {default[0]}x{default[1]}, not {N}x{C}"
        raise typer.BadParameter(message, param_hint="--size")
    if loss is None and N * C > _LARGEST:
        message = f"N C must be at most {_LARGEST}, not {N * C}; choose a smaller size"
        raise typer.BadParameter(message, param_hint="--size")
    f: Loss
    if loss is None:
        name = problem or "quadratic"
        with blaming(f"--problem {name} --size {N}x{C} --seed {seed}"):
            f = problems.problem(name, N, C, seed)
    else:
        with blaming(f"--loss {loss}"):
            f = load_object(loss)
            if isinstance(f, type) or not callable(f):
                raise ValueError(f"it must be a function of x, not {type(f).__name__}")
    if at is not None and logits is not None:
        return f, at, logits.name
    if regime is None and isinstance(f, problems.TinyVAE):
        return f, f.logits, "encoder"
    regime = "moderate" if regime is None else regime
    with blaming("--regime"):
        return f, problems.regime(regime, N, C, seed), regime


@contextmanager
def blaming_loss(loss: str | None) -> Iterator[None]:
    """Re-raise errors of the loss from the block as a usage error that names it."""
    from gradlab.loss import LossError
    from gradlab.user_code.objects import line_of

    try:
        yield
    except Exception as error:
        where = line_of(error)
        if isinstance(error, LossError):
            message = f"{error}{where}"
        elif where and loss:
            message = f"it raised {type(error).__name__}: {error}{where}"
        else:
            raise
        raise typer.BadParameter(
            message, param_hint=f"--loss {loss}" if loss else "--problem"
        ) from None

"""The option --distribution: what x is drawn from instead of independent categorical variables."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.faults import blaming
from gradlab.cli.options import blaming_loss, in_its_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.exact.finite_states import DistributionOf
    from gradlab.exact.structures import Structured
    from gradlab.loss import Loss

__all__ = ["Distribution", "Given", "read_distribution", "read_structured"]

Distribution = Annotated[
    str | None,
    typer.Option(
        help='Distribution of x instead of independent rows: "KSubset(k=3)", Permutation, '
        '"SpanningTree(vertices=4)", "Chain(length=4, classes=3)", or your own function from '
        "parameters to a torch distribution. --logits or --size (such as 6) give its parameters.",
        metavar="NAME(...)|FILE.py:NAME",
    ),
]

_NAMES = "KSubset(k=3), Permutation, SpanningTree(vertices=4), Chain(length=4, classes=3)"
# The arguments of each text form: those that it needs, and those that it may have.
_ARGUMENTS: dict[str, tuple[set[str], set[str]]] = {
    "KSubset": ({"k"}, {"n"}),
    "Permutation": (set(), {"n"}),
    "SpanningTree": ({"vertices"}, set()),
    "Chain": ({"length", "classes"}, set()),
}
_LARGEST = 4096


class Given:
    """A distribution as it was named: its function, its text, and the shape of its parameters."""

    def __init__(self, text: str, of: "DistributionOf", shape: tuple[int, ...] | None) -> None:
        self.text, self.of, self.shape = text, of, shape


def read_distribution(text: str) -> Given:
    """Return the distribution that a text names; faults are those of --distribution."""
    from gradlab.user_code.objects import load_object

    if ".py" in text:
        with blaming(f"--distribution {text}"):
            of = load_object(text)
            if isinstance(of, type) or not callable(of):
                raise ValueError(
                    "it must be a function from parameters to a torch distribution, not "
                    f"{type(of).__name__}"
                )
        return Given(text, of, None)
    with blaming("--distribution"):
        return _named(text)


def _named(text: str) -> Given:
    found = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    name = found.group(1) if found else ""
    if found is None or name not in _ARGUMENTS:
        raise ValueError(f"{text!r} is no distribution; write one of {_NAMES}, or FILE.py:NAME")
    needed, allowed = _ARGUMENTS[name]
    given: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in (found.group(2) or "").split(","))):
        pair = re.fullmatch(r"(\w+)\s*=\s*(-?\d+)", part)
        if pair is None or pair.group(1) not in needed | allowed:
            known = ", ".join(f"{argument}=..." for argument in sorted(needed | allowed))
            raise ValueError(f"{part!r} is no argument of {name}, which has {known}")
        given[pair.group(1)] = int(pair.group(2))
    if needed - set(given):
        raise ValueError(f"{name} needs {', '.join(sorted(needed - set(given)))}, as in {_NAMES}")
    return Given(text.strip(), *_made(name, given))


def _made(name: str, given: dict[str, int]) -> tuple["DistributionOf", tuple[int, ...]]:
    """Return the function from parameters to the distribution, and the shape that it expects."""
    from gradlab import distributions

    if name == "KSubset":
        k = given["k"]
        return lambda p: distributions.KSubset(p, k), (given.get("n", max(2 * k, 4)),)
    if name == "Permutation":
        return distributions.Permutation, (given.get("n", 4),) * 2
    if name == "SpanningTree":
        vertices = given["vertices"]
        edges = max(1, vertices * (vertices - 1) // 2)
        return lambda p: distributions.SpanningTree(p, vertices), (edges,)
    length, classes = given["length"], given["classes"]
    if min(length, classes) < 1:
        raise ValueError(f"length and classes must be at least 1, not {length} and {classes}")
    unary, pairwise = (length, classes), (length - 1, classes, classes)

    def chain(p: "Tensor") -> distributions.Chain:
        parts = p.split([math.prod(unary), math.prod(pairwise)], -1)
        return distributions.Chain(parts[0].unflatten(-1, unary), parts[1].unflatten(-1, pairwise))

    return chain, (math.prod(unary) + math.prod(pairwise),)


def read_structured(
    given: Given,
    *,
    problem: str | None,
    loss: str | None,
    logits: Path | None,
    regime: str | None,
    size: str | None,
    seed: int,
) -> tuple["Structured", str]:
    """Return the loss on a distribution at its parameters, and what these are called.

    Faults are those of the option that is to blame.
    """
    from gradlab.exact.finite_states import distribution_at
    from gradlab.exact.sampled_structures import structured_or_sampled
    from gradlab.user_code.objects import line_of, load_object
    from gradlab.verification.structure_rungs import RandomFunction

    for own, one, both, other in (
        ("--loss", loss, "--problem", problem),
        ("--logits", logits, "--regime", regime),
        ("--logits", logits, "--size", size),
    ):
        if one is not None and other is not None:
            message = f"give either {own} or {both} {other}; {own} replaces {both}"
            raise typer.BadParameter(message, param_hint=both)
    at, kind = _parameters(given, logits, regime, size, seed)
    option = f"--distribution {given.text}"
    with blaming(option, (ValueError, TypeError)):
        try:
            drawn = distribution_at(given.of, at)
        except (ValueError, TypeError):
            raise
        except Exception as error:
            told = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{told}{line_of(error)}") from None
        shape = drawn.batch_shape + drawn.event_shape
        f: Loss
        if loss is None:
            name = problem or "quadratic"
            f = _function(name, lambda: RandomFunction(name, shape, seed))
        else:
            with blaming(f"--loss {loss}"):
                f = load_object(loss)
                if isinstance(f, type) or not callable(f):
                    raise ValueError(f"it must be a function of x, not {type(f).__name__}")
        with blaming_loss(loss):
            on = in_its_dtype(
                lambda logits: structured_or_sampled(f, logits, given.of)[0], at, loss or "f"
            )
    return on, kind


def _function(name: str, make: Callable[[], Any]) -> Any:
    from gradlab.verification.structure_rungs import STRUCTURE_RUNGS

    if name not in STRUCTURE_RUNGS:
        message = f"with --distribution it is one of {', '.join(STRUCTURE_RUNGS)}, not {name!r}"
        raise typer.BadParameter(message, param_hint="--problem")
    return make()


def _parameters(
    given: Given, logits: Path | None, regime: str | None, size: str | None, seed: int
) -> tuple["Tensor", str]:
    """Return the parameters, from a file or at random, and what they are called."""
    from gradlab import problems
    from gradlab.exact.finite_states import check_parameters
    from gradlab.user_code.objects import load_logits

    if logits is not None:
        with blaming("--logits"):
            found = load_logits(logits, any_shape=True)
            check_parameters(found)
        return found, logits.name
    shape = given.shape
    if size is not None:
        if re.fullmatch(r"\d+(x\d+)*", size) is None or 0 in (parts := _sizes(size)):
            message = f"{size!r} is not a shape of parameters; write for example 6 or 4x4"
            raise typer.BadParameter(message, param_hint="--size")
        shape = parts
    if shape is None:
        message = f"give --logits, or --size, the shape of the parameters of {given.text}"
        raise typer.BadParameter(message, param_hint="--distribution")
    if math.prod(shape) > _LARGEST:
        message = f"{math.prod(shape)} parameters are more than {_LARGEST}; choose fewer"
        raise typer.BadParameter(message, param_hint="--size" if size else "--distribution")
    regime = "moderate" if regime is None else regime
    with blaming("--regime"):
        return problems.regime(regime, 1, math.prod(shape), seed).reshape(shape), regime


def _sizes(size: str) -> tuple[int, ...]:
    return tuple(int(part) for part in size.split("x"))

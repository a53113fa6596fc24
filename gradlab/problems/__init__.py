"""Losses on small models, where the exact gradient is known: the cases that estimators are put to.

Each is a callable f(x) with a formula in its docstring; `problem` finds one by its name.
"""

from collections.abc import Callable
from typing import Any

from gradlab.checks import check_known
from gradlab.problems.base import Problem
from gradlab.problems.network import MLP
from gradlab.problems.norms import NormPower
from gradlab.problems.polynomials import (
    Constant,
    Cubic,
    Linear,
    Multilinear,
    MultiQuadratic,
    Quadratic,
)
from gradlab.problems.regimes import REGIMES, regime
from gradlab.problems.ridges import Polynomial, Softplus
from gradlab.problems.table import LookupTable
from gradlab.problems.tiny_vae import TinyVAE
from gradlab.problems.tiny_vae_model import LATENT_C, LATENT_N
from gradlab.problems.tiny_vae_weights import SNAPSHOTS

__all__ = [
    "PROBLEMS",
    "problem",
    "Problem",
    "Constant",
    "Linear",
    "Multilinear",
    "Quadratic",
    "MultiQuadratic",
    "Cubic",
    "Polynomial",
    "Softplus",
    "NormPower",
    "LookupTable",
    "MLP",
    "TinyVAE",
    "SNAPSHOTS",
    "REGIMES",
    "regime",
]


def _norm(N: int, C: int, seed: int = 0, *, p: int | float = 2) -> NormPower:
    """The toy problem has fixed targets: the seed changes nothing."""
    return NormPower(N, C, p)


def _vae(N: int = LATENT_N, C: int = LATENT_C, seed: int = 0, *, snapshot: str = "some") -> TinyVAE:
    if (N, C) != (LATENT_N, LATENT_C):
        raise ValueError(f"the problem vae has N={LATENT_N}, C={LATENT_C}, not N={N}, C={C}")
    return TinyVAE(snapshot, image=seed)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "constant": Constant.random,
    "linear": Linear.random,
    "multilinear": Multilinear.random,
    "quadratic": Quadratic.random,
    "multiquadratic": MultiQuadratic.random,
    "cubic": Cubic.random,
    "polynomial": Polynomial.random,
    "softplus": Softplus.random,
    "norm": _norm,
    "table": LookupTable.random,
    "mlp": MLP,
    "vae": _vae,
}
"""Constructors by name, each called with N, C, seed (for `vae` the seed is the image)."""

# The argument that may follow a name after a colon.
_ARGUMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "polynomial": ("degree", int),
    "norm": ("p", float),
    "vae": ("snapshot", str),
}


def problem(name: str, N: int, C: int, seed: int = 0) -> Problem:
    """Return the problem called `name`: `quadratic`, `polynomial:5`, `norm:1.5`, `vae:long`, ...

    Args:
        name: a name in `PROBLEMS`. After a colon, `polynomial` takes its degree, `norm` its power p
            and `vae` its snapshot.
        N: the number of variables; 4 for `vae`.
        C: the number of classes; 4 for `vae`.
        seed: fixes the coefficients; for `vae` it is the number of the image.

    Returns:
        The problem, a loss f: x [..., N, C] -> values [...].

    Raises:
        ValueError: the name or its argument is unknown (the message lists what is known), or the
            size does not fit.

    Example:
        >>> f = problem("polynomial:3", N=4, C=3)
        >>> f, f.degree
        (polynomial(degree=3, N=4, C=3, seed=0), 3)
    """
    kind, colon, argument = name.partition(":")
    check_known("problem", kind, PROBLEMS)
    if not colon:
        return PROBLEMS[kind](N, C, seed)
    if kind not in _ARGUMENTS:
        takers = ", ".join(f"{kind}:{key}" for kind, (key, _) in _ARGUMENTS.items())
        raise ValueError(
            f"the problem {kind!r} takes no argument, got {name!r} (some do: {takers})"
        )
    key, convert = _ARGUMENTS[kind]
    try:
        value = convert(argument)
    except ValueError:
        raise ValueError(
            f"{key} in {name!r} must be a number, as in {kind}:3, not {argument!r}"
        ) from None
    return PROBLEMS[kind](N, C, seed, **{key: value})

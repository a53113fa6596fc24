"""The names of estimators and problems in pictures: one form, the text form in Greek letters.

`RF(m=4)` is written `RF(4)`, and `GR(tau=0.5, k=inf)` is written `GR(τ=0.5, k=∞)`. `short` also
leaves out coefficients.
"""

from collections.abc import Iterator

import pandas as pd

__all__ = ["fitted_text", "label", "problem_title", "series_of", "short", "trained_labels"]

_LETTERS = {"tau": "τ", "gamma": "γ", "alpha": "α", "beta": "β", "rho": "ρ", "lam": "λ"}
_LETTERS |= {"inf": "∞"}
# What distinguishes members of a family; other arguments are coefficients, which are in the rows.
_SHORT = ("m", "k", "alpha", "tau")
_WITH_COEFFICIENT_ALPHA = ("DoubleCV", "RODEO")


def label(text: str) -> str:
    """Return the text form of an estimator as pictures show it.

    Args:
        text: The text form, such as `GR(tau=0.5, k=inf)`. Other text is returned as it is.

    Returns:
        The name with all arguments but a baseline of 0, such as `GR(τ=0.5, k=∞)`.

    Example:
        >>> label("GR(tau=0.5, k=inf)"), label("RF(m=4)"), label("REINFORCE(baseline=0)")
        ('GR(τ=0.5, k=∞)', 'RF(4)', 'REINFORCE')
    """
    text, dot, objective = text.partition(_DOT)
    name, given = _parts(text)
    shown = _joined(name, (part for part in given if part != ("baseline", "0")))
    return shown + dot + objective


def short(text: str, *, fitted: bool = False) -> str:
    """Return the label of an estimator without its coefficients, where many names stand together.

    Args:
        text: the text form, such as `REBAR(tau=0.5, rho=1)`.
        fitted: whether coefficients were fitted, which the name then says.

    Returns:
        The name with its numbers of samples and its temperature, and with the alpha that
        distinguishes members of a family.

    Example:
        >>> short("REBAR(tau=0.5, rho=1)"), short("DoubleCV(m=4, alpha=-1)", fitted=True)
        ('REBAR(τ=0.5)', 'DoubleCV(4) fitted')
    """
    name, given = _parts(text)
    hidden = {"alpha"} if name in _WITH_COEFFICIENT_ALPHA else set()
    kept = ((key, value) for key, value in given if key in _SHORT and key not in hidden)
    return _joined(name, kept) + (" fitted" if fitted else "")


def series_of(text: str) -> str:
    """Return the text form of an estimator without its temperature: what its colour is chosen by.

    Args:
        text: the text form of an estimator.

    Returns:
        The text form of its series.

    Example:
        >>> series_of("GR(tau=0.5, k=10)"), series_of("GS(tau=1)")
        ('GR(k=10)', 'GS')
    """
    name, given = _parts(text.partition(_DOT)[0])
    kept = [f"{key}={value}" for key, value in given if key != "tau"]
    return f"{name}({', '.join(kept)})" if kept else name


def problem_title(problem: str) -> str:
    """Return the title of the panels of a problem, in two lines.

    Args:
        problem: the name of a problem, such as `quadratic(N=4, C=4, seed=0)`.

    Returns:
        The kind of the problem above its size and seed.

    Example:
        >>> problem_title("mlp(N=4, C=4, seed=0)")
        'MLP\\n(N=4, C=4, seed=0)'
    """
    kind, bracket, rest = problem.partition("(")
    return f"{_TITLES.get(kind, kind)}\n{bracket}{rest}"


_TITLES = {"mlp": "MLP", "vae": "tiny VAE"}


def trained_labels(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return what each row of a training is called: the estimator, and the objective if it matters.

    Args:
        rows: Curves of `gradlab train`.

    Returns:
        The texts of the estimators as they are where all rows are of the ELBO, as in rows without a
        column `objective`; else with the objective.

    Example:
        >>> rows = pd.DataFrame({"estimator": ["ZGR", "VIMCO"], "objective": ["elbo", "iwae"]})
        >>> trained_labels(rows.assign(k=[1, 5])).tolist()
        ['ZGR · ELBO', 'VIMCO · IWAE(5)']
    """
    texts = rows["estimator"].astype(str)
    if "objective" not in rows or not (rows["objective"] == "iwae").any():
        return texts
    bound = "IWAE(" + rows["k"].astype(int).astype(str) + ")"
    return texts + _DOT + bound.where(rows["objective"] == "iwae", "ELBO")


# Between an estimator and the objective that it is trained on.
_DOT = " · "


def fitted_text(rows: pd.DataFrame) -> str:
    """Return how the coefficients in rows of figures were fitted.

    Args:
        rows: Rows with the column `fits`, the number of draws of a fit.

    Returns:
        A phrase for a legend.

    Example:
        >>> fitted_text(pd.DataFrame({"fits": [1024]}))
        'coefficients fitted from 1,024 draws'
    """
    return f"coefficients fitted from {rows['fits'].max():,.0f} draws"


def _parts(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the name, and each argument as key and value; text without them has none."""
    name, bracket, rest = text.partition("(")
    given = rest.removesuffix(")").split(", ") if rest.endswith(")") else []
    if not bracket or not given or not all("=" in part for part in given):
        return text, []
    pairs = (part.partition("=") for part in given)
    return name, [(key, value) for key, _, value in pairs]


def _joined(name: str, given: Iterator[tuple[str, str]]) -> str:
    shown = [_written(key, value) for key, value in given]
    return f"{name}({', '.join(shown)})" if shown else name


def _written(key: str, value: str) -> str:
    """Return an argument in Greek letters; the number of samples m is known by its place."""
    value = _LETTERS.get(value, value)
    if len(value) > 7 and _is_number(value):  # with all its digits
        value = f"{float(value):.3g}"
    return value if key == "m" else f"{_LETTERS.get(key, key)}={value}"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

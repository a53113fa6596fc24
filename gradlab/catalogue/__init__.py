"""What there is: the estimators with what they declare, problems and regimes, as tables.

They are read from catalogue.json, so that asking for a name loads no torch. The module `made`
computes the same from the classes, and `python -m gradlab.catalogue.made` writes the file anew.
"""

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from gradlab.checks import check_known, did_you_mean
from gradlab.text_forms import Known, bare, read_form

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CLASSES",
    "KEY",
    "REGIMES_OF_ANY",
    "SHOWN",
    "SHOWN_OF_POLICIES",
    "check_estimator",
    "check_policy",
    "check_policy_gradient",
    "check_problem",
    "check_regime",
    "check_task",
    "entries",
    "estimator_rows",
    "problem_rows",
    "regime_rows",
]

CLASSES = 3
"""Evaluations of f are counted for one variable of this many classes, where they depend on it."""

KEY = [
    (
        "degree",
        "exact if f is a polynomial of at most this degree in each variable (0: constant f)",
    ),
    ("calls", f"evaluations of f for one draw, at N = 1, C = {CLASSES}"),
    ("∇f", "needs the gradient of f"),
    ("moments", "mean and variance are known exactly, or measured from draws (Monte Carlo)"),
]
"""What the columns of `estimator_rows` mean."""

SHOWN = ("estimator", "degree", "calls", "∇f", "moments", "source")
"""The columns of `estimator_rows`; the catalogue has further fields of each estimator."""

SHOWN_OF_POLICIES = ("name", "advantage", "aggregation", "loss", "mean on policy", "source")
"""What a list shows of each policy gradient."""

REGIMES_OF_ANY = "regimes of logits"
"""What the catalogue calls the regimes that fit every problem."""


@cache
def entries() -> dict[str, list[dict[str, Any]]]:
    """Return the whole catalogue: lists of entries by their kind.

    They are estimators, bounds, problems and regimes, and of sequences policy-gradients, choices,
    tasks and policies.
    """
    text = resources.files(__name__).joinpath("catalogue.json").read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


def estimator_rows() -> "pd.DataFrame":
    """Return one row for each estimator: its text with all arguments, and what it declares.

    Returns:
        The columns of `SHOWN`; `KEY` says what they mean.

    Example:
        >>> estimator_rows()["estimator"].tolist()[:3]
        ['ST', 'DARN', 'ZGR']
    """
    import pandas as pd

    return pd.DataFrame(entries()["estimators"])[list(SHOWN)]


def problem_rows() -> "pd.DataFrame":
    """Return one row per problem.

    Returns:
        Columns `problem`, its name with its argument if it takes one, and `about`, one sentence.

    Example:
        >>> problem_rows()["problem"].tolist()[:3]
        ['constant', 'linear', 'multilinear']
    """
    import pandas as pd

    return pd.DataFrame(entries()["problems"])


def regime_rows() -> "pd.DataFrame":
    """Return one row per kind of logits.

    Returns:
        Columns `regime`, its name, and `of`: the regimes of logits of any problem, or the snapshots
        of the tiny VAE, which are written `vae:NAME`.

    Example:
        >>> regime_rows()["regime"].tolist()[:3]
        ['uniform', 'moderate', 'peaked']
    """
    import pandas as pd

    return pd.DataFrame(entries()["regimes"])


def check_estimator(text: str, kind: str = "estimators") -> str:
    """Return the short name that an estimator's text says; the values of its arguments are free.

    Args:
        text: A text form such as `GR(tau=0.1, k=10)`.
        kind: "estimators", or "bounds" for those of `gradlab.bounds`.

    Raises:
        ValueError: The name or an argument is unknown.

    Example:
        >>> check_estimator("gumbel-rao(k=10)"), check_estimator("vimco", "bounds")
        ('GR', 'VIMCO')
    """
    return read_form(text, _known(kind))[0]


def check_problem(text: str) -> None:
    """Raise ValueError unless a problem has this name; what follows a colon is not looked at.

    Args:
        text: A name such as `quadratic` or `polynomial:5`.

    Example:
        >>> check_problem("polynomial:5")
    """
    known = [entry["problem"].partition(":")[0] for entry in entries()["problems"]]
    check_known("problem", text.partition(":")[0], known)


def check_regime(text: str) -> None:
    """Raise ValueError unless a regime of logits has this name.

    Args:
        text: A name such as `moderate`.

    Example:
        >>> check_regime("peaked")
    """
    regimes = [e["regime"] for e in entries()["regimes"] if e["of"] == REGIMES_OF_ANY]
    check_known("regime", text, regimes)


def check_policy_gradient(text: str) -> str:
    """Return the published name that a policy gradient's text says; its arguments are not read.

    Args:
        text: A text form such as `GRPO(g=8)`. `PG` is a composition without a published name.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> check_policy_gradient("dr. grpo(g=8)")
        'Dr.GRPO'
    """
    written = text.partition("(")[0].strip()
    listed = entries()["policy-gradients"]
    names = {bare(alias): one["name"] for one in listed for alias in one["aliases"]}
    names |= {bare(one["name"]): one["name"] for one in listed}
    names |= {"pg": "PG", "policygradient": "PG"}
    if bare(written) not in names:
        known = [one["name"] for one in listed]
        hint = did_you_mean(written, known) or did_you_mean(bare(written), names)
        raise ValueError(f"unknown policy gradient {written!r}{hint} (known: {', '.join(known)})")
    found: str = names[bare(written)]
    return found


def check_task(name: str) -> None:
    """Raise ValueError unless a task on sequences has this name.

    Args:
        name: A name such as `parity`.

    Example:
        >>> check_task("parity")
    """
    check_known("task", name, [one["task"] for one in entries()["tasks"]])


def check_policy(text: str) -> None:
    """Raise ValueError unless a policy over sequences has this name; a number is not looked at.

    Args:
        text: A name such as `tabular` or `ngram:3`.

    Example:
        >>> check_policy("ngram:3")
    """
    known = [one["policy"].partition(":")[0] for one in entries()["policies"]]
    check_known("policy", text.partition(":")[0], known)


@cache
def _known(kind: str) -> list[Known]:
    return [
        Known(e["name"], e["class"], tuple(e["aliases"]), tuple(e["fields"]))
        for e in entries()[kind]
    ]

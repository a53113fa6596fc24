"""The papers behind the estimators, and gradlab itself, as BibTeX.

`references.bib` holds one entry per paper; an estimator's `reference` says which one is its own.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING

from gradlab.catalogue import (
    check_estimator,
    check_policy_gradient,
    entries,
)
from gradlab.checks import did_you_mean
from gradlab.version import __version__

if TYPE_CHECKING:
    from gradlab.bounds import BoundEstimator
    from gradlab.estimators.base import Estimator
    from gradlab.sequences import PolicyGradient

__all__ = ["bibtex", "bibtex_of_names"]

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_AUTHOR_AND_YEAR = re.compile(r"(\w+).*?(\d{4})")


def bibtex(estimators: "Iterable[Estimator | BoundEstimator | PolicyGradient | str]") -> str:
    """Return the BibTeX entries of the papers that introduced the estimators, each once, by year.

    Args:
        estimators: objects or text forms, also those of `gradlab.bounds` and `gradlab.sequences`;
            the text "gradlab" stands for this package. A name that is an estimator's and a policy
            gradient's, such as RLOO, has the papers of both.

    Returns:
        The entries, separated by empty lines.

    Raises:
        ValueError: A name or an argument is unknown.

    Example:
        >>> from gradlab.citations import bibtex
        >>> bibtex(["ZGR"]).splitlines()[0]
        '@inproceedings{shekhovtsov2023,'
    """
    wanted = set()
    for given in estimators:
        if isinstance(given, str):
            wanted |= {given} if given == "gradlab" else _keys_of(given)
        elif given.reference:
            wanted.add(_key(given.name, given.reference))
    return _written(wanted)


def _keys_of(text: str) -> set[str]:
    """Return the keys of the papers of a text: an estimator's or a bound's, and a policy's."""
    found: set[str] = set()
    faults = []
    kinds: dict[str, Callable[[str], str]] = {
        "estimators": check_estimator,
        "bounds": partial(check_estimator, kind="bounds"),
        "policy-gradients": check_policy_gradient,
    }
    for kind, check in kinds.items():
        if kind == "bounds" and found:
            continue
        try:
            name = check(text)
        except ValueError as error:
            faults.append(error)
            continue
        sources = _sources(kind)
        if name in sources:  # PG, a composition, has none
            found.add(_key(name, sources[name]))
    if not found:
        written, policies = text.partition("(")[0], _sources("policy-gradients")
        near = did_you_mean(written, policies) and written not in _sources("estimators")
        raise faults[-1 if near else 0]
    return found


def bibtex_of_names(texts: Iterable[str]) -> str:
    """Return the same for the texts in rows, without loading torch; other texts are left out.

    Args:
        texts: Text forms such as `GR(tau=0.1, k=10)`, of which only the name counts. A name that is
            not an estimator of gradlab, such as that of your own code, has no entry.

    Returns:
        The entries, separated by empty lines.

    Example:
        >>> bibtex_of_names(["ZGR", "Mine"]).splitlines()[0]
        '@inproceedings{shekhovtsov2023,'
    """
    known = _references()
    names = {text.partition("(")[0] for text in texts}
    return _written({_key(name, known[name]) for name in names if name in known})


def _written(wanted: set[str]) -> str:
    return "\n\n".join(entry for key, entry in _entries().items() if key in wanted)


def _key(estimator: str, reference: str) -> str:
    """Return the key of the entry: that of the arXiv number, else of first author and year."""
    number, words = _ARXIV.search(reference), _AUTHOR_AND_YEAR.search(reference)
    for key, entry in _entries().items():
        if number and f"eprint = {{{number[1]}}}" in entry:
            return key
        if words and not number and key == f"{words[1]}{words[2]}".lower():
            return key
    raise LookupError(f"references.bib has no entry for {estimator}: {reference}")


@cache
def _entries() -> dict[str, str]:
    """Return all entries by their keys, as they stand in the file."""
    text = resources.files("gradlab").joinpath("references.bib").read_text(encoding="utf-8")
    entries = text.replace("VERSION", __version__).strip().split("\n\n")
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}


def _references() -> dict[str, str]:
    """Return the references of all estimators by their names."""
    # Of a name that several have, that of the estimators counts, then that of bounds.
    return _sources("policy-gradients") | _sources("bounds") | _sources("estimators")


def _sources(kind: str) -> dict[str, str]:
    return {entry["name"]: entry["source"] for entry in entries()[kind]}

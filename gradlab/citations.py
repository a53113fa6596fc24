"""The papers behind the estimators, and gradlab itself, as BibTeX.

`references.bib` holds one entry per paper; an estimator's `reference` says which one is its own.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from gradlab.catalogue import check_estimator, check_policy_gradient, entries
from gradlab.checks import did_you_mean
from gradlab.version import __version__

if TYPE_CHECKING:
    from gradlab.estimators.base import Estimator

__all__ = ["bibtex", "bibtex_of_names"]

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_AUTHOR_AND_YEAR = re.compile(r"(\w+).*?(\d{4})")


def bibtex(estimators: "Iterable[Estimator | str]") -> str:
    """Return the BibTeX entries of the papers that introduced the estimators, each once, by year.

    Args:
        estimators: objects or text forms, those of policy gradients too; the text "gradlab" stands
            for this package. A name that both have, such as RLOO, has the papers of both.

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
    known = _references("policy-gradients") | _references("estimators")
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


def _references(kind: str) -> dict[str, str]:
    """Return the references of the estimators or of the policy gradients by their names."""
    return {entry["name"]: entry["source"] for entry in entries()[kind]}


def _keys_of(text: str) -> set[str]:
    """Return the keys of an estimator, of a policy gradient, or of both if both have the name."""
    found, faults = set(), []
    kinds = {"estimators": check_estimator, "policy-gradients": check_policy_gradient}
    for kind, check in kinds.items():
        try:
            name = check(text)
            found.add(_key(name, _references(kind)[name]))
        except (ValueError, KeyError) as error:  # PG has no paper
            faults.append(error)
    if not found:
        names = _references("policy-gradients")
        near = did_you_mean(text.partition("(")[0], names)
        known = text.partition("(")[0] in _references("estimators")
        raise ValueError(str(faults[-1 if near and not known else 0]))
    return found

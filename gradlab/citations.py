"""The papers behind the estimators, and gradlab itself, as BibTeX.

`references.bib` holds one entry per paper; an estimator's `reference` says which one is its own.
"""

import re
from collections.abc import Iterable
from importlib import resources

from gradlab.estimators import Estimator, parse
from gradlab.version import __version__

__all__ = ["bibtex"]

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_AUTHOR_AND_YEAR = re.compile(r"(\w+).*?(\d{4})")


def bibtex(estimators: Iterable[Estimator | str]) -> str:
    """Return the BibTeX entries of the papers that introduced the estimators, each once, by year.

    Args:
        estimators: objects or text forms; the text "gradlab" stands for this package.

    Returns:
        The entries, separated by empty lines.

    Raises:
        ValueError: a name is unknown.

    Example:
        >>> from gradlab.citations import bibtex
        >>> bibtex(["ZGR"]).splitlines()[0]
        '@inproceedings{shekhovtsov2023,'
    """
    wanted = {
        e if e == "gradlab" else _key(parse(e) if isinstance(e, str) else e) for e in estimators
    }
    return "\n\n".join(entry for key, entry in _entries().items() if key in wanted)


def _key(estimator: Estimator) -> str:
    """Return the key of the entry: that of the arXiv number, else of first author and year."""
    reference = estimator.reference
    number, words = _ARXIV.search(reference), _AUTHOR_AND_YEAR.search(reference)
    for key, entry in _entries().items():
        if number and f"eprint = {{{number[1]}}}" in entry:
            return key
        if words and not number and key == f"{words[1]}{words[2]}".lower():
            return key
    raise LookupError(f"references.bib has no entry for {estimator.name}: {reference}")


def _entries() -> dict[str, str]:
    """Return all entries by their keys, as they stand in the file."""
    text = resources.files("gradlab").joinpath("references.bib").read_text(encoding="utf-8")
    entries = text.replace("VERSION", __version__).strip().split("\n\n")
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}

"""Sentences of README and docs whose numbers come from the committed rows.

A sentence stands on its page once. A run of the benchmarks puts the new numbers into it, and a test
compares them with the rows.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.ratios import time_text

__all__ = ["SENTENCES", "Sentence", "numbers", "write_pages"]

ROOT = Path(__file__).parents[1]
_GAP = "{}"

_JOB = "bias and variance of GR(k=10) on mlp (8, 4) at 30 temperatures, exact: a loop of"
_PYRO = "an exact gradient, mlp (10, 2): TraceEnum_ELBO of pyro"


@dataclass(frozen=True)
class Sentence:
    """A sentence of a page, with a gap {} for each number, and what the rows give for them."""

    page: str
    text: str
    values: Callable[[pd.DataFrame], list[str]]

    def said(self, rows: pd.DataFrame) -> str:
        """Return the sentence with the numbers of the rows."""
        return self.text.format(*self.values(rows))

    def has_rows(self, rows: pd.DataFrame) -> bool:
        """Return whether there are rows for all gaps."""
        try:
            return bool(self.values(rows))
        except ValueError:  # no such row, or more than one, or no number in it
            return False

    @property
    def pattern(self) -> re.Pattern[str]:
        """What finds the sentence on its page, wherever lines end, with any numbers."""
        words = re.split(r"(\{\}|\s+)", self.text)
        gaps = {_GAP: r"([\w.,/()\[\]-]+(?:\s(?:s|ms|us|ns|%))?)"}
        return re.compile(
            "".join(gaps.get(word, r"\s+" if word.isspace() else re.escape(word)) for word in words)
        )


def _times(rows: pd.DataFrame, what: str) -> list[str]:
    """Return the times of ours and of theirs in the one row whose name begins so."""
    (row,) = rows[rows["what"].str.startswith(what)].to_dict("records")
    return [time_text(float(row["ours"])), time_text(float(row["theirs"]))]


def _of_job(rows: pd.DataFrame) -> list[str]:
    (what,) = rows["what"][rows["what"].str.startswith(_JOB)]
    ours, theirs = _times(rows, what)
    (draws,) = re.findall(r"loop of ([\d,]+) draws", what)
    return [ours, draws, theirs]


SENTENCES = (
    Sentence(
        "README.md",
        "On 8x4, exact moments of GR(k=10) at 30 temperatures take {}, and a loop over {} draws of "
        "each takes {}.",
        _of_job,
    ),
    Sentence(
        "docs/how-to/gpu.md",
        "The exact gradient over 10 binary variables takes {}, and {} with Pyro's TraceEnum_ELBO.",
        lambda rows: _times(rows, _PYRO),
    ),
)
"""The sentences with numbers of speed."""


def numbers(sentence: Sentence, page: str) -> list[str]:
    """Return the numbers that a sentence has on its page; none if it does not stand there once."""
    found = sentence.pattern.findall(page)
    if len(found) != 1:
        return []
    return [found[0]] if isinstance(found[0], str) else list(found[0])


def write_pages(rows: pd.DataFrame) -> None:
    """Put the numbers of the rows into the sentences; what no row gives stays as it is."""
    rows = rows.astype(str)
    for sentence in SENTENCES:
        if not sentence.has_rows(rows):
            print(f"no rows for a sentence of {sentence.page}: {sentence.text}")
            continue
        values = sentence.values(rows)
        file = ROOT / sentence.page
        page = file.read_text(encoding="utf-8")
        found = sentence.pattern.search(page)
        if found is None:
            print(f"{sentence.page} lacks its sentence: {sentence.said(rows)}")
            continue
        text, end = page[: found.start()], found.start()
        for place, value in enumerate(values, 1):
            text += page[end : found.start(place)] + value
            end = found.end(place)
        file.write_text(text + page[end:], encoding="utf-8")

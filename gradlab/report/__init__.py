"""Reports: one HTML file of rows, verdicts and trainings, which opens anywhere without a network.

It reads rows only; to make one from files, torch is not loaded.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradlab.files import writing
from gradlab.report.document import page
from gradlab.report.judged import judged_section, planted_section, relations_section
from gradlab.report.measured import measured_section
from gradlab.report.origin import provenance
from gradlab.report.pictures import library
from gradlab.report.policies import policies_section
from gradlab.report.predicted import prediction_section
from gradlab.report.ranked import ranked_section
from gradlab.report.reduction import reduced
from gradlab.report.sections import Section
from gradlab.report.sources import ReportError, Source, read
from gradlab.report.summed import best_section, domination_section
from gradlab.report.theory import ends_section, factors_section, laws_section
from gradlab.report.timed import timed_section
from gradlab.report.trained import training_section

__all__ = ["ANSWERED", "LARGEST", "ReportError", "html", "write"]

LARGEST = 3_000_000
"""Bytes that a report may have: rows are summed up until it has no more."""

ANSWERED = (
    "rows of compare, sequences.compare, recommend, verify, time, train and its probe, a sweep, "
    "an atlas, and the figures cold-limit, toys, difficulty and prediction"
)
"""The rows for which a report has an answer; others are shown as a table."""

# Cells of all tables together, at first.
_CELLS = 160_000
# Rows of one section: more points than this are not told apart, and slow.
_ROWS = 4000


def html(
    things: Iterable[object],
    *,
    title: str | None = None,
    evaluations: int | None = None,
    averaged: float | None = None,
    command: Sequence[str] | None = None,
) -> str:
    """Return a report as HTML.

    Args:
        things: Paths of rows (.csv, .parquet), of stores of a sweep (.db) or of folders that
            gradlab wrote; tables of rows; a `Verdict`, a `Ladder` or a `Recommendation`.
        title: The title; by default the names of what is reported.
        evaluations: Evaluations of f for one gradient, at which measured rows are ranked; by
            default what the dearest estimator costs.
        averaged: Gradients whose mean counts; by default what the rows say.
        command: The words of the command line that made it.

    Returns:
        One page, with everything that it needs, of at most `LARGEST` bytes.

    Raises:
        ReportError: Something cannot be read, or vl-convert is not installed.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
        >>> text = gradlab.report.html([gradlab.compare(f, logits, ["ST", "ZGR"])])
        >>> "makes the most progress" in text
        True
    """
    library()
    sources = read(things)
    sections = [_section(source, evaluations, averaged) for source in sources]
    name = title or f"Report on {', '.join(source.name for source in sources[:3])}"
    if title is None and len(sources) > 3:
        name += f" and {len(sources) - 3} more"
    origin = provenance(sources, command)
    cells = _CELLS
    while True:
        text = _fitted(name, sources, sections, origin, cells)
        if len(text.encode()) <= LARGEST or cells < 1000:
            return text
        cells //= 2


def write(
    things: Iterable[object],
    path: str | Path,
    *,
    title: str | None = None,
    evaluations: int | None = None,
    averaged: float | None = None,
    command: Sequence[str] | None = None,
) -> Path:
    """Write a report into a file, whole or not at all.

    Args:
        things: As in `html`.
        path: The file, such as report.html. Its folder must exist.
        title: As in `html`.
        evaluations: As in `html`.
        averaged: As in `html`.
        command: As in `html`.

    Returns:
        The path.

    Raises:
        ReportError: Something cannot be read, or vl-convert is not installed.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
        >>> verdict = gradlab.verify("ZGR", f, logits)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gradlab.report.write([verdict], f"{folder}/report.html").name
        'report.html'
    """
    text = html(things, title=title, evaluations=evaluations, averaged=averaged, command=command)
    path = Path(path)
    with writing(path.parent) as new:
        (new / path.name).write_text(text, encoding="utf-8")
    return path


def _section(source: Source, evaluations: int | None, averaged: float | None) -> Section:
    if source.kind in ("compare", "sweep", "probe"):
        return measured_section(source, evaluations, averaged)
    for kinds, section_of in (
        (("recommend",), ranked_section),
        (("training",), training_section),
        (("time",), timed_section),
        (("policy",), policies_section),
        (("laws",), laws_section),
        (("ends",), ends_section),
        (("factors",), factors_section),
        (("prediction",), prediction_section),
        (("domination",), domination_section),
        (("best",), best_section),
        (("verify", "ladder"), judged_section),
        (("relations",), relations_section),
        (("planted",), planted_section),
    ):
        if source.kind in kinds:
            return section_of(source)
    rows = source.rows.reset_index(drop=True)
    lead = (
        "The report has no answer for rows of this kind and shows them as a table. It has one for "
        f"{ANSWERED}."
        if len(rows)
        else "There are no rows."
    )
    return Section("Rows", lead, [], [], rows, list(map(str, rows.columns[:10])))


def _fitted(
    title: str,
    sources: Sequence[Source],
    sections: Sequence[Section],
    origin: Sequence[tuple[str, str]],
    cells: int,
) -> str:
    """Return the page whose tables have about so many cells."""
    from dataclasses import replace

    parts = []
    for source, section in zip(sources, sections, strict=True):
        wide = max(1, len(section.rows.columns))
        most = max(10, min(_ROWS, cells // wide // len(sections)))
        rows, told = reduced(section.rows, most, source.kind)
        shown = [c for c in section.shown if c in rows] + ["merged"] * ("merged" in rows)
        selects = [c for c in section.selects if c in rows]
        few = replace(section, rows=rows, shown=shown, selects=selects)
        parts.append((source.name, few, told))
    return page(title, parts, origin)

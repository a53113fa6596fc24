"""What a report is made of: rows of any verb, read from files, folders, stores or objects."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

__all__ = ["ReportError", "Source", "kind_of", "read"]


class ReportError(ValueError):
    """Something of which no report can be made; the message says why and what to do."""


@runtime_checkable
class _Ranked(Protocol):
    """A `Recommendation`."""

    rows: pd.DataFrame
    table: pd.DataFrame
    curves: pd.DataFrame

    def explain(self) -> str: ...


@runtime_checkable
class _Judged(Protocol):
    """A `Verdict`."""

    def row(self) -> dict[str, Any]: ...

    def explain(self) -> str: ...


@runtime_checkable
class _Climbed(Protocol):
    """A `Ladder` of verdicts."""

    def rows(self) -> pd.DataFrame: ...

    def explain(self) -> str: ...


@dataclass(frozen=True)
class Source:
    """Rows of one kind, and where they come from.

    Args:
        name: What the report calls them.
        rows: The rows.
        kind: One of the names that `kind_of` returns.
        curves: Of a recommendation: its rankings for other budgets.
        told: Text of the verb itself, such as `Verdict.explain`.
        about: What is known of the origin, in pairs of words.

    Example:
        >>> Source("mine", pd.DataFrame({"a": [1]}), "other").about
        {}
    """

    name: str
    rows: pd.DataFrame
    kind: str
    curves: pd.DataFrame | None = None
    told: str = ""
    about: dict[str, str] = field(default_factory=dict)


# A kind is known by columns; the first that has all of its columns counts.
_KINDS = {
    "ladder": ("outcome", "estimator", "kind", "degree"),
    "verify": ("outcome", "estimator", "bias"),
    "planted": ("planted", "outcome"),
    "relations": ("relation", "holds"),
    "recommend": ("rank", "evaluations", "averaged", "series", "progress"),
    "training": ("epoch", "step", "estimator", "kind"),
    "time": ("timed", "ms", "estimator", "N", "C"),
    "laws": ("quantity", "difference", "law", "power", "tau", "estimator"),
    "ends": ("toy", "q", "limit", "least", "estimator"),
    "factors": ("name", "p", "factor", "claimed"),
    "prediction": ("task", "criterion", "averaged", "moment", "outcome", "rho"),
    "best": ("criterion", "error", "wins", "seeds", "series"),
    "probe": ("step", "estimator", "bias2", "variance"),
    "policy": ("policy", "target", "estimator", "bias2", "variance"),
    "sweep": ("cell", "estimator", "bias2", "variance"),
    "compare": ("estimator", "bias2", "variance"),
    "domination": ("series", "dominated_by", "share"),
}


def kind_of(rows: pd.DataFrame) -> str:
    """Return which verb made rows, by their columns.

    Args:
        rows: A table.

    Returns:
        "compare", "policy" (of `gradlab.sequences.compare`), "sweep", "probe", "recommend",
        "verify", "ladder" (verdicts on losses of rising degree), "planted", "relations",
        "training", "time", "laws", "ends" and "factors" (measured beside what theory predicts: the
        figures cold-limit, toys and difficulty), "prediction" (the figure), "best" and "domination"
        (the two parts of an atlas), or "other".

    Example:
        >>> kind_of(pd.DataFrame(columns=["estimator", "bias2", "variance"]))
        'compare'
    """
    there = set(rows.columns)
    return next((kind for kind, needed in _KINDS.items() if there.issuperset(needed)), "other")


def read(things: Iterable[object]) -> list[Source]:
    """Return the rows of files, folders, stores and objects.

    Args:
        things: Paths of .csv or .parquet files, of stores of a sweep (.db) or of folders that
            gradlab wrote; tables; objects: a `Verdict`, a `Ladder`, a `Recommendation`; or sources.

    Returns:
        One source for each table that was found; verdicts given one by one are one source.

    Raises:
        ReportError: if nothing is given, or something cannot be read.

    Example:
        >>> [source.kind for source in read([pd.DataFrame({"relation": ["a"], "holds": True})])]
        ['relations']
    """
    sources: list[Source] = []
    verdicts: list[_Judged] = []
    for number, thing in enumerate(things, 1):
        if isinstance(thing, Source):
            sources.append(thing)
        elif isinstance(thing, (str, Path)):
            sources += _from_path(Path(thing))
        elif isinstance(thing, pd.DataFrame):
            sources.append(Source(f"rows {number}", thing, kind_of(thing)))
        elif isinstance(thing, _Ranked):
            sources += _from_ranking(thing)
        elif isinstance(thing, _Judged):
            verdicts.append(thing)
        elif isinstance(thing, _Climbed):
            rows = thing.rows()
            sources.append(Source(f"rows {number}", rows, kind_of(rows), told=thing.explain()))
        else:
            raise ReportError(
                f"a report is made of paths, tables, verdicts and recommendations, not of "
                f"{type(thing).__name__}"
            )
    if verdicts:
        rows = pd.DataFrame([verdict.row() for verdict in verdicts])
        told = "\n\n".join(verdict.explain() for verdict in verdicts)
        sources.append(Source("verdicts", rows, kind_of(rows), told=told))
    sources = [part for source in _with_curves(sources) for part in _apart(source)]
    if not sources:
        raise ReportError("nothing to report: give rows.csv, store.db or a folder of gradlab")
    return sources


def _from_ranking(answer: _Ranked) -> list[Source]:
    told = answer.explain()
    return [
        Source("ranking", answer.table, "recommend", curves=answer.curves, told=told),
        Source("moments behind the ranking", answer.rows, kind_of(answer.rows)),
    ]


def _from_path(path: Path) -> list[Source]:
    if not path.exists():
        raise ReportError(f"there is no {path}")
    return _from_folder(path) if path.is_dir() else [_from_file(path)]


def _from_folder(folder: Path) -> list[Source]:
    """Return the tables of a folder, those of one recommendation together."""
    files = sorted(folder.glob("*.csv")) + sorted(folder.glob("*.parquet"))
    files += sorted(folder.glob("*.db"))
    if not files:
        raise ReportError(f"the folder {folder} holds no .csv, .parquet or .db of gradlab")
    found = [_from_file(file) for file in files]
    # Answers stand before what they rest on.
    order = ["recommend", "training", *_KINDS, "other"]
    return sorted(found, key=lambda source: order.index(source.kind))


def _with_curves(sources: list[Source]) -> list[Source]:
    """Return a ranking and its curves, which a recommendation writes as two files, as one."""
    ranked = [s for s in sources if s.kind == "recommend" and s.curves is None]
    tables = [s for s in ranked if "asked" not in s.rows]
    curves = [s for s in ranked if "asked" in s.rows]
    if not len(tables) == len(curves) == 1:
        return sources
    whole = replace(tables[0], curves=curves[0].rows)
    return [whole if s is tables[0] else s for s in sources if s is not curves[0]]


def _apart(source: Source) -> list[Source]:
    """Return what stands in one table as sources: curves and a probe, the parts of an atlas."""
    rows = source.rows
    if source.kind == "training" and "part" in rows:
        by = rows["part"]
    elif {"kind", "dominated_by", "share"} <= set(rows):
        # What was left out belongs to what it was left out of.
        by = rows["kind"].replace("left out", "best")
    else:
        return [source]
    if by.nunique() < 2:
        return [source]
    parts = [
        (name, part.dropna(axis="columns", how="all").drop(columns=by.name).reset_index(drop=True))
        for name, part in rows.groupby(by, sort=False)
    ]
    return [
        replace(source, name=f"{source.name}, {name}", rows=part, kind=kind_of(part))
        for name, part in parts
    ]


def _from_file(path: Path) -> Source:
    data = path.read_bytes()
    about = {"file": str(path), "bytes": f"{len(data):,}"}
    about["SHA-256"] = hashlib.sha256(data).hexdigest()
    if path.suffix == ".csv":
        rows = _csv(path)
    elif path.suffix == ".parquet":
        rows = _parquet(path)
    elif path.suffix == ".db":
        from gradlab.sweep.store import read_settings, sweep_rows

        rows = sweep_rows(path)
        settings, versions = read_settings(path)
        about["made with"] = ", ".join(f"{name} {number}" for name, number in versions.items())
        about["grid"] = json.dumps(settings)
    else:
        raise ReportError(
            f"{path} is not rows of gradlab: give a .csv, a .parquet, a .db or a folder"
        )
    return Source(path.name, rows, kind_of(rows), about=about)


def _csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, low_memory=False)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not a CSV file: {error}") from None


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise ReportError(
            f"{path}: Parquet needs pyarrow: pip install 'gradlab[parquet]', or give a .csv"
        ) from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} is not a Parquet file: {error}") from None

"""The pictures of a page: still ones in the HTML, which the script replaces by live ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.plots.names import label
from gradlab.report.charts import Chart, views
from gradlab.report.layers import LIBRARY
from gradlab.report.looks import Look, by_family, series_looks
from gradlab.report.markup import Markup, element
from gradlab.report.sections import Section, title_of
from gradlab.report.sources import ReportError

__all__ = ["drawn_columns", "library", "pictures"]


def library() -> Any:
    """Return vl-convert.

    Returns:
        The module.

    Raises:
        ReportError: it is not installed.

    Example:
        >>> library().__name__
        'vl_convert'
    """
    try:
        import vl_convert
    except ImportError:
        raise ReportError(
            "the pictures of a report need vl-convert: pip install 'gradlab[report]'"
        ) from None
    return vl_convert


def pictures(name: str, section: Section) -> tuple[list[Markup], dict[str, Any]]:
    """Return the pictures of a section with their controls, and what the script needs to draw.

    Args:
        name: The id of the section on the page.
        section: The section.

    Returns:
        Elements of HTML; and a dict of `charts`, `looks` (colour and shape by series) and
        `selects`. Without rows or charts there are no elements.

    Raises:
        ReportError: vl-convert is not installed.

    Example:
        >>> parts, script = pictures("s1", Section("Rows", "", [], [], pd.DataFrame(), []))
        >>> parts, script["charts"]
        ([], [])
    """
    script: dict[str, Any] = {"charts": [], "looks": {}, "selects": section.selects}
    if not section.charts or not len(section.rows):
        return [], script
    rows = section.rows
    looks = series_looks(_drawable(rows, section.charts))
    script["looks"] = {series: [look.color, look.shape] for series, look in looks.items()}
    parts = [element("h3", "Pictures")]
    controls = [
        element(
            "label",
            f"{title_of(column)} ",
            element("select", data_column=column),
            class_="select",
        )
        for column in section.selects
    ]
    if controls:
        parts.append(element("div", *controls, class_="controls scripted"))
    parts.append(_legend(looks))
    titles = {column: title_of(column) for column in rows}
    for chart in section.charts:
        found = views(chart, rows, titles, section.selects)
        drawn = {"name": chart.name, "log": chart.starts_log, "views": found}
        script["charts"].append(drawn | {"free": [*chart.free]})
        shown = next((v for v in found if v["log"] == chart.starts_log), found[0])
        parts.append(
            _figure(f"{name}-{chart.name}", chart, shown, _points(rows, section, chart, looks))
        )
    return parts, script


def _figure(name: str, chart: Chart, shown: dict[str, Any], points: list[dict[str, Any]]) -> Markup:
    still = dict(shown["spec"], width=640, autosize="pad", data={"values": points})
    still = {key: value for key, value in still.items() if key != "$schema"}
    picture = library().vegalite_to_svg(still, LIBRARY)
    controls = []
    if len(chart.ys) > 1:
        controls.append(
            element(
                "label",
                "Quantity " if chart.by else "Vertical axis ",
                element("select", class_="vertical"),
                class_="select",
            )
        )
    if any(axis.log for axis in chart.ys):
        controls.append(
            element("button", "Logarithmic", type="button", class_="log", aria_pressed="true")
        )
    return element(
        "figure",
        element("h4", chart.title, id=f"{name}-title"),
        element("div", *controls, class_="controls scripted"),
        element(
            "div",
            element("div", Markup(picture), class_="picture"),
            class_="canvas",
            id=name,
            role="group",
            aria_labelledby=f"{name}-title",
        ),
        element("p", _notes(shown["bands"], points), class_="band", aria_live="polite"),
        element("figcaption", f"{chart.caption} The table below has the numbers."),
    )


def _notes(bands: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> str:
    """Return how many points stand in the bands; the page's script says it of those it shows."""
    told = []
    for band in bands:
        values = [point[band["column"]] for point in points]
        number = sum(v is not None and v <= band["floor"] for v in values)
        if number:
            told.append(band["one"] if number == 1 else band["many"].replace("{n}", f"{number:,}"))
    return " ".join(told)


def _points(
    rows: pd.DataFrame, section: Section, chart: Chart, looks: Mapping[str, Look]
) -> list[dict[str, Any]]:
    """Return the points of the static picture: those of the first value of each select."""
    if "series" not in rows:
        return []
    for column in section.selects:
        values = rows[column].dropna()
        if len(values) and column != "method" and column not in chart.free:
            rows = rows[rows[column] == values.iloc[0]]
    drawn = drawn_columns(section)
    found = []
    for row in rows[drawn].to_dict("records"):
        point = {str(k): _plain(v) for k, v in row.items()}
        look = looks.get(str(row["series"]), Look("#777777", "M-.9,0A.9,.9,0,1,0,.9,0Z"))
        point |= {"color": look.color, "shape": look.shape}
        point |= {"opacity": 0.12 if row.get("method") == "exact" else 0.9}
        found.append(point | {"label": str(row.get("estimator", ""))})
    return found[:2000]


def _plain(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    return None if value is None or value is pd.NA else str(value)


def _legend(looks: Mapping[str, Look]) -> Markup:
    """Return the legend: a button for each family and series, pressed where it is shown."""
    groups = []
    for kind, members in by_family(looks).items():
        keys = [
            element(
                "button",
                _swatch(looks[series]),
                label(series),
                type="button",
                class_="key",
                data_series=series,
                aria_pressed="true",
            )
            for series in members
        ]
        head = element("button", kind, type="button", class_="family", aria_pressed="true")
        groups.append(element("div", head, *keys, class_="keys", role="group", aria_label=kind))
    return element("div", *groups, class_="legend", role="group", aria_label="Estimators shown")


def _swatch(look: Look) -> Markup:
    path = element("path", d=look.shape, fill=look.color)
    return element(
        "svg", path, viewBox="-1.2 -1.2 2.4 2.4", width="14", height="14", aria_hidden="true"
    )


def _drawable(rows: pd.DataFrame, charts: Sequence[Chart]) -> list[str]:
    """Return the series that have a number in some picture."""
    names = [axis.column for chart in charts for axis in chart.ys]
    there = rows[[n for n in names if n in rows]].notna().any(axis=1)
    return list(dict.fromkeys(rows.loc[there, "series"].dropna().astype(str)))


def drawn_columns(section: Section) -> list[str]:
    """Return the columns that the pictures of a section read.

    Args:
        section: The section.

    Returns:
        Their names, each once.

    Example:
        >>> drawn_columns(Section("Rows", "", [], [], pd.DataFrame({"a": [1]}), []))
        []
    """
    names: list[str] = [*section.selects]
    for chart in section.charts:
        names += [*chart.lines, chart.along, chart.x.column, *chart.tooltip]
        names += [axis.column for axis in chart.ys]
        names += [axis.error for axis in (chart.x, *chart.ys) if axis.error]
        names += [end for axis in chart.ys for end in axis.ends or ()]
        names += [name for name in (chart.by, chart.marks) if name]
    names += ["series", "estimator", "method", "tau"] if section.charts else []
    return [n for n in dict.fromkeys(names) if n in section.rows]

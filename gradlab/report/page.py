"""The page: sections, pictures and tables as one HTML file that needs no network.

The pictures are Vega-Lite, whose scripts vl-convert packs: 0.9 MB in every report. Measured on one
plane of 300 points, a report is 0.92 MB with it, 1.28 MB with Bokeh and 4.83 MB with Plotly. Of the
three it alone draws SVG, which prints sharply and is read by screen readers, works under a policy
that forbids eval, and makes the static picture of readers without scripts from the same
specification. vl-convert weighs 33 MB (it holds a JavaScript engine), so that it is the extra
`report` and not a dependency.

The page's policy forbids every request, and every script but the two of gradlab, by their hashes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from gradlab.citations import bibtex_of_names
from gradlab.report.charts import LIBRARY, Chart, views
from gradlab.report.looks import Look, by_family, series_looks
from gradlab.report.markup import Markup, element, joined, json_text
from gradlab.report.sections import Section, SmallTable, title_of
from gradlab.report.sources import ReportError
from gradlab.report.tables import Data, data_of, first_rows, static_table

__all__ = ["library", "page"]


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


def page(
    title: str,
    sections: Sequence[tuple[str, Section, str]],
    origin: Sequence[tuple[str, str]],
) -> str:
    """Return the HTML of a report.

    Args:
        title: Its title.
        sections: For each the name of its source, the section, and a sentence on rows that were
            left out or summed up, or "".
        origin: Where it comes from, in pairs of words.

    Returns:
        The page.

    Raises:
        ReportError: vl-convert is not installed.

    Example:
        >>> section = Section("Rows", "There are none.", [], [], pd.DataFrame(), [])
        >>> page("Mine", [("mine.csv", section, "")], [])[:15]
        '<!DOCTYPE html>'
    """
    scripts = [_bundle(), _asset("page.js")]
    body = [_header(title, sections, origin)]
    for number, (name, section, reduced) in enumerate(sections, 1):
        body.append(_section(f"s{number}", name, section, reduced))
    body += [_origin(origin), *_citations(sections)]
    return "".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="generator", content="gradlab report"),
                element("title", title),
                element("style", Markup(_asset("page.css"))),
            ),
            element(
                "body",
                element("a", "To the answer", href="#s1", class_="skip"),
                element("main", joined(body)),
                *(element("script", Markup(script)) for script in scripts),
            ),
            "</html>\n",
        )
    )


@cache
def _bundle() -> str:
    """Return the scripts of Vega, Vega-Lite and Vega-Embed, with one function for the page."""
    bundle: str = library().javascript_bundle("window.gradlabDraw = vegaEmbed;", LIBRARY)
    if "</script" in bundle.lower():
        raise ReportError("the scripts of vl-convert cannot stand inside a page: another version?")
    return bundle


@cache
def _asset(name: str) -> str:
    return resources.files("gradlab.report").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Return the policy: no requests, no eval, no script but these."""
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(
    title: str, sections: Sequence[tuple[str, Section, str]], origin: Sequence[tuple[str, str]]
) -> Markup:
    date = dict(origin).get("date of this report", "")
    made = element("p", f"gradlab report. {date}", class_="made")
    if len(sections) == 1:
        return element("header", element("h1", title), made)
    answers = [
        element(
            "li",
            element("a", f"{section.title}: {name}", href=f"#s{number}"),
            element("br"),
            section.lead,
        )
        for number, (name, section, _) in enumerate(sections, 1)
    ]
    return element(
        "header",
        element("h1", title),
        made,
        element("nav", element("ol", *answers), aria_label="Sections"),
    )


def _section(name: str, source: str, section: Section, reduced: str) -> Markup:
    charts = [c for c in section.charts if len(section.rows)]
    drawn = _drawn_columns(section, charts)
    rows = section.rows.assign(**{c: np.nan for c in drawn if c not in section.rows})
    data = data_of(rows, section.shown, drawn)
    looks = series_looks(rows["series"].dropna().astype(str)) if "series" in rows else {}
    parts: list[object] = [
        element("h2", section.title, element("span", f" {source}", class_="source")),
        element("p", section.lead, class_="lead"),
        *(element("p", text) for text in section.answer),
        *(_small(table) for table in section.small),
        element("h3", "What was asked"),
        element("ul", *(element("li", text) for text in section.asked)) if section.asked else None,
    ]
    script: dict[str, Any] = {"columns": data.columns, "charts": [], "selects": section.selects}
    if charts:
        script["looks"] = {s: [look.color, look.shape] for s, look in looks.items()}
        parts += _pictures(name, section, charts, rows, looks, script)
    parts += _rows_part(name, source, section, data, reduced)
    if section.evidence:
        parts.append(element("h3", "Evidence"))
        parts += [
            element("div", element("h4", head), element("p", text), class_="evidence")
            for head, text in section.evidence
        ]
    if section.told:
        parts.append(_details("In the words of the command", element("pre", section.told)))
    parts.append(element("script", json_text(script), type="application/json", id=f"{name}-data"))
    kept = [part for part in parts if part is not None]
    return element("section", joined(kept), id=name, class_="report")


def _drawn_columns(section: Section, charts: Sequence[Chart]) -> list[str]:
    """Return the columns that pictures read."""
    names: list[str] = [*section.selects]
    for chart in charts:
        names += [*chart.lines, chart.along, chart.x.column, *chart.tooltip]
        names += [axis.column for axis in chart.ys]
        names += [axis.error for axis in (chart.x, *chart.ys) if axis.error]
    names += ["series", "estimator", "method", "tau"] if charts else []
    return [n for n in dict.fromkeys(names) if n in section.rows]


def _small(table: SmallTable) -> Markup:
    heads = [element("th", text, scope="col") for text in table.header]
    rows = [
        element("tr", element("th", row[0], scope="row"), *(element("td", c) for c in row[1:]))
        for row in table.rows
    ]
    inside = element(
        "table",
        element("caption", table.caption),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
    )
    return _scrolled(inside, table.caption)


def _scrolled(inside: Markup, label: str) -> Markup:
    """Return a box that scrolls sideways, by keys too."""
    return element("div", inside, class_="scroll", role="region", aria_label=label, tabindex="0")


def _pictures(
    name: str,
    section: Section,
    charts: Sequence[Chart],
    rows: pd.DataFrame,
    looks: Mapping[str, Look],
    script: dict[str, Any],
) -> list[object]:
    """Return the pictures with their controls, and put what they need into `script`."""
    parts: list[object] = [element("h3", "Pictures")]
    controls = [
        element(
            "label",
            f"{title_of(column)} ",
            element("select", data_column=column),
            class_="select",
        )
        for column in section.selects
    ]
    parts.append(element("div", *controls, class_="controls scripted") if controls else None)
    parts.append(_legend(rows, looks))
    titles = {column: title_of(column) for column in rows}
    for chart in charts:
        found = views(chart, rows, titles)
        script["charts"].append({"name": chart.name, "log": chart.starts_log, "views": found})
        shown = next((v for v in found if v["log"] == chart.starts_log), found[0])
        parts.append(_figure(f"{name}-{chart.name}", chart, shown, _points(rows, section, looks)))
    return parts


def _figure(name: str, chart: Chart, shown: dict[str, Any], points: list[dict[str, Any]]) -> Markup:
    still = dict(shown["spec"], width=640, autosize="pad", data={"values": points})
    still = {key: value for key, value in still.items() if key != "$schema"}
    picture = library().vegalite_to_svg(still, LIBRARY)
    controls = []
    if len(chart.ys) > 1:
        controls.append(
            element("label", "Vertical axis ", element("select", class_="vertical"), class_="select")
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
        element("p", shown["note"], class_="band", aria_live="polite"),
        element("figcaption", f"{chart.caption} The table below has the numbers."),
    )


def _points(
    rows: pd.DataFrame, section: Section, looks: Mapping[str, Look]
) -> list[dict[str, Any]]:
    """Return the points of the static picture: those of the first value of each select."""
    if "series" not in rows:
        return []
    for column in section.selects:
        values = rows[column].dropna()
        if len(values) and column != "method":
            rows = rows[rows[column] == values.iloc[0]]
    drawn = _drawn_columns(section, section.charts)
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


def _legend(rows: pd.DataFrame, looks: Mapping[str, Look]) -> Markup:
    """Return the legend: a button for each family and series, pressed where it is shown."""
    groups = []
    for kind, members in by_family(looks).items():
        keys = [
            element(
                "button",
                _swatch(looks[series]),
                series,
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


def _rows_part(
    name: str, source: str, section: Section, data: Data, reduced: str
) -> list[object]:
    parts: list[object] = [element("h3", "Rows")]
    parts += [element("p", text) for text in ([reduced] if reduced else [])]
    parts += [element("p", text, class_="note") for text in data.sentences()]
    if data.constant:
        pairs = [
            joined([element("dt", title_of(key)), element("dd", value)])
            for key, value in data.constant.items()
        ]
        parts.append(_details("The same in every row", element("dl", *pairs)))
    if section.notes:
        notes = element("ul", *(element("li", text) for text in section.notes))
        parts.append(_details(f"Notes on these rows ({len(section.notes)})", notes))
    if not data.length or not data.columns:
        return [*parts, element("p", "The source has no rows to show.", class_="note")]
    field = f"{name}-filter"
    parts.append(
        element(
            "div",
            element("label", "Filter ", for_=field),
            element(
                "input",
                id=field,
                type="search",
                class_="filter",
                placeholder="ZGR  tau<1  method=exact",
                autocomplete="off",
                spellcheck="false",
            ),
            element("button", "All columns", type="button", class_="columns", aria_pressed="false"),
            class_="controls scripted",
        )
    )
    caption = f"Rows of {source}. Numbers are rounded to four digits."
    parts.append(_scrolled(static_table(data, f"{name}-rows", caption), f"Rows of {source}"))
    parts.append(
        element(
            "div",
            element("span", first_rows(data), class_="status", role="status"),
            element("button", "Previous", type="button", class_="previous scripted"),
            element("button", "Next", type="button", class_="next scripted"),
            class_="pages",
        )
    )
    return parts


def _details(summary: str, inside: Markup) -> Markup:
    return element("details", element("summary", summary), inside)


def _origin(origin: Sequence[tuple[str, str]]) -> Markup:
    pairs = [joined([element("dt", what), element("dd", which)]) for what, which in origin]
    inside = element("dl", *pairs, class_="origin")
    return element("section", element("h2", "Where this comes from"), inside, id="origin")


def _citations(sections: Sequence[tuple[str, Section, str]]) -> list[Markup]:
    names: dict[str, None] = {}
    for _, section, _ in sections:
        if "estimator" in section.rows:
            names |= dict.fromkeys(section.rows["estimator"].dropna().astype(str))
    text = bibtex_of_names(names)
    if not text:
        return []
    inside = _details("BibTeX of the estimators in these rows", element("pre", text))
    return [element("section", element("h2", "Papers to cite"), inside, id="papers")]

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
from collections.abc import Sequence
from functools import cache
from importlib import resources

from gradlab.citations import bibtex_of_names
from gradlab.report.layers import LIBRARY
from gradlab.report.markup import Markup, element, joined, json_text
from gradlab.report.pictures import drawn_columns, library, pictures
from gradlab.report.sections import Section, SmallTable, title_of
from gradlab.report.sources import ReportError
from gradlab.report.tables import Data, data_of, first_rows, static_table

__all__ = ["page"]


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
        >>> import pandas as pd
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
                element("noscript", element("p", _NO_SCRIPT, class_="note")),
                element("main", joined(body)),
                *(element("script", Markup(script)) for script in scripts),
            ),
            "</html>\n",
        )
    )


_NO_SCRIPT = (
    "Scripts are off: pictures stand still, and each table shows its first rows. Nothing else is "
    "missing."
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
    data = data_of(section.rows, section.shown, [*drawn_columns(section), *section.kept])
    drawn, script = pictures(name, section)
    parts: list[object] = [
        element("h2", section.title, element("span", f" {source}", class_="source")),
        element("p", section.lead, class_="lead"),
        *(element("p", text) for text in section.answer),
        *(_small(table) for table in section.small),
    ]
    if section.asked:
        parts.append(element("h3", "What was asked"))
        parts.append(element("ul", *(element("li", text) for text in section.asked)))
    parts += drawn
    parts += _rows_part(name, source, section, data, reduced)
    if section.evidence:
        parts.append(element("h3", "Evidence"))
        parts += [
            element("div", element("h4", head), element("p", text), class_="evidence")
            for head, text in section.evidence
        ]
    if section.told:
        parts.append(_details("In the words of the command", element("pre", section.told)))
    data_text = json_text(script | {"columns": data.columns})
    parts.append(element("script", data_text, type="application/json", id=f"{name}-data"))
    kept = [part for part in parts if part is not None]
    return element("section", joined(kept), id=name, class_="report")


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


def _rows_part(name: str, source: str, section: Section, data: Data, reduced: str) -> list[object]:
    parts: list[object] = [element("h3", "Rows")]
    parts += [element("p", text) for text in ([reduced] if reduced else [])]
    parts += [element("p", text, class_="note") for text in data.sentences()]
    if data.columns:
        pairs = [
            joined([element("dt", c["title"]), element("dd", c["meaning"])])
            for c in data.columns
            if c["meaning"]
        ]
        parts.append(_details("What the columns mean", element("dl", *pairs)) if pairs else None)
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
    pairs = [joined([element("dt", what), element("dd", _folded(which))]) for what, which in origin]
    inside = element("dl", *pairs, class_="origin")
    return element("section", element("h2", "Where this comes from"), inside, id="origin")


def _folded(text: str) -> Markup | str:
    """Return a long text behind a line that opens it."""
    return text if len(text) <= 240 else _details(f"{text[:60]}…", element("p", text))


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

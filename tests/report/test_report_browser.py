"""Reports in a real browser: sort, filter, hover, legend, keys, paper; no request and no fault."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import browser
from browser import Page
from gradlab import report
from report_rows import (
    HOSTILE,
    compared,
    ended,
    hostile,
    judged,
    obeyed,
    swept,
    timed,
    trained,
)

pytestmark = pytest.mark.skipif(browser.missing() != "", reason=browser.missing())
pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")


@pytest.fixture(scope="module")
def started() -> Iterator[Page]:
    with browser.opened() as page:
        yield page


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    verdicts = folder / "verify.csv"
    verdicts.write_text(
        "estimator,problem,outcome,holds,method,bias,unit\nZGR,mlp,BIASED,True,exact,0.2,|g|\n"
    )
    things = {
        "compare": [compared()],
        "sweep": [swept()],
        "hostile": [hostile()],
        "mixed": [compared(), trained(), verdicts],
        "judged": [judged()],
        "timed": [timed()],
        "theory": [obeyed(), ended()],
    }
    return {n: report.write(of, folder / f"{n}.html", title=n) for n, of in things.items()}


@pytest.fixture
def page(started, reports) -> Page:
    """Return the report of a comparison, as if just opened; what it logs is a fault."""
    return started.open(reports["compare"]).drawn()


def column(page: Page, title: str) -> list[str]:
    titles = page.texts("table.rows th")
    place = titles.index(title) + 1
    return page.texts(f"table.rows tbody td:nth-child({place})")


def header(page: Page, title: str):
    return page.find_all("table.rows th button")[page.texts("table.rows th").index(title)]


def sign(page: Page, title: str) -> str:
    return header(page, title).find_element("xpath", "..").get_attribute("aria-sort")


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize(
    "name", ["compare", "sweep", "hostile", "mixed", "judged", "timed", "theory"]
)
@pytest.mark.few(1)
def test_pages_load_without_fault_request_or_overflow(started, reports, name, width):
    page = started.open(reports[name], width).drawn()
    assert page.complaints() == []
    assert page.requests() == []
    assert page.overflow() == 0
    assert page.find_all(".picture svg .mark-symbol path")


def test_the_table_sorts_numbers_by_size_with_empty_cells_last(page):
    header(page, "tau").click()
    down = column(page, "tau")
    numbers = [float(text) for text in down if text]
    assert sign(page, "tau") == "descending"
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == 1.0
    header(page, "tau").click()
    up = column(page, "tau")
    assert sign(page, "tau") == "ascending"
    assert float(up[0]) == 0.1
    assert "" not in up[: len(numbers)]
    header(page, "bias² / |g|²").click()
    texts = [text for text in column(page, "bias² / |g|²") if text]
    numbers = [float(text) for text in texts]
    assert numbers == sorted(numbers, reverse=True)
    assert texts != sorted(texts, reverse=True)  # as words they stand otherwise
    header(page, "estimator").click()
    assert (sign(page, "estimator"), sign(page, "bias² / |g|²")) == ("ascending", "none")
    names = column(page, "estimator")
    assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize(
    ("words", "keep"),
    [
        ("zgr", lambda row: row["estimator"] == "ZGR"),
        ("method=exact tau<0.5", lambda row: row["method"] == "exact" and row["tau"] < 0.5),
        ('"GR(tau=0.1, k=10)"', lambda row: row["estimator"] == "GR(tau=0.1, k=10)"),
        ("nothing of this name", lambda row: False),
    ],
)
def test_the_filter_keeps_rows_in_which_every_word_holds(page, words, keep):
    page.find(".filter").send_keys(words)
    kept = [row for row in compared().to_dict("records") if keep(row)]
    total = len(compared())
    told = f"1 to {len(kept)} of {len(kept)} found of {total}" if kept else f"No row of {total}"
    assert told in page.find(".status").text
    names = page.texts("table.rows tbody tr td:first-child")
    assert names == [row["estimator"] for row in kept]


def test_pages_turn_and_all_columns_open(started, reports):
    page = started.open(reports["sweep"]).drawn()
    first = page.texts("table.rows tbody tr")
    assert len(first) == 25
    assert not page.find("button.previous").is_enabled()
    page.find("button.next").click()
    assert page.find(".status").text == f"Rows 26 to {len(swept())} of {len(swept())}"
    assert set(page.texts("table.rows tbody tr")).isdisjoint(first)
    few = len(page.find_all("table.rows th"))
    page.find("button.columns").click()
    assert len(page.find_all("table.rows th")) > few
    assert page.overflow() == 0


def test_hovering_shows_the_row(page):
    points = page.find_all("#s1-plane .mark-symbol path")
    labels = [point.get_attribute("aria-label") for point in points]
    at = next(i for i, label in enumerate(labels) if "GR(tau=0.1, k=10); tau 0.1" in label)
    page.hover(points[at])
    shown = page.until(lambda: page.find("#vg-tooltip-element.visible").text)
    row = dict(line.rsplit(" ", 1) for line in shown.splitlines() if "GR(" not in line)
    assert "estimator GR(tau=0.1, k=10)" in shown
    assert row["tau"] == "0.1"
    rows = compared().query("estimator == 'GR(tau=0.1, k=10)'")
    biases = (rows["bias2"] / rows["truth2"]).tolist()
    assert min(abs(float(row["bias² / |g|²"]) / b - 1) for b in biases) < 1e-3


def redrawn(page: Page, act) -> None:
    """Do something and wait until every picture of the page is drawn again."""
    states = "return [...document.querySelectorAll('figure')].map((f) => f.dataset.drawn)"
    before = page.script(states)
    act()
    page.until(lambda: all(a != b for a, b in zip(page.script(states), before, strict=True)))


def shown_series(page: Page) -> set[str]:
    labels = [p.get_attribute("aria-label") for p in page.find_all("#s1-plane .mark-symbol path")]
    return {
        label.partition(";")[0].removeprefix("estimator ").partition("(")[0] for label in labels
    }


def test_the_legend_selects_series_and_families(page):
    assert shown_series(page) == {"ST", "ZGR", "GR", "RF", "ARSM"}
    redrawn(page, page.find("button.key[data-series=ZGR]").click)
    assert shown_series(page) == {"ST", "GR", "RF", "ARSM"}
    family = page.find("[aria-label='straight-through'] .family")
    redrawn(page, family.click)
    assert shown_series(page) == {"GR", "RF", "ARSM"}
    assert page.find("button.key[data-series=ST]").get_attribute("aria-pressed") == "false"
    redrawn(page, family.click)
    assert shown_series(page) == {"ST", "ZGR", "GR", "RF", "ARSM"}


def test_the_switch_changes_the_scale_and_its_note(page):
    label = "return document.querySelector('#s1-plane [aria-label*=axis]').ariaLabel"
    assert "log scale" in page.script(label)
    note = page.find("figure .band")
    assert "which has no logarithm" in note.text
    button = page.find("figure button.log")
    drawn = "return document.querySelector('figure').dataset.drawn"
    before = page.script(drawn)
    button.click()
    page.until(lambda: page.script(drawn) != before)
    assert "linear scale" in page.script(label)
    assert (note.text, button.get_attribute("aria-pressed")) == ("", "false")


def places(page: Page, selector: str) -> list[tuple[float, float]]:
    """Return left and right of elements, in pixels of the page."""
    shape = "[...document.querySelectorAll(arguments[0])].map((e) => e.getBoundingClientRect())"
    return [(r["left"], r["right"]) for r in page.script(f"return {shape}", selector)]


def lines(page: Page, picture: str) -> list[str]:
    """Return the names of the lines of a dot plot, from the top."""
    labels = "[...document.querySelectorAll(arguments[0] + ' .role-axis-label')]"
    return page.script(f"return [...{labels}.at(-1).children].map((e) => e.textContent)", picture)


def test_the_bound_of_a_verdict_is_drawn_on_its_side_of_the_target(started, reports):
    page = started.open(reports["judged"]).drawn()
    labels = lines(page, "#s1-evidence")
    assert {"ST", "ZGR", "RF(m=4)"} <= set(labels)
    assert "ARM" not in labels
    # Strokes of the target stand at one place, one for each verdict by draws.
    strokes = places(page, "#s1-evidence .mark-rect.role-mark path")
    target = sum(strokes[0]) / 2
    assert len({round(left) for left, _ in strokes}) == 1
    assert len(strokes) == 2
    # The thin lines end at the bounds: ST is biased, RF(4) is shown to be below the target.
    below, above = sorted(right for _, right in places(page, "#s1-evidence .layer_1_marks line"))
    assert below < target < above


def test_a_verdict_is_hovered_and_read_by_keys_and_paper(started, reports):
    page = started.open(reports["judged"]).drawn()
    points = page.find_all("#s1-evidence .mark-symbol path")
    labels = [point.get_attribute("aria-label") for point in points]
    assert len(labels) == 3
    at = next(i for i, label in enumerate(labels) if "estimator ST" in label)
    assert "outcome BIASED" in labels[at]
    page.hover(points[at])
    shown = page.until(lambda: page.find("#vg-tooltip-element.visible").text)
    assert {"bias 0.7", "limit 1.1", "delta 0.05"} <= set(shown.splitlines())
    assert page.printed().startswith(b"%PDF")


def test_times_follow_the_menu_of_sizes_but_curves_show_all(started, reports):
    page = started.open(reports["timed"]).drawn()
    size, curves = page.find("select[data-column=size]"), "#s1-by-classes .mark-symbol path"
    assert len(page.find_all("#s1-times .mark-symbol path")) == 3
    assert lines(page, "#s1-times")[0] == "ST"
    assert len(page.find_all(curves)) == 5
    redrawn(page, lambda: size.send_keys("32x16"))
    assert len(page.find_all("#s1-times .mark-symbol path")) == 2
    assert len(page.find_all(curves)) == 5
    assert lines(page, "#s1-times")[0] == "ST"  # the fastest stands on top
    label = "return document.querySelector('#s1-times .mark-symbol path').ariaLabel"
    assert "size 32x16" in page.script(label)


def test_selects_choose_a_problem(started, reports):
    page = started.open(reports["sweep"]).drawn()
    problem = page.find("select[data-column=problem]")
    count = len(page.find_all("#s1-plane .mark-symbol path"))
    labels = [p.get_attribute("aria-label") for p in page.find_all("#s1-plane .mark-symbol path")]
    assert all("problem quadratic" in label for label in labels)
    redrawn(page, lambda: problem.send_keys("a"))  # all
    assert len(page.find_all("#s1-plane .mark-symbol path")) == 2 * count


def test_everything_works_by_keys(page):
    from selenium.webdriver.common.keys import Keys

    page.script("document.querySelector('table.rows th button').focus()")
    page.keys(Keys.ENTER)
    assert page.find("table.rows th").get_attribute("aria-sort") == "ascending"
    # The focus stays on the header, so that a second key turns the order.
    page.keys(Keys.SPACE)
    assert page.find("table.rows th").get_attribute("aria-sort") == "descending"
    reached, legend = set(), "document.querySelector('button.key')"
    page.script(f"{legend}.focus()")
    for _ in range(14):
        page.keys(Keys.TAB)
        reached.add(page.script("return document.activeElement.className"))
    assert {"key", "family", "log", "vertical", "filter", "columns"} <= reached
    page.script(f"{legend}.focus()")
    redrawn(page, lambda: page.keys(Keys.SPACE))
    assert page.script(f"return {legend}.getAttribute('aria-pressed')") == "false"


def test_hostile_names_are_shown_and_do_nothing(started, reports):
    page = started.open(reports["hostile"]).drawn()
    assert page.find_all("img") == []
    assert page.driver.title == "hostile"
    # A browser shows a line separator as a space.
    names = page.script(
        "return [...document.querySelectorAll('.rows td')].map((c) => c.textContent)"
    )
    assert f"{HOSTILE}0" in names
    points = page.find_all("#s1-plane .mark-symbol path")
    page.hover(points[0])
    page.until(lambda: page.find_all("#vg-tooltip-element.visible"))
    assert page.find_all("img") == []
    assert page.driver.title == "hostile"


def test_it_prints_as_pdf_with_all_rows_and_opens_what_is_closed(started, reports):
    page = started.open(reports["sweep"]).drawn()
    total = len(swept())
    assert total > 25
    seen = "window.seen = document.querySelectorAll('table.rows tbody tr').length"
    page.script(f"window.addEventListener('beforeprint', () => {{ {seen}; }})")
    assert page.printed().startswith(b"%PDF")
    assert page.script("return window.seen") == total
    assert len(page.find_all("table.rows tbody tr")) == 25
    assert page.find_all("details[open]") == []


@pytest.mark.thorough  # pages load with scripts above
def test_without_scripts_there_are_pictures_and_rows(started, reports):
    off = {"value": True}
    started.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", off)
    try:
        started.driver.get(reports["sweep"].as_uri())
        for name in ("plane", "curves"):
            assert started.find_all(f"#s1-{name} svg .mark-symbol path")
        assert len(started.find_all("table.rows tbody tr")) == 25
        assert "Scripts are off" in started.find("noscript").text
        assert not started.find(".filter").is_displayed()
    finally:
        off["value"] = False
        started.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", off)


@pytest.mark.thorough  # shows that the other tests can fail
def test_a_fault_and_a_request_would_be_seen(started, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<body style='width:3000px'><script>nope()</script><img src='missing.png'>")
    page = started.open(bad, 360)
    assert any("nope is not defined" in text for text in page.complaints())
    assert any(url.endswith("missing.png") for url in page.requests())
    assert page.overflow() > 1000

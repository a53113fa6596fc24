"""The built documentation in a real browser: pages load, links resolve, the search finds."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import browser
from browser import Page

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
BUILT = (SITE / "index.html").exists()
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")) if BUILT else []

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="the site is not built: make docs"),
    pytest.mark.skipif(browser.missing() != "", reason=browser.missing()),
]


@pytest.fixture(scope="module")
def started() -> Iterator[Page]:
    with browser.opened() as page:
        yield page


def looked_up(page: Page) -> list[str]:
    """Return the files that a page links to inside the site and that are not there."""
    hrefs = page.script("return [...document.querySelectorAll('a[href]')].map((a) => a.href)")
    files = {Path(unquote(urlsplit(h).path)) for h in hrefs if h.startswith("file:")}
    return sorted(str(file) for file in files if not file.exists())


@pytest.mark.slow  # the site has hundreds of pages
def test_every_page_loads_without_fault_or_request_and_its_links_resolve(started):
    wrong = []
    for name in PAGES:
        page = started.open(SITE / name)
        severe = [text for text in page.complaints() if "favicon" not in text]
        foreign = [url for url in page.requests() if url.startswith("http")]
        wrong += [(name, fault) for fault in [*severe, *foreign, *looked_up(page)]]
    assert wrong == []


@pytest.mark.parametrize("name", ["index.html", "gallery.html"])  # without and with a list on it
@pytest.mark.parametrize("width", [360, 1330, 1400])
def test_a_page_is_not_wider_than_its_window(started, name, width):
    assert started.open(SITE / name, width).overflow() == 0


def test_the_search_finds_temperature(started):
    started.driver.get((SITE / "search.html").as_uri() + "?q=temperature")
    started.until(lambda: "temperature" in " ".join(started.texts("#search-results li")).lower())
    links = "document.querySelectorAll('#search-results li a')"
    hrefs = started.script(f"return [...{links}].map((a) => a.href)")
    assert hrefs
    assert all(Path(unquote(urlsplit(h).path)).exists() for h in hrefs)


def test_a_link_that_leads_nowhere_would_be_seen(started, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<a href='there-is-none.html'>a</a><a href='page.html#b'>b</a>")
    assert [Path(p).name for p in looked_up(started.open(page))] == ["there-is-none.html"]

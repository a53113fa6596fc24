"""Every sentence of README and docs with a number is tested against rows, or defines something."""

from pathlib import Path

import pytest

import claimed
from claimed import asserted, plain, unclaimed
from findings import DEFINED, FINDINGS
from pages import WRITTEN

PATTERNS = asserted(Path(__file__).parent)


@pytest.mark.parametrize(("page", "said", "holds"), FINDINGS, ids=[f[1][:50] for f in FINDINGS])
def test_what_a_page_says_holds_of_the_rows(page, said, holds) -> None:
    assert said in plain(page)
    assert holds()


@pytest.mark.parametrize("page", [page for page in WRITTEN if page != "docs/changelog.md"])
def test_every_number_of_a_page_is_tested_or_defined(page: str) -> None:
    assert unclaimed(page, PATTERNS) == []


@pytest.mark.parametrize("page", DEFINED)
def test_what_is_defined_stands_on_its_page(page: str) -> None:
    prose = plain(page)
    assert [said for said in DEFINED[page] if said not in prose] == []


def test_a_new_number_is_seen(monkeypatch) -> None:
    page = "docs/gallery.md"
    more = plain(page) + " GR takes 37 % of the time of ST. ZGR is the fastest of all."
    monkeypatch.setattr(claimed, "plain", lambda _: more)
    assert unclaimed(page, PATTERNS) == [
        "GR takes 37 % of the time of ST.",
        "ZGR is the fastest of all.",
    ]

"""The pages of docs/: code that runs, links that lead somewhere, numbers that are stored."""

import re
from pathlib import Path

import pandas as pd
import pytest

from hard import CASES, most, summary

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RATES = DOCS / "verdict-rates.csv"

EXAMPLES = [
    (page.name, code)
    for page in PAGES
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=lambda part: part[:20])
def test_examples_run(page, code, capsys):
    exec(code, {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.fixture(scope="module")
def rates() -> pd.DataFrame:
    return pd.read_csv(RATES)


def test_the_rates_are_of_all_cases_and_in_their_bands(rates):
    assert set(rates["case"]) == {hard.name for hard in CASES}
    for row in rates.itertuples():
        assert row.errors <= most(row.alpha, row.runs), row.case


def test_the_page_shows_the_rates(rates):
    assert summary(rates) in (DOCS / "verdicts.md").read_text()

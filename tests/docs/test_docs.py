"""What docs/verdicts.md says of wrong verdicts is in the rates that are stored beside it."""

from pathlib import Path

import pandas as pd
import pytest

from hard import CASES, most, summary

DOCS = Path(__file__).parents[2] / "docs"
RATES = DOCS / "verdict-rates.csv"


@pytest.fixture(scope="module")
def rates() -> pd.DataFrame:
    return pd.read_csv(RATES)


def test_the_rates_are_of_all_cases_and_in_their_bands(rates):
    assert set(rates["case"]) == {hard.name for hard in CASES}
    for row in rates.itertuples():
        assert row.errors <= most(row.alpha, row.runs), row.case


def test_the_page_shows_the_rates(rates):
    assert summary(rates) in (DOCS / "verdicts.md").read_text()

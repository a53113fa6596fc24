"""The committed speeds are those of the benchmarks that there are."""

from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import PARTS
from benchmarks.ratios import Ratio

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
ROWS = pd.read_csv(RESULTS, keep_default_na=False)


def test_every_part_was_measured_in_one_run():
    assert ROWS["part"].drop_duplicates().tolist() == list(PARTS)
    assert len(ROWS[["machine", "torch", "version", "date"]].drop_duplicates()) == 1
    assert ROWS["machine"].str.len().gt(3).all()


@pytest.mark.parametrize("name", PARTS)
def test_every_part_says_what_it_measures(name):
    first = (import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")[0]
    assert first[:1].isupper()


def test_what_is_met_follows_from_the_number_and_the_target():
    for row in ROWS.itertuples():
        sign, _, bound = row.target.partition(" ")
        if sign:
            line = Ratio(row.what, row.value, float(bound), row.unit, at_least=sign == ">=")
            assert (str(line.met), line.wanted) == (str(row.met), row.target), row.what
        else:
            assert row.met == "", row.what

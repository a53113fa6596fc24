"""The schema of a row is what rows hold: names, order, types, and what is published of it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import gradlab
from gradlab import GradientProbe, compare, recommend
from gradlab.comparison.rows import (
    COLUMNS,
    ROWS,
    SCHEMA_VERSION,
    as_table,
    row_schema,
    schema_table,
)
from gradlab.problems import problem, regime
from gradlab.sweep.grid import Grid

ROOT = Path(__file__).parents[2]
F, LOGITS = problem("quadratic", 2, 3), regime("moderate", 2, 3)
BATCH = torch.stack([LOGITS, LOGITS.flip(0)])


def own(f, logits, n, generator=None):
    """Code of a user: RF(2) on one sample each, two evaluations without a gradient."""
    return gradlab.LeaveOneOut(2).draw(f, logits, n, generator)


def compared() -> pd.DataFrame:
    return compare(F, LOGITS, ["ST", "GS", "ARM", "RF(m=4)", own], draws=64)


def compared_as_batch() -> pd.DataFrame:
    return compare(lambda x: F(x), BATCH, ["ST", "GS"], draws=64)


def compared_with_a_reference() -> pd.DataFrame:
    return compare(F, LOGITS, ["ST", "GS"], draws=64, reference="RF(m=4)", reference_draws=640)


def probed() -> pd.DataFrame:
    probe = GradientProbe(["ST", "GS", "ARM"], draws=64)
    probe(0, lambda x: F(x), BATCH)
    return probe.rows


def swept() -> pd.DataFrame:
    import tempfile

    from gradlab import run_sweep, sweep_rows

    with tempfile.TemporaryDirectory() as folder:
        grid = Grid(["quadratic"], ["2x3"], estimators=["ST", "GS", "ARM"], draws=64)
        run_sweep(grid, Path(folder) / "store.db", workers=1)
        return sweep_rows(Path(folder) / "store.db")


def ranked() -> pd.DataFrame:
    return recommend(F, LOGITS, evaluations=12, estimators=["ST", "GS", "RF"], draws=64).curves


MADE = {
    "compare": compared,
    "compare batch": compared_as_batch,
    "compare reference": compared_with_a_reference,
    "probe": probed,
    "sweep": swept,
    "recommend": ranked,
}


@pytest.mark.usefixtures("kept_processes")
@pytest.mark.parametrize("name", MADE)
@pytest.mark.few(3)
def test_rows_are_what_the_schema_says(name):
    rows = MADE[name]()
    columns = ROWS[name.split()[0]]
    found = [column for column in rows if column != "asked"]
    assert found == columns
    properties = row_schema(name.split()[0])["properties"]
    for row in rows.to_dict("records"):
        for column in columns:
            value = row[column]
            empty = value is None or (isinstance(value, float) and math.isnan(value))
            assert empty or fits(value, properties[column]["type"]), (column, value)


def fits(value: object, types: list[str]) -> bool:
    """Return whether a value is of a type of JSON Schema; pandas holds some integers as floats."""
    (kind,) = [name for name in types if name != "null"]
    if kind == "integer":
        return not isinstance(value, str) and value == int(value)
    if kind == "number":
        return isinstance(value, int | float)
    return isinstance(value, {"string": str, "boolean": bool}[kind])


def test_a_value_of_another_type_does_not_fit():
    assert not fits("3", ["integer", "null"])
    assert not fits("3", ["number", "null"])
    assert not fits(3.0, ["string", "null"])
    assert not fits(2.5, ["integer", "null"])


def test_types_do_not_depend_on_what_is_empty():
    whole = as_table([{"N": 2, "tau": 1, "note": "x"}, {"N": 3}], ["N", "tau", "note"])
    assert [str(kind) for kind in whole.dtypes[:2]] == ["int64", "float64"]
    empty = as_table([{"N": None, "tau": None, "note": None}], ["N", "tau", "note"])
    assert [str(kind) for kind in empty.dtypes] == ["float64", "float64", "object"]


def test_every_column_has_a_meaning_and_a_reader():
    shown = {name for names in ROWS.values() for name in names}
    assert shown == set(COLUMNS)
    for column in COLUMNS.values():
        assert column.meaning
        assert not column.meaning.endswith(".")
        assert column.type in {"text", "whole number", "number", "yes or no"}


def test_an_unknown_verb_is_refused():
    with pytest.raises(ValueError, match="verb must be one of compare, sweep"):
        row_schema("verify")


def test_the_documentation_shows_the_schema():
    page = (ROOT / "docs" / "rows.md").read_text(encoding="utf-8")
    assert schema_table() in page
    assert f"Version {SCHEMA_VERSION}" in page


@pytest.mark.parametrize("verb", ROWS)
def test_the_published_json_schema_is_this_one(verb):
    file = ROOT / "docs" / "schema" / f"{verb}.json"
    assert json.loads(file.read_text(encoding="utf-8")) == row_schema(verb)


@pytest.mark.parametrize(
    ("text", "cost"),
    [("ST", 3), ("RF(m=4)", 4), ("RODEO(m=2)", 6), ("ARSM", 4), ("LE", 5), ("MuProp", 6)],
)
@pytest.mark.few(2)
def test_a_row_says_what_one_draw_costs(text, cost):
    (row,) = compare(F, LOGITS, [text], draws=64).to_dict("records")
    assert row["cost"] == cost
    (cheap,) = compare(F, LOGITS, [text], draws=64, gradient_cost=1).to_dict("records")
    assert cheap["cost"] == row["calls"]
    probe = GradientProbe([text], draws=64, gradient_cost=1)
    probe(0, lambda x: F(x), BATCH)
    assert set(probe.rows["cost"]) == {row["calls"]}


def test_your_own_code_costs_what_it_is_seen_to_evaluate():
    rows = compared().set_index("series")
    assert rows.loc["own", "cost"] == 2


@pytest.mark.parametrize("cost", [0.5, math.inf, math.nan, -3.0])
def test_a_gradient_cost_that_is_not_a_number_of_evaluations_is_refused(cost):
    with pytest.raises(ValueError, match="gradient_cost must be a number of evaluations"):
        compare(F, LOGITS, ["ST"], gradient_cost=cost)
    with pytest.raises(ValueError, match="gradient_cost must be a number of evaluations"):
        GradientProbe(["ST"], gradient_cost=cost)
    with pytest.raises(ValueError, match="gradient_cost must be a number of evaluations"):
        Grid(["quadratic"], ["2x3"], gradient_cost=cost)

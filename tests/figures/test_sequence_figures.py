"""The titles of the figures on sequences are those of their rows, and the rows are as described."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.figures.sequences import difficulty, groups, kl, length, off_policy
from gradlab.figures.sequences.plot_kit import relative_bias

FOLDER = Path(__file__).parents[2] / "figures"


def committed(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv")


def test_the_title_of_length_is_that_of_its_rows() -> None:
    rows = committed("length").query("kind == 'aggregation'")
    assert length.finding(rows) == "SEQ is wrong at every G,\nTOK tends to right"
    seq, tok = rows["aggregation"] == "SEQ", rows["aggregation"] == "TOK"
    right = rows.assign(cosine=rows["cosine"].where(~seq, 1.0))
    assert "SEQ is wrong" not in length.finding(right)
    still = rows.assign(cosine=rows["cosine"].where(~tok, 0.99))
    assert "does not tend to right" in length.finding(still)


def test_the_title_of_difficulty_is_that_of_its_rows() -> None:
    rows = committed("difficulty")
    assert difficulty.finding(rows).startswith("2-GRPO has no difficulty bias;")
    two = rows["name"] == "GRPO, G = 2"
    tilted = rows.assign(factor=rows["factor"] * np.where(two, 1 + rows["p"], 1.0))
    assert difficulty.finding(tilted).startswith("2-GRPO has a difficulty bias;")


def test_the_title_of_off_policy_is_that_of_its_rows() -> None:
    rows = committed("off-policy")
    found = off_policy.finding(rows)
    assert (
        found
        == "Only the sequence ratio is exact;\nits variance is up to 52 times that of no ratio"
    )
    biased = rows.assign(bias2=rows["bias2"] + 0.01 * rows["truth2"])
    assert "Only the sequence" not in off_policy.finding(biased)


def test_the_title_of_kl_is_that_of_its_rows() -> None:
    rows = committed("kl")
    assert kl.finding(rows).startswith("5 forms are exact on policy, 4 off policy;")
    assert "“full” has the least variance" in kl.finding(rows)
    without = rows[rows["form"] != "full"]
    assert kl.finding(without).startswith("4 forms are exact on policy, 3 off policy;")


def test_the_title_of_groups_is_that_of_its_rows() -> None:
    rows = committed("groups")
    assert groups.finding(rows).endswith("large groups get further,\nexcept with MaxRL")
    falls = rows.assign(progress=-rows["group"] * 1.0)
    assert "RLOO" in groups.finding(falls)


@pytest.mark.parametrize("name", ["length", "off-policy", "kl", "groups"])
def test_all_rows_are_exact_and_none_is_missing(name: str) -> None:
    rows = committed(name)
    assert set(rows["method"]) == {"exact"}
    assert rows[["truth2", "bias2", "variance"]].notna().all(axis=None)


def test_the_divergence_grows_with_the_drift_and_is_0_without() -> None:
    table = committed("off-policy").pivot_table(
        index="drift", columns="horizon", values="divergence"
    )
    assert (table.loc[0.0].abs() < 1e-12).all()
    assert (np.diff(table, axis=0) > 0).all()
    assert (np.diff(table.loc[1.0]) > 0).all()


def test_without_drift_only_gspo_is_biased() -> None:
    rows = committed("off-policy").query("drift == 0")
    biased = rows[relative_bias(rows) > 1e-9]["ratio"].unique()
    assert list(biased) == ["GSPO"]


def test_tokens_of_groups_that_are_drawn_again_are_paid_for() -> None:
    rows = committed("groups").set_index(["problem", "group", "name", "budget"])
    rows = rows.sort_index()
    plain = rows.xs("GRPO, TOK", level="name")
    dynamic = rows.xs("GRPO, TOK, dynamic", level="name")
    assert (dynamic["tokens"] > plain["tokens"]).all()
    one = dynamic.loc["parity"]
    assert np.allclose(one["tokens"] * one["kept"], plain.loc["parity", "tokens"])
    assert np.allclose(rows["tokens"] * rows["estimates"], rows.index.get_level_values("budget"))

"""The adviser on the study's VAE: what trains worst there is not recommended."""

import pandas as pd
import pytest

from gradlab.comparison.from_rows import recommend_from_rows
from gradlab.estimators import parse
from gradlab.figures.prediction.study import ESTIMATORS
from gradlab.figures.prediction.tasks import COST, TASKS
from gradlab.nn.probe import GradientProbe

TASK = "VAE 4x4"


def worst(outcome: str) -> set[str]:
    """Return the three estimators with the greatest loss, by the committed rows of the study."""
    rows = pd.read_csv("figures/prediction.csv", low_memory=False)
    rows = rows[(rows["kind"] == "loss") & (rows["task"] == TASK)]
    each = rows.groupby(["estimator", "lr"])[outcome].mean().groupby("estimator").min()
    return set(each.nlargest(3).index)


# Slow: a training of the VAE, and exact moments at four of its steps.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_none_of_the_three_worst_is_in_the_first_half(seed):
    task = TASKS[TASK]
    texts = [text for text in ESTIMATORS if text != "DisARM"]
    probe = GradientProbe(texts, every=1, draws=512)
    for snapshot in task.snapshots([0.0, 0.15, 0.3, 1.0], task.rates[1], seed):
        probe(snapshot.step, snapshot.f, snapshot.logits)
    # Each temperature in a line of its own: the study trained them apart.
    rows = probe.rows.assign(series=probe.rows["estimator"])
    table = recommend_from_rows(rows, evaluations=int(COST)).table
    assert set(table["series"]) == {str(parse(text)) for text in texts}
    ranked = table[table["rank"].notna()]
    first_half = set(ranked["series"].iloc[: len(ranked) // 2])
    for outcome in ("loss_steps", "loss_cost"):
        names = worst(outcome)
        assert len(names) == 3
        assert not {str(parse(text)) for text in names} & first_half

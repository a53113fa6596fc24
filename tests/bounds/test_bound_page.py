"""The table of estimators of bounds on the site is what their classes declare."""

import re
from pathlib import Path

import pytest

from gradlab import bounds

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "bounds.md").read_text(encoding="utf-8")
LINE = re.compile(
    r"^\| ([^|]+) \| `(\w+)\((.*)\)` \| (yes|no) \| (.+) \| (yes|no) \| (\d) \|$", re.M
)
ROWS = {found[0]: found for found in LINE.findall(PAGE)}


def test_every_estimator_has_a_row():
    assert {str(cls()) for cls in bounds.ESTIMATORS.values()} <= set(ROWS)


@pytest.mark.parametrize("text", ROWS)
def test_a_row_is_what_the_class_declares(text):
    _, name, arguments, unbiased, evaluations, gradient, least = ROWS[text]
    estimator = bounds.parse(text)
    assert eval(f"bounds.{name}({arguments})") == estimator
    assert (unbiased == "yes") == estimator.unbiased
    assert (gradient == "yes") == estimator.needs_gradient
    assert int(least) == estimator.least
    counted = evaluations.replace("K (N", "K * (N").replace("N (C", "N * (C")
    for k, n, c in ((2, 3, 4), (5, 1, 2)):
        names = {"K": k, "N": n, "C": c, "s": getattr(estimator, "s", None)}
        assert eval(counted, names) == estimator.calls(k, n, c)

"""The kit of pictures: names beside a panel keep apart."""

import numpy as np
import pytest

from gradlab.plots.axes import spread


def test_spread_keeps_the_gap_and_the_middle() -> None:
    places = spread(np.array([0.0, 0.1, 0.1, 5.0]), 1.0, -10, 10)
    assert np.diff(places) == pytest.approx([1.0, 1.0, 5.0 - places[2]])
    assert places[:3].mean() == pytest.approx(0.2 / 3)
    assert spread(np.array([0.0, 0.0]), 1.0, 0.0, 10.0) == pytest.approx([0, 1])

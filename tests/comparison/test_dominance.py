"""Domination between curves: hand-made curves whose shares are known."""

import numpy as np
import pytest

from gradlab.comparison.dominance import MomentCurve, dominated, dominated_share


def line(start: tuple[float, float], end: tuple[float, float], points: int) -> np.ndarray:
    return np.linspace(start, end, points)


DIAGONAL = line((0, 4), (4, 0), 401)
SHORT = np.array([(1.0, 2.0), (2.0, 1.0)])


def test_share_of_a_line_behind_a_shorter_line() -> None:
    # (s, 4 - s) lies behind the short line from (1, 2) to (2, 1) for s from 1 to 3.
    assert dominated_share(DIAGONAL, SHORT) == pytest.approx(201 / 401)


def test_shorter_line_is_not_dominated() -> None:
    assert dominated_share(line((1, 2), (2, 1), 101), DIAGONAL) == 0


def test_crossing_lines_share() -> None:
    # y = 3 - 2x and y = 2 - x cross at (1, 1): left of it the second is better, right the first.
    steep = line((0, 3), (1.5, 0), 301)
    flat = line((0, 2), (2, 0), 401)
    assert dominated_share(steep, flat, margin=1e-9) == pytest.approx(200 / 301)
    assert dominated_share(flat, steep, margin=1e-9) == pytest.approx(200 / 401)


def test_interior_of_a_segment_dominates() -> None:
    curve = [(0.0, 10.0), (10.0, 0.0)]
    assert dominated([(5.1, 5.1)], curve).all()
    assert not dominated([(4.9, 4.9)], curve).any()


@pytest.mark.parametrize("error", [0.0, 1e-12, -1e-12])
def test_margin_keeps_a_curve_from_dominating_itself(error: float) -> None:
    assert not dominated(DIAGONAL * (1 + error), DIAGONAL, margin=1e-9).any()


def test_without_bias_the_variance_decides() -> None:
    assert dominated([(0.0, 2.0), (0.0, 0.5)], [(0.0, 1.0)], margin=0.1).tolist() == [True, False]


@pytest.mark.parametrize(
    ("point", "expected"),
    [((0.0, 1.0), False), ((0.0, 2.0), True), ((1.0, 1.0), True), ((1.0, 0.5), False)],
)
def test_single_point_curve(point: tuple[float, float], expected: bool) -> None:
    assert dominated([point], [(0.0, 1.0)]).tolist() == [expected]


def test_axis_parallel_segments() -> None:
    curve = [(1.0, 3.0), (1.0, 1.0), (3.0, 1.0)]
    points = [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (0.9, 9.0), (9.0, 0.9), (3.0, 3.0)]
    assert dominated(points, curve).tolist() == [True, True, False, False, False, True]


def test_curve_between_nodes_is_exact_for_parabolas() -> None:
    x = np.array([0.0, 1.0, 2.0])
    curve = MomentCurve(x, np.stack([1 - x, x], -1), 1 + x**2).at([0.25, 1.5])
    np.testing.assert_allclose(curve.mean, [[0.75, 0.25], [-0.5, 1.5]], atol=1e-14)
    np.testing.assert_allclose(curve.variance, [1.0625, 3.25], atol=1e-14)


def test_plane_raw_and_scale_free() -> None:
    curve = MomentCurve(
        np.array([0.0, 1.0]), np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([8.0, 9.0])
    )
    np.testing.assert_allclose(curve.plane([1.0, 0.0]), [[1, 8], [10, 9]])
    # Rescaled to length 1: no bias and a quarter of the variance; a right angle and a ninth.
    np.testing.assert_allclose(curve.plane([1.0, 0.0], scale_free=True), [[0, 2], [2, 1]])

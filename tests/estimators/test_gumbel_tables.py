"""Tests of the conditional moments of the Gumbel-softmax Jacobian against other routes:
golden numbers, closed integrals, an unconditional integral, the cold limit and plain draws.
"""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch

from gradlab.estimators import GumbelRao, GumbelSoftmaxST, ReinMaxCV, ReinMaxRao, _gumbel_jacobian
from gradlab.estimators._gumbel_jacobian import (
    QuadratureError,
    conditional_jacobians,
    seconds_of_tables,
    tables_too_large,
)

CASES = json.loads((Path(__file__).parents[1] / "fixtures.json").read_text())["cases"]
GOLDEN = [
    pytest.param(case["p"][table["variable"]], float(name.removeprefix("tau=")), table)
    for case in CASES
    for name, table in case["conditional_jacobians"].items()
]
TEMPERATURES = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0]


def dirichlet(classes: int, concentration: float, rows: int) -> torch.Tensor:
    rng = np.random.default_rng(classes)
    p = np.maximum(rng.dirichlet(np.full(classes, concentration), rows), 1e-9)
    return torch.from_numpy(p / p.sum(axis=-1, keepdims=True))


def softmax(*logits: float) -> torch.Tensor:
    return torch.tensor(logits, dtype=torch.float64).softmax(dim=-1)


PROBABILITIES = {
    "4 classes": dirichlet(4, 1.0, 8),
    "16 classes": dirichlet(16, 1.0, 2),
    "8 sparse classes": dirichlet(8, 0.1, 4),
    "gaps up to 30": softmax(0.0, -3.0, -10.0, -20.0, -30.0).expand(1, 5),
    "40 classes": dirichlet(40, 1.0, 1),
}


def distance(table: torch.Tensor, reference: object) -> float:
    return float((table - torch.as_tensor(reference, dtype=torch.float64)).abs().max())


# Other routes to the same numbers.


@pytest.mark.parametrize(("p", "tau", "table"), GOLDEN)
def test_golden_numbers(p, tau, table):
    first, second = conditional_jacobians(torch.tensor(p, dtype=torch.float64), tau)
    assert distance(first, table["E_J_given_class"]) < 1e-10
    assert distance(second, table["E_JJ_given_class"]) < 1e-10


@pytest.mark.parametrize("tau", [0.001, 0.02, *TEMPERATURES])
@pytest.mark.parametrize("p_other", [0.5, 0.9, 0.05, 1e-6, 1e-13])
@pytest.mark.few(15)
def test_two_classes_match_the_closed_integral(p_other, tau):
    def moment(power: int) -> float:
        def integrand(u: float) -> float:
            shrink = math.exp(-tau * u)
            product = math.exp(-u) / (1 + math.exp(-u)) ** 2
            return product**power * p_other * shrink / ((1 - p_other) * shrink + p_other) ** 2

        corners = [1.0, 5.0, 20.0, min(50.0, -math.log(p_other) / tau)]
        return scipy.integrate.quad(
            integrand, 0, 60, points=corners, epsabs=1e-14, epsrel=1e-13, limit=400
        )[0]

    shape = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    p = torch.tensor([1 - p_other, p_other], dtype=torch.float64)
    first, second = conditional_jacobians(p, tau)
    assert distance(first[0], moment(1) * shape) < 1e-10
    assert distance(second[0], 2 * moment(2) / tau * shape) < 1e-10 * max(1, 1 / tau)


def unconditional(p: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """E[J] and E[J J] over all noise: w_i = (p_i / E_i)^(1 / tau) and no winner, so one integral
    over log s of products of one-class integrals over log E, both by the trapezoid rule."""
    x, dx = np.linspace(-40, 4, math.ceil(44 / (0.25 * min(1, tau))), retstep=True)
    log_s, ds = np.linspace(-40 / min(1, tau), 4 + (4 - np.log(p.max())) / tau, 800, retstep=True)
    log_sw = log_s[:, None, None] + (np.log(p)[:, None] - x) / tau
    decay = np.exp(-np.exp(np.minimum(log_sw, 700.0)))
    # q[r] = s^r E[w^r exp(-s w)], [r, s, C]; the product of all q[0] vanishes before any of them.
    base = np.exp(x - np.exp(x)) * dx
    q = np.stack([(np.exp(r * np.minimum(log_sw, 7.0)) * decay) @ base for r in range(4)])
    density = q[0].prod(axis=-1) * ds
    w1, w2, w3 = q[1:] / np.maximum(q[0], 1e-280)
    pair = np.einsum("s,si,sj->ij", density, w1, w1)
    others = w2.sum(axis=-1)[:, None, None] - w2[:, :, None] - w2[:, None]
    fourth = w1[:, :, None] * w1[:, None] * others
    fourth += w3[:, :, None] * w1[:, None] + w1[:, :, None] * w3[:, None]
    third = w2[:, :, None] * w1[:, None] + w1[:, :, None] * w2[:, None]
    square = np.einsum("s,sij->ij", density, fourth / 6 - third / 2)
    tables = -pair / tau, square / tau**2
    for table in tables:
        np.fill_diagonal(table, 0)
        np.fill_diagonal(table, -table.sum(axis=-1))
    return tables


@pytest.mark.parametrize("tau", [0.4, 1.0, 2.0, 10.0])
@pytest.mark.parametrize(
    "p",
    [softmax(0.8, 0.9, 0.1), softmax(0.0, -3.0, -8.0, -20.0, 0.5), dirichlet(9, 1.0, 1)[0]],
    ids=["3", "5 peaked", "9"],
)
@pytest.mark.few(4)
def test_average_over_classes_is_the_unconditional_moment(p, tau):
    first, second = conditional_jacobians(p, tau)
    expected_first, expected_second = unconditional(p.numpy(), tau)
    assert distance(torch.einsum("k,kij->ij", p, first), expected_first) < 1e-10
    assert distance(torch.einsum("k,kij->ij", p, second), expected_second) < 1e-10 * max(1, 1 / tau)


def z_scores(p: torch.Tensor, k: int, tau: float, drawn_tau: float) -> torch.Tensor:
    """Deviations of plain conditional draws at drawn_tau from both tables at tau, in errors."""
    generator = torch.Generator().manual_seed(20)
    draws = torch.empty(40_000, len(p) + 1, dtype=torch.float64)
    e = draws.exponential_(generator=generator)
    w = torch.exp(-torch.log1p(e[:, :-1] / (p * e[:, -1:])) / drawn_tau)
    w[:, k] = 1
    y = w / w.sum(dim=-1, keepdim=True)
    jacobian = (torch.diag_embed(y) - y[:, :, None] * y[:, None, :]) / drawn_tau
    both = torch.stack([jacobian, jacobian @ jacobian])
    i, j = torch.tril_indices(len(p), len(p), -1)
    both = both[..., i, j]
    expected = torch.stack(conditional_jacobians(p, tau))[:, k][..., i, j]
    return (both.mean(dim=1) - expected) / (both.std(dim=1) / len(e) ** 0.5)


DRAWN = pytest.mark.parametrize(
    ("p", "k"),
    [(softmax(0.5, 0.0, -1.0, -2.0), 2), (softmax(0.0, -0.5, -1.0, 1.0, 0.3), 3)],
    ids=["unlikely winner", "likely winner"],
)


# 128 scores in the eight cases: chance puts one above 4.4 in one run of 700. No colder and no
# sparser than this, or the two losers of a pair come close too rarely for a normal error.
@DRAWN
@pytest.mark.parametrize("tau", [0.2, 0.5, 1.0, 4.0])
@pytest.mark.few(3)
def test_plain_draws_agree_within_their_standard_error(p, k, tau):
    assert float(z_scores(p, k, tau, drawn_tau=tau).abs().max()) < 4.4


@DRAWN
@pytest.mark.parametrize("tau", [0.2, 0.5, 1.0, 4.0])
@pytest.mark.few(3)
def test_plain_draws_notice_a_wrong_temperature(p, k, tau):
    assert float(z_scores(p, k, tau, drawn_tau=1.1 * tau).abs().max()) > 6


# The cold limit.


def zgr(p: torch.Tensor) -> torch.Tensor:
    score = torch.eye(len(p), dtype=p.dtype) - p
    return (p.diag() - p.outer(p) + score[:, :, None] * score[:, None, :]) / 2


def cold_coefficient(p: torch.Tensor) -> torch.Tensor:
    a = (-2 * math.log(4 / 3) * p.outer(p)).repeat(len(p), 1, 1)
    for k, p_k in enumerate(p):
        a[k, k] = -math.log(2) * p * (1 - 2 * p) + math.log(8 / 3) * p * (1 - p_k - p)
        a[k, :, k] = a[k, k]
    off = a * (1 - torch.eye(len(p), dtype=p.dtype))
    return off - torch.diag_embed(off.sum(dim=-1))


THREE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
FOUR = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


@pytest.mark.parametrize(
    ("tau", "published"), [(0.2, 0.162), (0.1, 0.177), (0.05, 0.182), (0.02, 0.185), (0.01, 0.186)]
)
def test_cold_limit_leaves_a_quadratic_remainder(tau, published):
    first, _ = conditional_jacobians(THREE, tau)
    remainder = distance(first, zgr(THREE) + tau * cold_coefficient(THREE)) / tau**2
    assert remainder == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("tau", "published"), [(1.0, 0.263), (0.1, 0.365), (0.01, 0.373), (0.001, 0.374)]
)
def test_distance_to_zgr_is_linear_when_cold(tau, published):
    first, _ = conditional_jacobians(FOUR, tau)
    assert distance(first, zgr(FOUR)) / tau == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("tau", [0.1, 0.01, 0.001])
def test_second_moment_grows_like_one_over_tau(tau):
    _, second = conditional_jacobians(THREE, tau)
    assert distance(tau * second, zgr(THREE) / 3) < 0.1 * tau


# Accuracy and structure.


@pytest.mark.parametrize("tau", [0.001, *TEMPERATURES])
@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.few(14)
def test_accuracy_against_many_more_nodes(name, tau, monkeypatch):
    p = PROBABILITIES[name]
    first, second = conditional_jacobians(p, tau)
    monkeypatch.setattr(_gumbel_jacobian, "LEVELS", (40, 52))
    refined_first, refined_second = conditional_jacobians(p, tau)
    assert distance(first, refined_first) < 1e-11
    assert distance(second, refined_second) < 1e-11 * max(1, 1 / tau)


@pytest.mark.parametrize("tau", [0.001, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", PROBABILITIES)
def test_tables_are_symmetric_positive_and_sum_to_zero(name, tau):
    first, second = conditional_jacobians(PROBABILITIES[name], tau)
    bound = 1e-12 * max(1, 1 / tau)
    for table in (first, second, second - first @ first):
        assert distance(table, table.mT) < bound
        assert distance(table.sum(dim=-1), 0) < bound
        assert float(torch.linalg.eigvalsh(table).min()) > -bound


@pytest.mark.parametrize("tau", [0.01, 0.7, 10.0])
def test_a_masked_class_changes_nothing_for_the_others(tau):
    p = torch.tensor([[0.2, 0.0, 0.5, 0.3], [0.0, 0.6, 0.4, 0.0]], dtype=torch.float64)
    tables = conditional_jacobians(p, tau)
    for table in tables:
        assert table.isfinite().all()
        for row, kept in enumerate(([0, 2, 3], [1, 2])):
            alone = conditional_jacobians(p[row, kept], tau)[table is tables[1]]
            assert distance(table[row][kept][:, kept][:, :, kept], alone) < 1e-10 * max(1, 1 / tau)
            masked = [i for i in range(4) if i not in kept]
            assert (table[row, masked] == 0).all()
            assert (table[row, :, masked] == 0).all()
            assert (table[row, :, :, masked] == 0).all()


@pytest.mark.parametrize("p", [[1.0], [0.0, 1.0, 0.0]])
def test_a_certain_class_has_zero_tables(p):
    for table in conditional_jacobians(torch.tensor(p), 0.5):
        assert table.dtype == torch.float64
        assert table.shape == (len(p),) * 3
        assert (table == 0).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0)])
def test_leading_shape_is_kept_and_rows_do_not_mix(shape):
    logits = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = logits.softmax(dim=-1).requires_grad_()
    tables = conditional_jacobians(p, 0.5)
    alone = [conditional_jacobians(row, 0.5) for row in p.reshape(-1, 3)]
    for table, parts in zip(tables, zip(*alone, strict=True) or ([], []), strict=False):
        assert table.shape == (*shape, 3, 3, 3)
        assert not table.requires_grad
        assert distance(table.reshape(-1, 3, 3, 3), torch.stack(parts)) < 1e-12


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block", [2**12, 2**15])
def test_threads_change_nothing_and_blocks_only_the_rounding(threads, block, monkeypatch):
    p = dirichlet(6, 1.0, 20)
    reference = torch.stack(conditional_jacobians(p, 0.5))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    repeated = torch.stack(conditional_jacobians(p, 0.5))
    torch.set_num_threads(before)
    assert torch.equal(repeated, reference)
    monkeypatch.setattr(_gumbel_jacobian, "BLOCK", block)
    assert distance(torch.stack(conditional_jacobians(p, 0.5)), reference) < 1e-13


# One class a row, and probabilities that lean to the winner.


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0, 10.0])
@pytest.mark.parametrize("name", PROBABILITIES)
def test_the_slice_of_a_given_class_is_that_of_the_table(name, tau):
    p = PROBABILITIES[name]
    given = torch.randint(p.shape[-1], p.shape[:-1], generator=torch.Generator().manual_seed(3))
    tables, slices = conditional_jacobians(p, tau), conditional_jacobians(p, tau, given=given)
    for table, part in zip(tables, slices, strict=True):
        assert part.shape == (*p.shape, p.shape[-1])
        expected = table[torch.arange(len(p)), given]
        assert distance(part, expected) < 1e-11 * max(1, 1 / tau)


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0, 10.0])
@pytest.mark.parametrize("name", [n for n in PROBABILITIES if n != "40 classes"])
@pytest.mark.few(6)
def test_leaning_probabilities_are_those_of_each_winner(name, tau):
    p = PROBABILITIES[name]
    classes = p.shape[-1]
    leaning = (p[:, None] + torch.eye(classes, dtype=p.dtype)) / 2
    given = torch.arange(classes).expand(p.shape)
    found = conditional_jacobians(p, tau, lean=0.5)
    expected = conditional_jacobians(leaning, tau, given=given)
    for table, by_winner in zip(found, expected, strict=True):
        assert distance(table, by_winner) < 1e-11 * max(1, 1 / tau)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_slices_keep_the_leading_shape(shape):
    p = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(1)).double()
    p = p / p.sum(-1, keepdim=True)
    for part in conditional_jacobians(p, 0.5, given=torch.zeros(shape, dtype=torch.long)):
        assert part.shape == (*shape, 4, 4)


def test_the_slice_of_a_masked_class_is_zero():
    p = torch.tensor([0.4, 0.0, 0.6], dtype=torch.float64)
    for part in conditional_jacobians(p, 0.5, given=torch.tensor(1)):
        assert (part == 0).all()


@pytest.mark.parametrize("given", [[3, 0], [0, -1], [0], [[0, 1]]])
def test_bad_classes_are_named(given):
    p = THREE.expand(2, 3)
    with pytest.raises((ValueError, TypeError), match=r"given|beartype|Type"):
        conditional_jacobians(p, 1.0, given=torch.tensor(given))


@pytest.mark.parametrize("lean", [-0.1, 1.0, math.nan])
def test_bad_leaning_is_named(lean):
    with pytest.raises(ValueError, match="lean must be a number"):
        conditional_jacobians(THREE, 1.0, lean=lean)


# What tables cost.


@pytest.fixture
def made(monkeypatch):
    """The blocks of tables that are made, from no remembered ones."""
    seen = []
    original = _gumbel_jacobian._in_blocks
    _gumbel_jacobian._TABLES.clear()
    monkeypatch.setattr(
        _gumbel_jacobian, "_in_blocks", lambda *given: seen.append(given) or original(*given)
    )
    return seen


TAUS = (0.1, 0.5, 2.0)


@pytest.mark.parametrize("size", [(1, 3), (2, 20), (1, 40)], ids=str)
@pytest.mark.few(1)
def test_estimators_of_one_temperature_share_their_tables(size, made):
    p = dirichlet(size[1], 1.0, size[0])
    for make in (GumbelSoftmaxST, lambda tau: GumbelRao(tau, 3), lambda tau: GumbelRao(tau, None)):
        for tau in TAUS:
            make(tau).conditional_jacobians(p)
    assert len(made) == len(TAUS)
    for make in (lambda tau: ReinMaxRao(tau, 3), lambda tau: ReinMaxCV(tau, 0.5, None)):
        for tau in TAUS:
            make(tau).conditional_jacobians(p)
    assert len(made) == 2 * len(TAUS)


def test_what_is_remembered_is_not_changed_by_its_users():
    first, _ = conditional_jacobians(THREE, 0.3)
    kept = first.clone()
    first.zero_()
    assert torch.equal(conditional_jacobians(THREE, 0.3)[0], kept)


SIZES = [(1, 2), (1, 10), (3, 10), (100, 10), (1, 25), (12, 32), (1, 64), (1, 128)]


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_more_rows_classes_or_heat_take_no_less_time(size, slices):
    rows, classes = size

    def seconds(rows, classes, tau):
        return seconds_of_tables(rows, classes, tau=tau, slices=slices)

    base = seconds(rows, classes, 1.0)
    assert 0 < base < seconds(2 * rows, classes, 1.0) <= 2 * base
    assert seconds(rows, 2 * classes, 1.0) > base
    assert seconds(rows, classes, 10.0) >= base
    assert seconds(rows, classes, 0.01) == base


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_slices_take_less_time_than_tables(size):
    assert seconds_of_tables(*size, slices=True) < seconds_of_tables(*size)


def test_the_orders_of_the_counted_operations():
    # Tables of many classes are products: C^3 a row for each of C^0 nodes; slices C^2.
    assert seconds_of_tables(1, 4096) / seconds_of_tables(1, 2048) == pytest.approx(8, rel=0.05)
    ratio = seconds_of_tables(1, 8192, slices=True) / seconds_of_tables(1, 4096, slices=True)
    assert 2 < ratio < 4


@pytest.mark.parametrize("size", [(1, 3), (4, 10), (1, 40), (6, 24)], ids=str)
def test_the_seconds_are_not_off_by_orders_of_magnitude(size, made):
    p = dirichlet(size[1], 1.0, size[0])
    start = time.process_time()
    conditional_jacobians(p, 1.0)
    spent = time.process_time() - start
    assert 0.02 * spent < seconds_of_tables(*size, tau=1.0) < 50 * spent


@pytest.mark.parametrize(
    ("size", "slices", "fits"),
    [
        ((1, 64), False, True),
        ((1, 322), False, True),
        ((1, 323), False, False),
        ((1, 4096), False, False),
        ((1, 4096), True, True),
        ((200, 512), False, False),
        ((4096, 2), False, True),
        ((1, 100_000), True, False),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_their_size(size, slices, fits):
    reason = tables_too_large(*size, slices=slices)
    assert (reason is None) == fits
    if not fits and not slices:
        p = torch.full(size, 1 / size[1], dtype=torch.float64)
        assert "use Monte Carlo" in GumbelRao(0.5, None).refusal(p)
        with pytest.raises(QuadratureError, match="use Monte Carlo"):
            conditional_jacobians(p, 0.5)


# Errors.


def test_unreachable_accuracy_is_an_error_that_says_what_to_do():
    with pytest.raises(QuadratureError, match=r"tau=0\.5.*2\.0e-01.*Monte Carlo"):
        conditional_jacobians(THREE, 0.5, accuracy=1e-30)


@pytest.mark.thorough  # an error that users do not meet
def test_a_row_too_extreme_to_integrate_is_an_error():
    p = torch.tensor([0.5, 0.5, 5e-324], dtype=torch.float64)
    with pytest.raises(QuadratureError, match="tau=100"):
        conditional_jacobians(p, 100.0)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf, 1e-310])
def test_bad_temperature_is_named(tau):
    with pytest.raises(ValueError, match="tau must be a positive finite number"):
        conditional_jacobians(THREE, tau)


@pytest.mark.parametrize("accuracy", [0.0, -1e-8, math.nan])
def test_bad_accuracy_is_named(accuracy):
    with pytest.raises(ValueError, match="accuracy must be a positive finite number"):
        conditional_jacobians(THREE, 1.0, accuracy=accuracy)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (torch.tensor([0.5, 0.4]), "sum to 1"),
        (torch.tensor([[0.5, 0.5], [0.0, 0.0]]), "sum to 1"),
        (torch.tensor([1.5, -0.5]), "negative or non-finite"),
        (torch.tensor([0.5, math.nan]), "negative or non-finite"),
        (torch.empty(2, 0), "C >= 1"),
    ],
)
def test_bad_probabilities_are_named(p, message):
    with pytest.raises(ValueError, match=message):
        conditional_jacobians(p, 1.0)


# The annotations may refuse these before the function does.
@pytest.mark.parametrize("p", [torch.tensor([0, 1]), torch.tensor(1.0), [0.5, 0.5]])
def test_what_is_no_table_of_probabilities_is_refused(p):
    with pytest.raises((ValueError, TypeError)):
        conditional_jacobians(p, 1.0)


def test_a_row_that_comes_often_is_made_once(monkeypatch):
    made = []
    blocks = _gumbel_jacobian._in_blocks
    monkeypatch.setattr(
        _gumbel_jacobian,
        "_in_blocks",
        lambda rows, *rest: made.append(len(rows)) or blocks(rows, *rest),
    )
    p = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]]).double().expand(500, 2, 3)
    given = torch.arange(1000).reshape(500, 2) % 2
    many = conditional_jacobians(p, 0.7, given=given)
    assert made == [2]
    one = conditional_jacobians(p[0], 0.7, given=given[0])
    for all_rows, rows in zip(many, one, strict=True):
        assert torch.equal(all_rows, rows.expand_as(all_rows))

"""The tables of losses are right about themselves: who breaks the contract, how, and who keeps it.

No gate is asked here. Each claim is shown by calling the loss: alone, again, and among others.
"""

import collections
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import all_states
from gradlab.loss.adapted import as_loss
from losses import CORRECT, FAULTY, N_CLASSES, N_VARIABLES

N, C = N_VARIABLES, N_CLASSES
LOGITS = torch.tensor([[0.3, -0.5, 0.2], [0.1, 0.4, -1.0]], dtype=torch.float64)


def states(dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Tensor:
    """Return all states as one-hot x [S, *batch, N, C]."""
    x = all_states(N, C).to(dtype)
    return x.reshape(-1, *[1] * len(batch), N, C).repeat(1, *batch, 1, 1)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * 1e-9)


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def faulty(*errors: str, in_gradient: bool = False):
    rows = [f for f in FAULTY if f.error in errors and f.in_gradient == in_gradient]
    assert rows
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


correct = pytest.mark.parametrize("row", CORRECT, ids=lambda row: row.name)


# The tables.


def test_the_tables_are_large_and_their_names_differ():
    assert len(FAULTY) >= 35
    assert len(CORRECT) >= 25
    names = collections.Counter(row.name for row in (*FAULTY, *CORRECT))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_fault_has_several_losses():
    counts = collections.Counter(row.error for row in FAULTY)
    assert len(counts) == 10
    assert min(counts.values()) >= 2


def test_phrases_are_in_lower_case():
    assert all(row.phrase == row.phrase.lower() for row in FAULTY)


@pytest.mark.parametrize("row", FAULTY, ids=lambda row: row.name)
@pytest.mark.few(39)
def test_each_call_makes_a_new_loss(row):
    first, logits = row.make(LOGITS)
    second, again = row.make(LOGITS)
    assert callable(first)
    assert callable(second)
    assert logits.shape == again.shape == LOGITS.shape
    torch.testing.assert_close(logits, again, rtol=0, atol=0)  # with the same modules


# Faulty losses break the contract, by the fault that is named.


@faulty("LossTypeError")
def test_no_floating_tensor_is_returned(row):
    f, _ = row.make(LOGITS)
    values = f(states())
    assert not isinstance(values, Tensor) or not values.is_floating_point()


@faulty("LossShapeError")
def test_some_shape_is_wrong(row):
    f, _ = row.make(LOGITS)

    def is_right(x):
        try:
            return f(x).shape == x.shape[:-2]
        except (RuntimeError, ValueError, AssertionError):
            return False

    x = states()
    right = [is_right(y) for y in (x[0], x[:1], x, x.reshape(3, 3, N, C))]
    assert not all(right)
    if row.phrase == "as_loss":
        assert right[2]  # one batch axis is what it takes


@pytest.mark.parametrize(
    "row", [row for row in FAULTY if row.phrase == "as_loss"], ids=lambda row: row.name
)
def test_as_loss_is_the_way_out_of_one_batch_axis(row):
    f, _ = row.make(LOGITS)
    g, x = as_loss(f), states()
    values = torch.stack([g(one) for one in x])
    torch.testing.assert_close(g(x), values)
    torch.testing.assert_close(g(x.reshape(3, 3, N, C)), values.reshape(3, 3))


@faulty("LossDtypeError")
def test_the_dtype_is_refused(row):
    f, logits = row.make(LOGITS)
    with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
        f(states(logits.dtype))


@faulty("NotFiniteError")
def test_some_value_is_not_finite(row):
    f, _ = row.make(LOGITS)
    values = f(states())
    assert values.shape == (9,)
    assert not values.isfinite().all()


@faulty("NotFiniteError", in_gradient=True)
def test_only_the_gradient_is_not_finite(row):
    f, _ = row.make(LOGITS)
    x = states().requires_grad_()
    values = f(x)
    assert values.isfinite().all()
    (v,) = torch.autograd.grad(values.sum(), x)
    assert not v.isfinite().all()


@faulty("RandomLossError")
def test_random_numbers_of_a_global_generator(row):
    f, _ = row.make(LOGITS)
    x = states().requires_grad_()
    seed()
    first = f(x).detach()
    others = [f(x).detach() for _ in range(9)]
    assert not all(close(first, other) for other in others)
    for _ in range(2):
        seed()
        torch.testing.assert_close(f(x).detach(), first, rtol=0, atol=0)


@faulty("StatefulLossError")
def test_the_state_is_no_random_number(row):
    f, _ = row.make(LOGITS)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    x = states()
    one, two = x[:4], x[4:8]
    values = [f(one), f(one), f(two), f(one), f(two)]
    fresh, _ = row.make(LOGITS)
    steady = close(values[0], values[1]) and close(values[0], values[3])
    assert not (steady and close(fresh(two), values[2]))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002


def alone(f, x: Tensor) -> Tensor | None:
    """Return the values of single x, one call each; None if f takes no single x."""
    try:
        return torch.stack([f(row) for row in x])
    except (ValueError, IndexError):
        return None


@faulty("BatchDependentError")
def test_other_x_matter_and_nothing_else_does(row):
    f, _ = row.make(LOGITS)
    x = states()
    values = f(x)
    assert values.shape == (9,)
    assert values.isfinite().all()
    torch.testing.assert_close(f(x), values)  # neither random nor with a state
    seen = [alone(f, x), f(x.flip(0)).flip(0), f(x.reshape(3, 3, N, C)).reshape(9)]
    assert not all(other is not None and close(values, other) for other in seen)


def leaves(values: Tensor) -> list[Tensor]:
    """Return the leaves of the graph of the values."""
    found, seen, nodes = [], set(), [values.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes.extend(after for after, _ in node.next_functions)
    return found


def reaches(f, x: Tensor, logits: Tensor) -> bool:
    """Return whether the graph of f(x) leads to the logits, or to a leaf that holds them."""
    values = f(x)
    if not values.requires_grad:
        return False
    if logits.requires_grad:
        (g,) = torch.autograd.grad(values.sum(), logits, allow_unused=True, retain_graph=True)
        if g is not None:
            return True

    def span(t: Tensor) -> tuple[int, int]:
        return t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()

    first, last = span(logits)
    return any(a < last and first < b for a, b in map(span, leaves(values)))


@faulty("HoldsLogitsError")
def test_the_graph_leads_to_the_logits(row):
    f, logits = row.make(LOGITS)
    assert reaches(f, states(), logits)


@faulty("ChangesInputError")
def test_x_is_written(row):
    f, _ = row.make(LOGITS)
    x = states()
    f(x)
    assert not torch.equal(x, states()) or x.shape != states().shape


# Correct losses keep it, however they are called.


@correct
@pytest.mark.few(21)
def test_one_finite_value_for_each_x_alone_again_and_among_others(row):
    f, logits = row.make(LOGITS)
    assert logits.shape == (*row.batch, N, C)
    x = states(logits.dtype, row.batch)
    before = x.clone()
    values = f(x)
    assert values.is_floating_point()
    assert values.shape == x.shape[:-2]
    assert values.isfinite().all()
    n = len(row.batch)
    ways = {
        "again": f(x),
        "alone": torch.stack([f(row) for row in x]),
        "with one axis": torch.cat([f(row[None]) for row in x]),
        "in reverse": f(x.flip(0)).flip(0),
        "in a grid": f(x.unflatten(0, (3, 3))).flatten(0, 1),
        "twice": f(torch.cat([x, x]))[len(x) :],
        "not contiguous": f(x.movedim(0, n).contiguous().movedim(n, 0)),
        "with its gradient": f(x.clone().requires_grad_()).detach(),
    }
    wrong = {way for way, other in ways.items() if not close(values, other, row.tolerance)}
    assert wrong == set()
    assert torch.equal(x, before)


@correct
@pytest.mark.few(21)
def test_it_has_a_gradient_in_x_where_the_table_says_so(row):
    f, logits = row.make(LOGITS)
    x = states(logits.dtype, row.batch).requires_grad_()
    values = f(x)
    assert values.requires_grad == row.differentiable
    if row.differentiable:
        (v,) = torch.autograd.grad(values.sum(), x)
        assert v.isfinite().all()


@correct
@pytest.mark.few(21)
def test_the_graph_of_a_correct_loss_does_not_lead_to_the_logits(row):
    f, logits = row.make(LOGITS)
    assert not reaches(f, states(logits.dtype, row.batch), logits)

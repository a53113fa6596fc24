"""The rule by which a loss f(x, logits) is recognised, and its traps."""

import functools
import inspect

import pytest
import torch
from torch import nn

import gradlab
from gradlab import exact_gradient, exact_value, with_parameters
from gradlab.loss import (
    Objective,
    ParameterLoss,
    SecondArgumentError,
    as_loss,
    bound,
    checked,
    name_of,
    sees_parameters,
)

pytestmark = pytest.mark.usefixtures("unchecked")

LOGITS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ONES = torch.ones(2, 3, dtype=torch.float64)


def linear(x):
    return (x * WEIGHT).sum((-2, -1))


def product(x, logits):
    """Return x . (W p), whose direct gradient is not 0."""
    return (x * WEIGHT * logits.softmax(-1)).sum((-2, -1))


def truth(f):
    """Return d/dlogits sum_x p(x) f(x, logits), written out for LOGITS."""
    leaf = LOGITS.clone().requires_grad_()
    p = leaf.softmax(-1)
    total = sum(
        p[0, i] * p[1, j] * f(torch.eye(3, dtype=p.dtype)[[i, j]], leaf)
        for i in range(3)
        for j in range(3)
    )
    return torch.autograd.grad(total, leaf)[0]


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", WEIGHT.clone())
        self.bias = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x, logits):
        return (x * self.weight * logits.softmax(-1)).sum((-2, -1)) + self.bias

    def score(self, x, logits):
        return self(x, logits)


class Callable:
    name = "called"

    def __call__(self, x, theta):
        return product(x, theta)


def three(scale, x, logits):
    return scale * product(x, logits)


def optional(x, logits, scale=1.0):
    return scale * product(x, logits)


def with_default(x, logits=None):
    return linear(x) if logits is None else product(x, logits)


def anything(*args, **options):
    return product(*args, **options)


MARKED = {
    "function": product,
    "another name": lambda a, b: product(a, b),
    "module": Module(),
    "bound method": Module().score,
    "object": Callable(),
    "partial": functools.partial(three, 1.0),
    "a third argument that is optional": optional,
    "logits are optional": with_default,
    "*args": anything,
    "a bound default": lambda x, logits, weight=WEIGHT: (x * weight * logits.softmax(-1)).sum(
        (-2, -1)
    ),
    "decorated": functools.wraps(product)(lambda *args: product(*args)),
    "keyword-only logits, in a lambda": lambda x, logits: (lambda x, *, logits: product(x, logits))(
        x, logits=logits
    ),
}


@pytest.mark.parametrize("name", MARKED)
def test_a_marked_loss_is_called_with_the_logits(name):
    f = with_parameters(MARKED[name])
    assert sees_parameters(f)
    torch.testing.assert_close(exact_gradient(f, LOGITS), truth(product), rtol=0, atol=1e-14)


@pytest.mark.thorough  # loads torch._dynamo
def test_compiled_losses_may_be_marked():
    compiled = torch.compile(product, backend="eager")
    torch.testing.assert_close(
        exact_gradient(with_parameters(compiled), LOGITS), truth(product), rtol=0, atol=1e-14
    )


UNMARKED = {
    "logits are optional": with_default,
    "a bound default": lambda x, logits=ONES: (x * WEIGHT * logits).sum((-2, -1)),
    "*args": lambda *args: linear(*args),
    "an optional argument": lambda x, extra=None: linear(x),
    "partial": functools.partial(lambda x, weight: (x * weight).sum((-2, -1)), weight=WEIGHT),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_an_unmarked_loss_is_called_with_x_alone(name):
    f = UNMARKED[name]
    assert not sees_parameters(f)
    torch.testing.assert_close(
        exact_gradient(f, LOGITS), truth(lambda x, _: f(x)), rtol=0, atol=1e-14
    )


NOT_ENOUGH = {
    "function": product,
    "module": Module(),
    "lambda": lambda x, theta: product(x, theta),
    "of a partial": functools.partial(with_parameters(product)),
    "in a lambda": lambda x: with_parameters(product)(x),
    "given to as_loss": as_loss(with_parameters(product)),
}


@pytest.mark.parametrize("name", NOT_ENOUGH)
def test_a_loss_that_needs_two_arguments_and_is_not_marked_is_refused(name):
    with pytest.raises(SecondArgumentError, match="mark"):
        exact_value(NOT_ENOUGH[name], LOGITS)
    with pytest.raises(SecondArgumentError, match="mark"):
        gradlab.ZGR().surrogate(NOT_ENOUGH[name], LOGITS)


def test_a_type_error_inside_of_f_is_not_taken_for_a_missing_argument():
    def f(x):
        return product(x)

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'logits'") as told:
        exact_value(f, LOGITS)
    assert not isinstance(told.value, SecondArgumentError)


def keyword_only(x, *, logits):
    return product(x, logits)


def needs_three(x, logits, scale):
    return scale * product(x, logits)


def other_second(x, temperature=1.0, logits=None):
    return product(x, logits) / temperature


WRONG = {
    "one argument": (linear, r"linear\(x\) cannot be called as f\(x, logits\)"),
    "keyword-only": (keyword_only, r"mark lambda x, logits: f\(x, logits=logits\)"),
    "three arguments": (needs_three, "with two positional arguments"),
    "another is called logits": (other_second, "given the logits as temperature"),
    "a class": (Callable, "marks a function"),
    "a number": (3.0, "marks a function"),
    "a module of one argument": (nn.Linear(3, 1), "cannot be called"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_refused_when_it_is_marked(name):
    f, told = WRONG[name]
    with pytest.raises(TypeError, match=told):
        with_parameters(f)


def test_the_mark_changes_neither_name_nor_declarations_nor_direct_calls():
    def f(x, logits):
        return product(x, logits)

    f.degree = 2
    marked = with_parameters(f)
    assert isinstance(marked, ParameterLoss)
    assert with_parameters(marked) is marked
    assert name_of(marked) == name_of(checked(marked, LOGITS)) == "f"
    assert name_of(with_parameters(Callable())) == "called"
    assert marked.degree == checked(marked, LOGITS).degree == 2
    x = torch.eye(3, dtype=torch.float64)[:2]
    assert torch.equal(marked(x, LOGITS), product(x, LOGITS))
    assert gradlab.compare(marked, LOGITS, ["ST"])["problem"].tolist() == ["f"]
    assert inspect.isfunction(marked.f)


def test_an_objective_is_f_at_the_logits_and_at_others():
    f = checked(with_parameters(product), LOGITS)
    assert isinstance(f, Objective)
    x = torch.eye(3, dtype=torch.float64)[:2]
    assert torch.equal(f(x), product(x, LOGITS))
    assert torch.equal(f(x, 2 * LOGITS), product(x, 2 * LOGITS))
    leaf = LOGITS.clone().requires_grad_()
    (g,) = torch.autograd.grad(bound(f, leaf)(x), leaf)
    again = LOGITS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(product(x, again), again)
    assert torch.equal(g, wanted)
    assert bound(linear, leaf) is linear


def test_an_element_of_a_batch_has_its_own_logits():
    rows = torch.stack([LOGITS, -LOGITS])
    data = torch.tensor([1.0, 3.0], dtype=torch.float64)
    f = checked(with_parameters(lambda x, logits: data * product(x, logits)), rows)
    x = torch.eye(3, dtype=torch.float64)[:2]
    assert torch.equal(f.element(1)(x), 3 * product(x, -LOGITS))
    assert torch.equal(f.element(1).at(LOGITS)(x), 3 * product(x, LOGITS))

"""Layers: what they return in training and evaluation, their state, and the matrix of uses."""

import copy
import inspect
import io
import math
import pickle
import re

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cases import all_states, generator, logits_of
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import (
    ARSM,
    DARN,
    STZGR,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    StraightThrough,
    parse,
)
from gradlab.nn import layer as layer_module
from gradlab.nn.layer import CategoricalLayer
from gradlab.nn.schedule import Constant, Cosine, Exponential
from significance import limit, scores

COLUMNS = {
    "ST, DARN, ZGR, ST-ZGR": (StraightThrough(), DARN(), ZGR(), STZGR(0.5)),
    "GS, GS-ST, GR(k)": (GumbelSoftmax(0.7), GumbelSoftmaxST(0.5), GumbelRao(0.5, 4)),
    "GR(k=inf)": (GumbelRao(0.5, None),),
}
PATHWISE = [estimator for estimators in COLUMNS.values() for estimator in estimators]
every = pytest.mark.parametrize("estimator", PATHWISE, ids=str)


def leaf(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> torch.Tensor:
    values = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    return values.to(device, dtype).requires_grad_()


def step(layer, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample and the backward of a fixed cotangent."""
    out = layer(logits)
    v = torch.randn(out.shape, generator=generator(2), dtype=torch.float64)
    return out, torch.autograd.grad(out, logits, v.to(out.device, out.dtype))[0]


# Training.


@every
def test_in_training_a_layer_is_the_estimator(estimator):
    logits = leaf(5, 2, 3)
    layer = CategoricalLayer(estimator, generator=generator())
    out, gradient = step(layer, logits)
    expected = estimator.sample(logits, generator())
    assert torch.equal(out, expected)
    v = torch.randn(out.shape, generator=generator(2), dtype=torch.float64)
    assert torch.equal(gradient, torch.autograd.grad(expected, logits, v)[0])


def test_an_estimator_may_be_given_as_text():
    assert CategoricalLayer("GR(tau=0.1, k=3)").estimator == GumbelRao(0.1, 3)


def test_a_layer_stands_in_a_sequential():
    layer = CategoricalLayer("ZGR", generator=generator())
    model = nn.Sequential(nn.Linear(7, 12), nn.Unflatten(-1, (4, 3)), layer, nn.Flatten(-2))
    out = model(torch.randn(5, 7, generator=generator()))
    assert out.shape == (5, 12)
    out.square().sum().backward()
    assert model[0].weight.grad.isfinite().all()
    assert list(layer.parameters()) == []


NUMBERS = [
    pytest.param("signs", [-1.0, 1.0], id="signs"),
    pytest.param("levels", [0.0, 1.0, 2.0, 3.0], id="levels"),
    pytest.param("unit", [0.0, 1 / 3, 2 / 3, 1.0], id="unit"),
    pytest.param("unit", [0.0], id="unit of one class"),
]


@pytest.mark.parametrize(("embedding", "values"), NUMBERS)
@every
@pytest.mark.few(11)
def test_number_embeddings_are_linear_in_the_sample(estimator, embedding, values):
    logits = leaf(6, 2, len(values))
    out, gradient = step(
        CategoricalLayer(estimator, embedding=embedding, generator=generator()), logits
    )
    weights = torch.tensor(values, dtype=torch.float64)
    x = estimator.sample(logits, generator())
    torch.testing.assert_close(out, x @ weights, rtol=1e-14, atol=1e-14)
    v = torch.randn(out.shape, generator=generator(2), dtype=torch.float64)
    (expected,) = torch.autograd.grad(x, logits, v[..., None] * weights)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_signs_is_unbiased_for_zgr_on_quadratics():
    logits, x = logits_of("moderate", 3, 2), all_states(3, 2)
    a = torch.randn(3, 3, generator=generator(4), dtype=torch.float64)
    layer = CategoricalLayer("ZGR", embedding="signs")
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    n = 8000
    batch = logits.expand(n, 3, 2).clone().requires_grad_()
    layer.generator = generator(5)
    z = layer(batch)
    ((z @ a) * z).sum().backward()
    point = logits.clone().requires_grad_()
    states = x @ signs
    weight = (probabilities(point) * x).sum(-1).prod(-1)
    (exact,) = torch.autograd.grad((weight * ((states @ a) * states).sum(-1)).sum(), point)
    error = batch.grad.std(0) / math.sqrt(n)
    assert scores(batch.grad.mean(0), exact, error).abs().max() < limit()
    # The test has the power to see a factor of 1/2.
    assert scores(batch.grad.mean(0) / 2, exact, error).abs().max() > limit()


# Evaluation.


@every
def test_evaluation_draws_one_hot_samples_for_every_estimator(estimator):
    logits = leaf(500, 2, 3)
    layer = CategoricalLayer(estimator, generator=generator()).eval()
    out = layer(logits)
    assert torch.equal(out, draw_one_hot(probabilities(logits), generator()))
    assert not out.requires_grad


@every
def test_evaluation_by_the_mode_is_the_first_most_probable_class(estimator):
    logits = torch.tensor([[0.0, 2.0, 2.0], [-math.inf, 1.0, 0.0]])
    out = CategoricalLayer(estimator, evaluation="mode").eval()(logits)
    assert out.tolist() == [[0, 1, 0], [0, 1, 0]]


@every
def test_evaluation_by_the_mean_is_differentiable(estimator):
    logits = leaf(4, 2, 3)
    out, gradient = step(CategoricalLayer(estimator, evaluation="mean").eval(), logits)
    v = torch.randn(out.shape, generator=generator(2), dtype=torch.float64)
    expected = torch.softmax(logits, -1)
    assert torch.equal(out, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits, v)[0])


@pytest.mark.parametrize("evaluation", ["sample", "mode", "mean"])
def test_evaluation_does_not_change_training(evaluation):
    logits = leaf(5, 2, 3)
    layer = CategoricalLayer("GS(tau=0.5)", evaluation=evaluation, generator=generator())
    assert torch.equal(layer(logits), GumbelSoftmax(0.5).sample(logits, generator()))
    assert layer.eval()(logits).shape == layer.train()(logits).shape


@pytest.mark.parametrize("evaluation", ["sample", "mode", "mean"])
def test_evaluation_embeds_numbers(evaluation):
    layer = CategoricalLayer("ZGR", embedding="levels", evaluation=evaluation).eval()
    logits = torch.tensor([[0.0, -math.inf, -math.inf], [-math.inf, -math.inf, 3.0]])
    assert layer(logits).tolist() == [0, 2]


# Schedules.


SCHEDULES = [
    pytest.param(Constant(0.5), [0.5, 0.5, 0.5, 0.5], id="constant"),
    pytest.param(Exponential(4.0, 1.0, 2), [4.0, 2.0, 1.0, 1.0], id="exponential"),
    pytest.param(Exponential(1.0, 4.0, 2), [1.0, 2.0, 4.0, 4.0], id="rising"),
    pytest.param(Cosine(2.0, 1.0, 3), [2.0, 1.75, 1.25, 1.0], id="cosine"),
    pytest.param(lambda step: 1 / (1 + step), [1, 1 / 2, 1 / 3, 1 / 4], id="function"),
]


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES)
def test_a_schedule_sets_the_temperature_step_by_step(schedule, expected):
    layer = CategoricalLayer("GR(tau=7, k=3)", schedule=schedule)
    found = []
    for _ in expected:
        found.append(layer.estimator.tau)
        layer.step()
    assert found == pytest.approx(expected, abs=1e-14)
    assert layer.estimator.k == 3
    assert layer.steps == 4


@pytest.mark.parametrize("schedule", [Exponential(2.0, 0.1, 1000), Cosine(2.0, 0.1, 1000)])
def test_schedules_go_from_start_to_end_without_turning(schedule):
    values = [schedule(step) for step in range(1001)]
    assert values[0] == 2.0
    assert values[-1] == schedule(10**9) == 0.1
    assert values == sorted(values, reverse=True)


def test_a_layer_without_schedule_only_counts():
    layer = CategoricalLayer("GS-ST(tau=0.5)")
    layer.step()
    assert (layer.estimator, layer.steps) == (GumbelSoftmaxST(0.5), 1)


def test_the_step_is_saved_in_the_state_dict():
    layer = CategoricalLayer("GS", schedule=Exponential(1.0, 0.1, 10))
    for _ in range(4):
        layer.step()
    stored = io.BytesIO()
    torch.save(nn.Sequential(layer).state_dict(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    fresh = nn.Sequential(CategoricalLayer("GS", schedule=Exponential(1.0, 0.1, 10)))
    fresh.load_state_dict(state)
    assert fresh[0].estimator == layer.estimator
    assert fresh[0].steps == 4
    # A model trained with one estimator loads into one with another.
    nn.Sequential(CategoricalLayer("ZGR")).load_state_dict(state)


# Bad input.


@pytest.mark.parametrize("estimator", [Reinforce(), LeaveOneOut(2), ARSM()], ids=str)
def test_estimators_without_a_sample_are_refused(estimator):
    with pytest.raises(ValueError, match=r"no sample .* estimator\.surrogate\(f, logits\)"):
        CategoricalLayer(estimator)


BAD = [
    ({"schedule": Constant(0.5)}, "schedule: ZGR has no temperature"),
    (
        {"embedding": "onehot"},
        "embedding must be one of one-hot, signs, .* not 'onehot'; did you mean 'one-hot'",
    ),
    ({"evaluation": "median"}, "evaluation must be one of sample, mode, mean, not 'median'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CategoricalLayer("ZGR", **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0.0), "tau must be"),
        (lambda: Exponential(1.0, 0.0, 5), "tau must be"),
        (lambda: Cosine(math.inf, 1.0, 5), "tau must be"),
        (lambda: Cosine(1.0, 0.5, 0), "steps must be an int of at least 1, not 0"),
        (lambda: CategoricalLayer("GS", schedule=lambda step: -1.0), "tau must be"),
    ],
)
def test_bad_temperatures_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("embedding", "logits", "message"),
    [
        ("signs", torch.zeros(4, 3), "2 classes for the embedding 'signs', not 3"),
        ("levels", torch.zeros(1, 300, dtype=torch.bfloat16), "cannot hold the levels 0 to 299"),
        ("one-hot", torch.tensor([[math.nan, 0.0]]), "NaN"),
        ("unit", torch.zeros(2, 0), r"shape \[\.\.\., C\]"),
    ],
)
def test_logits_that_do_not_suit_are_refused(embedding, logits, message, training):
    layer = CategoricalLayer("ZGR", embedding=embedding).train(training)
    with pytest.raises(ValueError, match=message):
        layer(logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_levels_as_many_as_half_precision_holds_are_exact(dtype):
    classes = 257 if dtype is torch.bfloat16 else 2049
    logits = torch.zeros(1, classes, dtype=dtype)
    logits[0, -2] = 100
    layer = CategoricalLayer("ZGR", embedding="levels", evaluation="mode").eval()
    assert layer(logits).item() == classes - 2


# The matrix: each check is one row of the table of the module.


def check_batch(estimator):
    for batch in ((), (3,), (2, 1), (2, 3, 2)):
        out, gradient = step(CategoricalLayer(estimator), leaf(*batch, 2, 3))
        assert out.shape == gradient.shape == (*batch, 2, 3)
        numbers, _ = step(CategoricalLayer(estimator, embedding="levels"), leaf(*batch, 2, 3))
        assert numbers.shape == (*batch, 2)


def check_masked(estimator):
    logits = logits_of("masked", 3, 4).expand(50, 3, 4).clone().requires_grad_()
    layer = CategoricalLayer(estimator, generator=generator())
    out, gradient = step(layer, logits)
    masked = logits == -math.inf
    assert masked.any()
    assert (out[masked] == 0).all()
    assert (gradient[masked] == 0).all()
    assert gradient.isfinite().all()
    assert (layer.eval()(logits)[masked] == 0).all()


def check_one_class(estimator):
    out, gradient = step(CategoricalLayer(estimator), leaf(5, 2, 1))
    assert (out == 1).all()
    assert (gradient == 0).all()


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return out


def check_large(estimator):
    classes, samples = 16_384, getattr(estimator, "k", 1)
    logits = leaf(1, classes, dtype=torch.float32)
    with Largest() as largest:
        out, gradient = step(CategoricalLayer(estimator), logits)
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    assert gradient.isfinite().all()
    # In float32: the cumulated probabilities are float64.
    assert classes <= largest.elements <= 2 * samples * classes


def check_half(estimator):
    for dtype in (torch.bfloat16, torch.float16):
        logits = leaf(40, 2, 3, dtype=dtype)
        out, gradient = step(CategoricalLayer(estimator, generator=generator()), logits)
        assert out.dtype == gradient.dtype == dtype
        fine = logits.detach().float().requires_grad_()
        expected = estimator.sample(fine, generator())
        assert torch.equal(out, expected.to(dtype))
        v = torch.randn(out.shape, generator=generator(2), dtype=torch.float64).to(dtype).float()
        (product,) = torch.autograd.grad(expected, fine, v)
        assert torch.equal(gradient, product.to(dtype))


def check_autocast(estimator, device="cpu"):
    torch.manual_seed(0)
    linear = nn.Linear(7, 6, device=device)
    layer = CategoricalLayer(estimator)
    model = nn.Sequential(linear, nn.Unflatten(-1, (2, 3)), layer)
    data = torch.randn(20, 7, generator=generator()).to(device)
    with torch.autocast(device, torch.bfloat16):
        out = model(data)
        loss = (out.float() * out.detach().roll(1, 0).float()).sum()
    assert out.dtype == torch.bfloat16
    loss.backward()
    assert linear.weight.grad.dtype == torch.float32
    assert linear.weight.grad.isfinite().all()
    assert linear.weight.grad.abs().max() > 0
    # Numbers keep their values: no level is rounded by autocast.
    with torch.autocast(device, torch.bfloat16):
        levels = CategoricalLayer(estimator, embedding="levels").eval()(leaf(9, 2, 999).to(device))
    assert (levels == levels.round()).all()
    assert levels.max() > 256


class Model(nn.Module):
    """A layer between two linear ones."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(7, 6), layer, nn.Linear(6, 4)

    def forward(self, data):
        x = self.layer(torch.tanh(self.first(data)).unflatten(-1, (2, 3)))
        return torch.tanh(self.last(x.flatten(-2))).sum(-1)


def check_compile(estimator):
    schedule = Exponential(1.0, 0.1, 3) if hasattr(estimator, "tau") else None
    layer = CategoricalLayer(estimator, schedule=schedule, generator=generator())
    model = Model(layer)
    plain = copy.deepcopy(model)
    data = torch.randn(5, 7, generator=generator())
    from torch._dynamo.testing import CompileCounterWithBackend  # takes seconds to import

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")  # captures the backward pass too
    compiled = torch.compile(model, backend=counter)
    for _ in range(2):
        results = []
        for each in (compiled, plain):
            out = each(data)
            results.append([out, *torch.autograd.grad(out.sum(), each.parameters())])
            each.layer.step()
        torch.testing.assert_close(*results)
    assert counter.frame_count == 2  # before and after the layer, once for all temperatures


def check_vmap(estimator):
    layer = CategoricalLayer(estimator, embedding="levels")
    logits = leaf(8, 2, 3).detach()

    def loss(row):
        return layer(row).square().sum()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        found = torch.func.vmap(torch.func.grad(loss), randomness="different")(
            logits.expand(8, 2, 3)
        )
    assert found.shape == logits.shape
    assert found.isfinite().all()
    assert (found.sum(-1).abs() < 1e-13).all()
    assert len(found.unique(dim=0)) == 8


def check_copies(estimator):
    schedule = Exponential(1.0, 0.1, 10) if hasattr(estimator, "tau") else None
    layer = CategoricalLayer(
        estimator, embedding="unit", evaluation="mode", schedule=schedule, generator=generator()
    )
    layer.step()
    logits = leaf(5, 2, 3)
    fresh = CategoricalLayer(estimator, embedding="unit", schedule=schedule, generator=generator())
    fresh.load_state_dict(layer.state_dict())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh]
    expected = layer(logits)
    for other in copies:
        assert repr(other.estimator) == repr(layer.estimator)
        assert torch.equal(other(logits), expected)
    assert repr(copies[0]) == repr(copies[1]) == repr(layer)
    assert str(layer.estimator) in repr(layer)


def check_cuda(estimator):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    logits = leaf(200, 2, 3, device="cuda")
    source = torch.Generator("cuda").manual_seed(0)
    layer = CategoricalLayer(estimator, generator=source)
    out, gradient = step(layer, logits)
    assert out.device == gradient.device == logits.device
    assert (gradient.sum(-1).abs() < 1e-10).all()
    numbers = CategoricalLayer(estimator, embedding="levels", generator=source).to("cuda").eval()
    assert numbers(logits).shape == (200, 2)
    check_autocast(estimator, "cuda")


CHECKS = {
    "batch dimensions, none to three": check_batch,
    "masked classes (-inf)": check_masked,
    "one class": check_one_class,
    "16,384 classes, memory O(C)": check_large,
    "logits in half precision: sample in it, product in float32": check_half,
    "autocast to bfloat16": check_autocast,
    "torch.compile of a model around it, one graph break": check_compile,
    "torch.func.vmap of grad, no generator": check_vmap,
    "deepcopy, pickle, state_dict": check_copies,
    "CUDA, where there is one": check_cuda,
}


def matrix() -> dict[str, dict[str, str]]:
    """The table in the docstring of the module: row -> column -> what the cell says."""
    lines = [line for line in inspect.getdoc(layer_module).splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def cell_of(row, estimator, *, first):
    # To compile takes longest: in the fast tests one estimator of each column.
    slow = CHECKS[row] is check_compile and not first
    return pytest.param(
        row, estimator, id=f"{row}-{estimator}", marks=[pytest.mark.slow] if slow else []
    )


CELLS = [
    cell_of(row, estimator, first=estimator is COLUMNS[column][0])
    for row, cells in matrix().items()
    for column, cell in cells.items()
    if cell == "yes"
    for estimator in COLUMNS[column]
]


@pytest.mark.parametrize(("row", "estimator"), CELLS)
@pytest.mark.few(16)
def test_what_the_table_says_works(row, estimator):
    CHECKS[row](estimator)


def test_the_table_says_yes_or_why_not():
    table = matrix()
    assert list(table) == list(CHECKS)
    cells = [cell for row in table.values() for cell in row.values()]
    assert all(cell == "yes" or re.match("no: .", cell) for cell in cells)


def test_the_columns_of_the_table_name_the_estimators():
    for column, estimators in COLUMNS.items():
        named = [parse(name.replace("GR(k)", "GR")).name for name in re.split(", ", column)]
        assert named == [estimator.name for estimator in estimators]


def test_tables_are_not_for_vmap():
    with pytest.raises(ValueError, match=r"not for torch\.func"):
        check_vmap(GumbelRao(0.5, None))


def test_the_memory_check_sees_a_square():
    with Largest() as largest:
        torch.zeros(500, 1) @ torch.zeros(1, 500)
    assert largest.elements == 250_000

"""as_loss: modules and functions of one batch axis keep the contract of f, and say what is wrong.

The truth is a loop: the module, in eval mode, called with one x at a time.
"""

import copy
import doctest
import functools
import itertools
import pickle
import threading
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlab
from gradlab.loss import LossError, adapted, gradient
from gradlab.loss.adapted import as_loss

pytestmark = pytest.mark.usefixtures("unchecked")

N, C = 4, 3
F64 = torch.float64
BATCHES = [(), (1,), (5,), (2, 3), (3, 1, 2)]


class Attention(nn.Module):
    """A transformer layer with dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(C, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))).mean(1)


class Tied(nn.Module):
    """A tied autoencoder: the decoder uses the weights of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(N * C, 5, bias=False)
        self.again = self.encoder

    def forward(self, x: Tensor) -> Tensor:
        return (self.encoder(x).tanh() @ self.again.weight - x).square().sum(-1)


def in_place() -> nn.Module:
    return nn.Sequential(nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Linear(N * C, 1))


def normalized() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(N * C, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 1)
    ).double()
    for _ in range(3):  # statistics of some training
        net(torch.randn(20, N * C, dtype=F64) + 1)
    return net


# Modules in training mode, the arguments of as_loss, and what one x [N, C] is worth.
CASES = {
    "Conv1d": (
        lambda: nn.Conv1d(C, 2, 2),
        {"layout": "C N", "reduce": "sum"},
        lambda m, x: m(x.T[None]).sum(),
    ),
    "Conv2d": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, N)), nn.Conv2d(1, 2, 2), nn.Tanh()),
        {"reduce": "mean"},
        lambda m, x: m[1](x[None, None]).tanh().mean(),
    ),
    "LSTM": (
        lambda: nn.LSTM(C, 4, num_layers=2, dropout=0.5, batch_first=True),
        {"output": 0, "reduce": "sum"},
        lambda m, x: m(x[None])[0].sum(),
    ),
    "state of the LSTM": (
        lambda: nn.LSTM(C, 4, batch_first=True),
        {"output": lambda result: result[1][0][-1], "reduce": "sum"},
        lambda m, x: m(x[None])[0][0, -1].sum(),
    ),
    "attention": (
        lambda: Attention(),
        {},
        lambda m, x: m(x[None]).squeeze(),
    ),
    "BatchNorm and dropout": (
        normalized,
        {"layout": "flat"},
        lambda m, x: m(x.reshape(1, -1)).squeeze(),
    ),
    "tied weights": (Tied, {"layout": "flat"}, lambda m, x: m(x.reshape(1, -1)).squeeze()),
    "works in place": (
        in_place,
        {"layout": "flat"},
        lambda m, x: m(x.reshape(1, -1).clone()).squeeze(),
    ),
    "levels": (
        lambda: nn.Linear(N, 1),
        {"layout": "levels"},
        lambda m, x: m((x @ torch.arange(C, dtype=F64))[None]).squeeze(),
    ),
    "bound method": (
        lambda: Tied(),
        {"layout": "flat", "bound": "forward"},
        lambda m, x: m(x.reshape(1, -1)).squeeze(),
    ),
}
cases = pytest.mark.parametrize(("make", "options", "alone"), CASES.values(), ids=list(CASES))


def module_of(make) -> nn.Module:
    torch.manual_seed(0)
    return make().double().train()


def loss_of(module: nn.Module, options: dict):
    options = dict(options)
    bound = options.pop("bound", None)
    return as_loss(getattr(module, bound) if bound else module, **options)


def draws(*batch: int) -> Tensor:
    """Return one-hot x [*batch, N, C]."""
    generator = torch.Generator().manual_seed(len(batch))
    return F.one_hot(torch.randint(C, (*batch, N), generator=generator), C).double()


def one_by_one(alone, x: Tensor) -> Tensor:
    """Return alone(x[i]) for each place i of the batch."""
    values = x.new_empty(x.shape[:-2])
    for place in itertools.product(*map(range, x.shape[:-2])):
        values[place] = alone(x[place])
    return values


# The values and the gradients are those of single x.


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@cases
@pytest.mark.few(17)
def test_values_are_those_of_single_x(make, options, alone, batch):
    module = module_of(make)
    f, x = loss_of(module, options), draws(*batch)
    before = x.clone()
    with torch.no_grad():
        expected = one_by_one(functools.partial(alone, module.eval()), x)
    torch.testing.assert_close(f(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@cases
def test_gradients_are_those_of_single_x(make, options, alone):
    module = module_of(make)
    x = 0.8 * draws(2, 3) + 0.05  # away from kinks
    v = gradient(loss_of(module, options), x)
    module.eval()
    for place in itertools.product(range(2), range(3)):
        one = x[place].clone().requires_grad_()
        (expected,) = torch.autograd.grad(alone(module, one), one)
        torch.testing.assert_close(v[place], expected, rtol=1e-10, atol=1e-12)


@cases
def test_the_callers_module_stays_as_it_is(make, options, alone):
    module = module_of(make)
    module.requires_grad_(True)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    state = copy.deepcopy(module.state_dict())
    f = loss_of(module, options)
    gradient(f, draws(5) * 0.9)
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and (p.grad == 1).all() for p in module.parameters())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert not f(draws(5)).requires_grad  # the copy is frozen


@cases
def test_later_training_does_not_reach_the_loss(make, options, alone):
    module = module_of(make)
    f, x = loss_of(module, options), draws(3)
    before = f(x)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1)
    torch.testing.assert_close(f(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [1, 2, 7, None])
@cases
@pytest.mark.few(14)
def test_chunks_change_nothing(make, options, alone, chunk):
    module, x = module_of(make), draws(2, 3)
    expected = loss_of(module, options)(x)
    f = loss_of(module, options | {"chunk": chunk})
    torch.testing.assert_close(f(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
@cases
def test_an_empty_batch_has_no_values(make, options, alone, batch):
    values = loss_of(module_of(make), options)(torch.zeros(*batch, N, C, dtype=F64))
    assert values.shape == batch
    assert values.dtype == F64


@pytest.mark.parametrize(("chunk", "largest"), [(4, 4), (None, 2**20 // (N * C))])
def test_rows_of_one_call_are_bounded(chunk, largest):
    seen = []

    def function(x):
        seen.append(len(x))
        return x.sum((-2, -1))

    as_loss(function, chunk=chunk)(torch.zeros(largest + 2, N, C))
    assert seen == [largest, 2]


def test_the_exact_gradient_and_pickles():
    f = as_loss(nn.Conv1d(C, 1, 2).double(), layout="C N", reduce="mean")
    logits = torch.randn(N, C, dtype=F64)
    g = gradlab.exact_gradient(f, logits)
    torch.testing.assert_close(
        gradlab.exact_gradient(pickle.loads(pickle.dumps(f)), logits), g, rtol=0, atol=0
    )


def test_the_example_runs():
    assert doctest.testmod(adapted).attempted == 4
    assert doctest.testmod(adapted).failed == 0


def test_vmap_passes():
    f = as_loss(module_of(Tied), layout="flat")
    x = draws(5)
    torch.testing.assert_close(torch.func.vmap(f)(x), f(x))


# What else can be called.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_x_is_cast_to_the_dtype_of_the_module(dtype):
    net = nn.Linear(N * C, 1).to(dtype)
    f, x = as_loss(net, layout="flat"), draws(2, 3)
    assert f(x).dtype == dtype
    v = gradient(f, x)
    assert v.dtype == F64
    torch.testing.assert_close(v[0, 1], net.weight.detach().double().reshape(N, C))


def test_a_module_without_parameters_takes_x_as_it_is():
    assert as_loss(nn.Flatten(), reduce="sum")(draws(2)).dtype == F64


def test_classes_are_looked_up():
    net = nn.EmbeddingBag(C, 1, mode="sum").double()
    f, x = as_loss(net, layout="classes"), draws(2, 3)
    expected = one_by_one(lambda one: net.weight[one.argmax(-1)].sum(), x)
    torch.testing.assert_close(f(x), expected)
    with pytest.raises(gradlab.loss.NotDifferentiableError):
        gradient(f, x)


def test_plain_functions_are_called_as_they_are():
    weight = torch.randn(N * C, dtype=F64, requires_grad=True)
    f = as_loss(lambda x: (x.flatten(1) @ weight).squeeze())
    x = draws(2, 3)
    torch.testing.assert_close(f(x), (x.flatten(-2) @ weight))
    assert f(x[0, 0]).shape == ()
    assert f(x).requires_grad


def test_partial_functions_and_their_modules():
    net = module_of(normalized)

    def scaled(x, inner, factor):
        return factor * inner(x)

    f = as_loss(functools.partial(scaled, inner=net, factor=2), layout="flat")
    x = draws(5)
    assert net.training
    torch.testing.assert_close(f(x), 2 * net.eval()(x.flatten(1)).squeeze(1))


def test_two_losses_of_one_module_do_not_meet():
    trunk = nn.Linear(N * C, 3).double()
    one, two = nn.Sequential(trunk, nn.Linear(3, 1).double()), nn.Sequential(trunk, nn.Tanh())
    f, g = as_loss(one, layout="flat"), as_loss(two, layout="flat", reduce="sum")
    x = draws(3)
    torch.testing.assert_close(f(x), one(x.flatten(1))[:, 0])
    torch.testing.assert_close(g(x), two(x.flatten(1)).sum(1))


def test_tied_weights_stay_tied():
    f = as_loss(Tied(), layout="flat")
    assert f.module.encoder is f.module.again


def test_a_mean_over_the_batch_is_right_row_by_row():
    f = as_loss(lambda x: x.square().mean(), chunk=1)
    x = torch.rand(2, 3, N, C)
    torch.testing.assert_close(f(x), x.square().mean((-2, -1)))


# Targets.

CROSS_ENTROPY = functools.partial(F.cross_entropy, reduction="none")
MSE = functools.partial(F.mse_loss, reduction="none")


@pytest.mark.parametrize("chunk", [1, 3, 4, None])
@pytest.mark.parametrize("batch", [(4,), (2, 4), (3, 1, 4), (4, 4), (0, 4)], ids=str)
def test_each_row_meets_its_target(batch, chunk):
    net = nn.Linear(N * C, 5).double()
    targets = torch.tensor([3, 0, 4, 1])
    f = as_loss(net, layout="flat", target=targets, loss=CROSS_ENTROPY, chunk=chunk)
    x = draws(*batch)
    expected = x.new_empty(batch)
    for place in itertools.product(*map(range, batch)):
        expected[place] = F.cross_entropy(net(x[place].flatten()), targets[place[-1]])
    torch.testing.assert_close(f(x), expected)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("target", [torch.tensor(3), torch.tensor([3])], ids=["[]", "[1]"])
def test_one_target_is_for_all(batch, target):
    net = nn.Linear(N * C, 5).double()
    f = as_loss(net, layout="flat", target=target, loss=CROSS_ENTROPY)
    x = draws(*batch)
    expected = one_by_one(lambda one: F.cross_entropy(net(one.flatten()), torch.tensor(3)), x)
    torch.testing.assert_close(f(x), expected)


def test_float32_targets_of_several_axes_meet_a_float64_module():
    images = torch.rand(2, 1, 6)
    net = nn.Sequential(nn.Linear(N * C, 6), nn.Unflatten(1, (1, 6))).double()
    f = as_loss(net, layout="flat", target=images, loss=MSE, reduce="sum")
    x = draws(3, 2)
    expected = (net[0](x.flatten(-2)) - images[:, 0].double()).square().sum(-1)
    torch.testing.assert_close(f(x), expected)
    assert gradient(f, x).shape == x.shape


def test_inputs_are_the_second_argument():
    net = nn.Bilinear(N * C, 2, 1).double()
    inputs = torch.rand(3, 2)
    f = as_loss(net, layout="flat", target=inputs)
    x = draws(2, 3)
    expected = net(x.flatten(-2), inputs.double().expand(2, 3, 2))[..., 0]
    torch.testing.assert_close(f(x), expected)


def test_the_target_is_kept():
    target = torch.zeros(1, N * C, dtype=F64)
    f = as_loss(nn.Flatten(), target=target, loss=MSE, reduce="sum")
    target += 1
    torch.testing.assert_close(f(draws()), torch.tensor(float(N), dtype=F64))


def test_the_loss_may_be_a_module_with_dropout():
    loss = nn.Bilinear(N * C, N * C, 1).double()
    f = as_loss(nn.Flatten(), target=torch.ones(1, N * C), loss=loss)
    assert f.loss is not loss
    assert not f.loss.training


@pytest.mark.parametrize("batch", [(), (3,), (4, 1), (4, 3)], ids=str)
def test_sizes_that_do_not_match_are_refused(batch):
    f = as_loss(nn.Flatten(), target=torch.zeros(4, N * C), loss=MSE, reduce="sum")
    with pytest.raises(LossError, match=r"there are 4 targets, so x must have shape \[..., 4, N"):
        f(torch.zeros(*batch, N, C))


# Results that are no tensor.


class Named(NamedTuple):
    loss: Tensor
    logits: Tensor


RESULTS = {
    "tuple": (lambda x: (x.sum(-1), 1), 0, "a tuple of 2"),
    "namedtuple": (lambda x: Named(x.mean(), x.sum(-1)), 1, "a Named of 2"),
    "dict": (lambda x: {"logits": x.sum(-1)}, "logits", "a dict with the keys 'logits'"),
    "object": (
        lambda x: SimpleNamespace(logits=x.sum(-1)),
        "logits",
        "SimpleNamespace with the attributes 'logits'",
    ),
}


@pytest.mark.parametrize(("function", "output", "shown"), RESULTS.values(), ids=list(RESULTS))
def test_output_selects(function, output, shown):
    x = draws(2, 3)
    f = as_loss(function, output=output, layout="flat")
    torch.testing.assert_close(f(x), x.sum((-2, -1)))
    with pytest.raises(LossError, match=f"returns .*{shown}.*output=, such as"):
        as_loss(function, layout="flat")(x)
    with pytest.raises(LossError, match=f"{shown}.*has no part 'absent'"):
        as_loss(function, output="absent", layout="flat")(x)


def test_the_mean_loss_of_a_result_is_refused():
    f = as_loss(lambda x: SimpleNamespace(loss=x.mean(), logits=x.sum(1)), output="loss")
    with pytest.raises(LossError, match=r"one number for 5 rows.*reduction=.none.*output="):
        f(draws(5))


# What is refused.


class Locked(nn.Linear):
    """A module that cannot be copied."""

    def __init__(self) -> None:
        super().__init__(N * C, 1, dtype=F64)
        self.lock = threading.Lock()


class Itself(nn.Linear):
    """A module that is its own copy."""

    def __deepcopy__(self, memo: dict) -> "Itself":
        return self


BAD_MODULES = {
    "not a function": (3, TypeError, "an nn.Module or a function, not 3"),
    "class": (nn.Linear, TypeError, "not <class .*Linear'>"),
    "lock": (Locked(), ValueError, r"Locked cannot be copied \(TypeError.*lambda x: module\(x\)"),
    "itself": (Itself(2, 2), ValueError, "Itself cannot be copied"),
    "lazy": (nn.LazyLinear(1), ValueError, "call it once"),
    "statistics of the batch": (
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)),
        ValueError,
        "^1 is a BatchNorm1d with track_running_stats=False.*LayerNorm",
    ),
}


@pytest.mark.parametrize(("module", "kind", "message"), BAD_MODULES.values(), ids=list(BAD_MODULES))
def test_bad_modules(module, kind, message):
    with pytest.raises(kind, match=message):
        as_loss(module)


def test_what_a_module_keeps_of_its_last_call_is_no_obstacle():
    class Keeping(nn.Linear):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    module = Keeping(N * C, 1).double()
    x = draws(3)
    last = module(x.flatten(1))
    f = as_loss(module, layout="flat")
    torch.testing.assert_close(f(x + 1), module(x.flatten(1) + 1)[:, 0])
    assert last.grad_fn is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_traced_modules():
    net = nn.Sequential(nn.Linear(N * C, 3), nn.Dropout(0.5), nn.Linear(3, 1)).double()
    x = draws(2, 3)
    f = as_loss(torch.jit.trace(net.eval(), x.flatten(-2)[0]), layout="flat")
    torch.testing.assert_close(f(x), net(x.flatten(-2))[..., 0])


@pytest.mark.parametrize(
    "norm",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
    ids=["weight norm", "spectral norm"],
)
def test_reparametrized_modules(norm):
    module = norm(nn.Linear(N * C, 1).double())
    f, x = as_loss(module, layout="flat"), draws(2, 3)
    torch.testing.assert_close(f(x), f(x), rtol=0, atol=0)
    torch.testing.assert_close(f(x), module.eval()(x.flatten(-2))[..., 0])


def test_the_way_out_of_what_cannot_be_copied():
    module = Locked()
    x = draws(2, 3)
    expected = module(x.flatten(-2))[..., 0]
    torch.testing.assert_close(as_loss(lambda x: module(x), layout="flat")(x), expected)


BAD_ARGUMENTS = [
    ({"layout": "NC"}, ValueError, "layout must be one of N C, C N, flat.*not 'NC'"),
    ({"reduce": "max"}, ValueError, "reduce must be 'sum', 'mean' or None"),
    ({"chunk": 0}, ValueError, "chunk must be a positive integer, not 0"),
    ({"chunk": True}, ValueError, "chunk must be a positive integer"),
    ({"target": [1]}, TypeError, "target must be a torch.Tensor, not list"),
    ({"loss": MSE}, ValueError, "give target="),
    ({"output": [0]}, TypeError, "output must be a key, an index or a function"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_ARGUMENTS)
def test_bad_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        as_loss(nn.Flatten(), **options)


BAD_RESULTS = {
    "mean": (lambda x: x.mean(), {}, "one number for 5 rows: it reduces over the batch"),
    "mean loss": (
        lambda x: x,
        {"target": torch.zeros(1, N, C), "loss": lambda a, b: (a - b).mean()},
        "loss returns one number for 5 rows",
    ),
    "many values": (
        lambda x: x,
        {},
        r"shape \[5, 4, 3\] for 5 rows, not one value a row; give red",
    ),
    "time first": (lambda x: x.transpose(0, 1), {"reduce": "sum"}, "batch_first=True"),
    "integers": (lambda x: x.argmax(-1), {}, "floating-point tensor, not torch.int64"),
    "nothing": (lambda x: None, {}, "an object of type NoneType, not a tensor"),
    "index of a tensor": (lambda x: x, {"output": 0}, "returns a tensor, which has no part 0"),
    "bad selection": (lambda x: x, {"output": lambda y: [y]}, "a list of 1 as output="),
}


@pytest.mark.parametrize(
    ("function", "options", "message"), BAD_RESULTS.values(), ids=list(BAD_RESULTS)
)
def test_bad_results(function, options, message):
    with pytest.raises(LossError, match=message):
        as_loss(function, **options)(draws(5))


def test_x_without_a_class_axis():
    with pytest.raises(ValueError, match=r"x must have shape \[..., N, C\], not \[3\]"):
        as_loss(nn.Flatten())(torch.zeros(3))

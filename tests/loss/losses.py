"""Losses that break the contract of f, each by one named fault, and correct ones that look odd.

The gate must refuse every entry of FAULTY by the name of its fault, and none of CORRECT. Each entry
makes its loss anew for logits [2, 3] in float64, and says which logits are passed with it.
"""

import collections
import functools
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab.loss.adapted import as_loss

__all__ = ["CORRECT", "FAULTY", "N_CLASSES", "N_VARIABLES", "CorrectLoss", "FaultyLoss"]

N_VARIABLES, N_CLASSES = N, C = 2, 3
F64 = torch.float64

Make = Callable[[Tensor], tuple[Callable[[Tensor], Tensor], Tensor]]


@dataclass(frozen=True)
class FaultyLoss:
    """A loss that breaks the contract.

    `make(logits)` returns f and the logits to pass with it. `error` is the name of the class of the
    error, `phrase` stands in its message in lower case. Where `in_gradient`, the values are in
    order, and only the gradient in x shows the fault.
    """

    name: str
    make: Make
    error: str
    phrase: str
    in_gradient: bool = False


@dataclass(frozen=True)
class CorrectLoss:
    """A loss that keeps the contract; `tolerance` is the relative rounding of its own dtype.

    `batch` is the batch shape of the logits to pass: f then has one objective for each element.
    """

    name: str
    make: Make
    differentiable: bool = True
    tolerance: float = 1e-9
    batch: tuple[int, ...] = ()


FAULTY: list[FaultyLoss] = []
CORRECT: list[CorrectLoss] = []


def _weights(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


W = _weights(N, C)


def linear(x: Tensor) -> Tensor:
    """Return <W, x>, in the dtype of x: what most entries add their fault to."""
    return (W.to(x.dtype) * x).sum((-2, -1))


def _net(*layers: nn.Module, dtype: torch.dtype = F64) -> nn.Sequential:
    """Return a net [..., N, C] -> [..., 1] in training mode, its first layer of 6 units."""
    net = nn.Sequential(nn.Flatten(-2), nn.Linear(N * C, 6), *layers, nn.Linear(6, 1))
    return net.to(dtype)


def _rows(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `call`, which takes [R, N, C] only, for any batch shape: axes flattened by hand."""

    def f(x: Tensor) -> Tensor:
        return call(x.reshape(-1, N, C)).reshape(x.shape[:-2])

    return f


def _faulty(error: str, phrase: str, name: str, in_gradient: bool = False):
    """Add a loss: the decorated factory takes logits and returns f, or f and logits to pass."""
    return _adder(lambda make: FAULTY.append(FaultyLoss(name, make, error, phrase, in_gradient)))


def _correct(name: str, *, differentiable: bool = True, tolerance: float = 1e-9, batch=()):
    return _adder(
        lambda make: CORRECT.append(CorrectLoss(name, make, differentiable, tolerance, batch))
    )


def _adder(add):
    def decorate(factory):
        def make(logits: Tensor):
            with torch.random.fork_rng(devices=[]):  # the same modules every time
                torch.manual_seed(2)
                made = factory(logits)
            return made if isinstance(made, tuple) else (made, logits)

        add(make)
        return factory

    return decorate


def _faulty_functions(error: str, phrase: str, **functions: Callable[[Tensor], Tensor]) -> None:
    """Add functions without a state of their own; the names of the entries are the keywords."""
    for name, f in functions.items():
        _faulty(error, phrase, name.replace("_", " "))(lambda logits, f=f: f)


def _correct_functions(**functions: Callable[[Tensor], Tensor]) -> None:
    for name, f in functions.items():
        _correct(name.replace("_", " "))(lambda logits, f=f: f)


# It returns no floating tensor.

_faulty_functions("LossTypeError", "float", a_Python_number=lambda x: float(linear(x).sum()))
_faulty_functions("LossTypeError", "int64", integers=lambda x: x.argmax(-1).sum(-1))
_faulty_functions("LossTypeError", "bool", truth_values=lambda x: linear(x) > 0)
_faulty_functions("LossTypeError", "complex", complex_numbers=lambda x: linear(x) * 1j)
_faulty_functions("LossTypeError", "none", nothing=lambda x: None)
_faulty_functions("LossTypeError", "tuple", a_tuple=lambda x: (linear(x), x))
_faulty_functions("LossTypeError", "dict", a_dictionary=lambda x: {"loss": linear(x)})
_faulty_functions("LossTypeError", "list", a_list=lambda x: [*linear(x).tolist(), 0.0])
_faulty_functions("LossTypeError", "ndarray", numpy_values=lambda x: linear(x).detach().numpy())


# The shape is wrong, or only one batch axis is taken.

_faulty_functions(
    "LossShapeError",
    "batch",
    mean_over_the_batch=lambda x: linear(x).mean(),
    sum_over_everything=lambda x: x.square().sum(),
)
_faulty_functions(
    "LossShapeError",
    "shape",
    keeps_an_axis=lambda x: linear(x)[..., None],
    one_value_a_variable=lambda x: (W.to(x.dtype) * x).sum(-1),
    returns_x=lambda x: x,
    one_axis_too_many_in_front=lambda x: linear(x)[None],
)


@_faulty("LossShapeError", "batch", "mean squared error of torch")
def _(logits):
    return lambda x: F.mse_loss(x, torch.zeros_like(x))


@_faulty("LossShapeError", "as_loss", "Conv1d")
def _(logits):
    conv = nn.Conv1d(C, 1, 2).double()
    return lambda x: conv(x.transpose(-2, -1)).squeeze((-2, -1))


@_faulty("LossShapeError", "as_loss", "LSTM")
def _(logits):
    lstm = nn.LSTM(C, 4, batch_first=True).double()
    return lambda x: lstm(x)[0].sum((-2, -1))


@_faulty("LossShapeError", "as_loss", "attention")
def _(logits):
    attention = nn.MultiheadAttention(C, 1, batch_first=True).double().eval()
    return lambda x: attention(x, x, x)[0].sum((-2, -1))


@_faulty("LossShapeError", "as_loss", "BatchNorm in eval mode")
def _(logits):
    net = _net(nn.BatchNorm1d(6)).eval()
    return lambda x: net(x).squeeze(-1)


@_faulty("LossShapeError", "as_loss", "flatten from the second axis")
def _(logits):
    linear_layer = nn.Linear(N * C, 1).double()
    return lambda x: linear_layer(x.flatten(1)).squeeze(-1)


@_faulty("LossShapeError", "as_loss", "view by the length")
def _(logits):
    weight = _weights(N * C)
    return lambda x: x.reshape(len(x), -1) @ weight


@_faulty("LossShapeError", "as_loss", "einsum with one batch axis")
def _(logits):
    return lambda x: torch.einsum("bnc,nc->b", x, W)


@_faulty("LossShapeError", "as_loss", "cross entropy of a batch of targets")
def _(logits):
    net = nn.Sequential(nn.Flatten(-2), nn.Linear(N * C, 4)).double()

    def f(x):
        target = torch.zeros(len(x), dtype=torch.long)
        return F.cross_entropy(net(x), target, reduction="none")

    return f


# It fails in the dtype of x.


@_faulty("LossDtypeError", "float64", "float32 net")
def _(logits):
    net = _net(nn.Tanh(), dtype=torch.float32)
    return lambda x: net(x).squeeze(-1)


@_faulty("LossDtypeError", "float64", "float32 weight")
def _(logits):
    weight = W.float().flatten()
    return lambda x: x.flatten(-2) @ weight


@_faulty("LossDtypeError", "float64", "float16 einsum")
def _(logits):
    weight = W.half()
    return lambda x: torch.einsum("...nc,nc->...", x, weight)


@_faulty("LossDtypeError", "dtype", "bfloat16 net")
def _(logits):
    net = _net(nn.LayerNorm(6), dtype=torch.bfloat16)
    return lambda x: net(x).squeeze(-1)


@_faulty("LossDtypeError", "float32", "float64 net with float32 logits")
def _(logits):
    net = _net(nn.Tanh())
    return (lambda x: net(x).squeeze(-1)), logits.float()


# NaN and infinity.

_faulty_functions(
    "NotFiniteError",
    "inf",
    log_of_zero=lambda x: x[..., 0].log().sum(-1),
    overflow=lambda x: (1000 * x[..., 0]).exp().sum(-1),
    infinite_at_one_state=lambda x: linear(x) + torch.where(x[..., 2].prod(-1) > 0.5, torch.inf, 0),
)
_faulty_functions(
    "NotFiniteError",
    "nan",
    zero_over_zero=lambda x: (x - x).sum((-2, -1)) / (x - x).sum((-2, -1)),
    entropy_of_a_one_hot=lambda x: -(x * x.log()).sum((-2, -1)),
    root_of_a_negative=lambda x: (x[..., 0].sum(-1) - 1).sqrt(),
)
_faulty("NotFiniteError", "grad", "gradient of a root at zero", in_gradient=True)(
    lambda logits: lambda x: x.sqrt().sum((-2, -1))
)
_faulty("NotFiniteError", "grad", "gradient of a log behind where", in_gradient=True)(
    lambda logits: lambda x: torch.where(x > 0, x.log(), 0.0).sum((-2, -1))
)


# Random numbers of torch, numpy or Python.

_faulty_functions(
    "RandomLossError",
    "random",
    noise_of_torch=lambda x: linear(x) + torch.randn(x.shape[:-2], dtype=x.dtype),
    small_noise=lambda x: linear(x) * (1 + 1e-4 * torch.randn(x.shape[:-2], dtype=x.dtype)),
    one_number_for_the_batch=lambda x: linear(x) * torch.rand((), dtype=x.dtype),
    noise_of_numpy=lambda x: linear(x) + np.random.rand(),  # noqa: NPY002
    noise_of_Python=lambda x: linear(x) + random.gauss(0, 1),
    noise_at_some_states=lambda x: (
        linear(x) + x[..., 0, 0] * torch.randn(x.shape[:-2], dtype=x.dtype)
    ),
    Gumbel_softmax_inside=lambda x: linear(F.gumbel_softmax(3 * x, tau=0.7)),
    a_random_choice_of_terms=lambda x: linear(x) if random.random() < 0.5 else -linear(x),
    normal_latent=lambda x: torch.normal(x, 0.1).square().sum((-2, -1)),
    a_random_minibatch=lambda x: linear(x) + torch.arange(100.0)[torch.randperm(100)[:5]].mean(),
)
_faulty_functions(
    "RandomLossError",
    "eval",
    functional_dropout=lambda x: linear(F.dropout(x + 1)),
)


@_faulty("RandomLossError", "eval", "dropout in training mode")
def _(logits):
    net = _net(nn.Dropout(0.5))
    return lambda x: net(x).squeeze(-1)


@_faulty("RandomLossError", "eval", "transformer layer in training mode")
def _(logits):
    layer = nn.TransformerEncoderLayer(C, 1, 6, dropout=0.3, batch_first=True).double()
    return _rows(lambda x: (layer(x) * W).sum((-2, -1)))


@_faulty("RandomLossError", "eval", "random slopes in training mode")
def _(logits):
    net = _net(nn.RReLU(0.1, 0.9))
    return lambda x: net(x).squeeze(-1)


@_faulty("RandomLossError", "random", "noise while gradients are recorded")
def _(logits):
    return lambda x: linear(x) + (0.1 * torch.randn(()) if x.requires_grad else 0.0)


# Its values depend on whether gradients are recorded.


@_faulty("GradientModeError", "no_grad", "a penalty while gradients are recorded")
def _(logits):
    return lambda x: linear(x) + (0.1 * x[..., 0, 0] if torch.is_grad_enabled() else 0.0)


@_faulty("GradientModeError", "no_grad", "rounded where no gradient is needed")
def _(logits):
    return lambda x: linear(x) if x.requires_grad else linear(x).round()


# It changes from call to call, without random numbers that the global generators know.


@_faulty("StatefulLossError", "call", "counter")
def _(logits):
    calls = itertools.count()
    return lambda x: linear(x) + 1e-3 * next(calls)


@_faulty("StatefulLossError", "call", "sign that alternates")
def _(logits):
    signs = itertools.cycle([1, -1])
    return lambda x: linear(x) * next(signs)


@_faulty("StatefulLossError", "call", "annealed weight")
def _(logits):
    step = itertools.count(1)

    def f(x):
        beta = min(1.0, next(step) / 1000)
        return linear(x) + beta * x.square().sum((-2, -1))

    return f


@_faulty("StatefulLossError", "call", "next minibatch")
def _(logits):
    batches = itertools.cycle(_weights(3, N, C))
    return lambda x: (x - next(batches)).square().sum((-2, -1))


@_faulty("StatefulLossError", "call", "moving average")
def _(logits):
    average = torch.zeros((), dtype=F64)

    def f(x):
        values = linear(x)
        average.mul_(0.9).add_(0.1 * (values.detach().mean() + 1))
        return values - average

    return f


@_faulty("StatefulLossError", "call", "difference to the last call")
def _(logits):
    last = collections.deque([0.0], maxlen=1)

    def f(x):
        values = linear(x)
        before = last[0]
        last.append(float(values.detach().mean()) + 1)
        return values - before

    return f


@_faulty("StatefulLossError", "call", "running statistics of a module")
def _(logits):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones((), dtype=F64))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.scale.mul_(0.9).add_(0.01)
            return linear(x) / self.scale

    return Scaled()


@_faulty("StatefulLossError", "call", "spectral norm in training mode")
def _(logits):
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(N * C, 8).double())
    return lambda x: layer(x.flatten(-2)).sum(-1)


@_faulty("StatefulLossError", "call", "generator of its own")
def _(logits):
    own = torch.Generator().manual_seed(0)
    return lambda x: linear(x) + torch.randn(x.shape[:-2], generator=own, dtype=x.dtype)


@_faulty("StatefulLossError", "call", "numpy generator of its own")
def _(logits):
    own = np.random.default_rng(0)
    return lambda x: linear(x) * own.random()


@_faulty("StatefulLossError", "call", "Python generator of its own")
def _(logits):
    own = random.Random(0)
    return lambda x: linear(x) + own.random()


@_faulty("StatefulLossError", "call", "clock")
def _(logits):
    start = time.perf_counter_ns()
    return lambda x: linear(x) + 1e-4 * (time.perf_counter_ns() - start)


@_faulty("StatefulLossError", "call", "weights trained at every call")
def _(logits):
    weight = W.clone()

    def f(x):
        values = (weight * x).sum((-2, -1))
        weight.mul_(0.99)
        return values

    return f


@_faulty("StatefulLossError", "call", "cache by shape")
def _(logits):
    known: dict[torch.Size, Tensor] = {}
    return lambda x: known.setdefault(x.shape, linear(x).detach())


@_faulty("StatefulLossError", "call", "first value of the first call is a baseline")
def _(logits):
    baselines: list[float] = []

    def f(x):
        values = linear(x)
        before = sum(baselines)
        if not baselines:
            baselines.append(1.0 + float(values.detach().max()))
        return values - before

    return f


# It depends on the other x of the batch, on the place in it, or on its shape.


@_faulty("BatchDependentError", "eval", "BatchNorm in training mode")
def _(logits):
    net = _net(nn.BatchNorm1d(6))
    return _rows(lambda x: net(x).squeeze(-1))


@_faulty("BatchDependentError", "eval", "BatchNorm2d in training mode")
def _(logits):
    norm = nn.BatchNorm2d(1).double()  # works on a single x, too
    return _rows(lambda x: (W * norm((W * x)[:, None])[:, 0]).square().sum((-2, -1)))


@_faulty("BatchDependentError", "batch", "BatchNorm without running statistics")
def _(logits):
    norm = nn.BatchNorm2d(1, track_running_stats=False).double().eval()
    return _rows(lambda x: (W * norm((W * x)[:, None])[:, 0]).square().sum((-2, -1)))


@_faulty("BatchDependentError", "batch", "LSTM whose time axis is the batch")
def _(logits):
    lstm = nn.LSTM(C, 4).double()
    return _rows(lambda x: lstm(x)[0].sum((-2, -1)))


@_faulty("BatchDependentError", "batch", "attention over the batch")
def _(logits):
    def attend(x):
        rows = x.flatten(1)
        return linear(((rows @ rows.T).softmax(-1) @ rows).unflatten(1, (N, C)))

    return _rows(attend)


def _by_flat(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the loss that changes the values [R] of all x of the batch together."""
    return lambda x: change(linear(x).reshape(-1)).reshape(x.shape[:-2])


_faulty_functions(
    "BatchDependentError",
    "batch",
    minus_the_mean_of_the_batch=_by_flat(lambda v: v - v.mean()),
    x_minus_its_mean=lambda x: (x - x.mean(0)).square().sum((-2, -1)),
    normalized_advantages=_by_flat(lambda v: (v - v.mean()) / (v.std(correction=0) + 1e-3)),
    softmax_over_the_batch=_by_flat(lambda v: v.softmax(0)),
    over_the_largest=_by_flat(lambda v: v / v.abs().max()),
    ranks=_by_flat(lambda v: v.argsort().argsort().to(v.dtype)),
    sorted_values=_by_flat(lambda v: v.sort().values),
    cumulative_sum=_by_flat(lambda v: v.cumsum(0)),
    minus_the_first=_by_flat(lambda v: v - v[0]),
    mirrored_values=_by_flat(lambda v: v + v.flip(0)),
    values_in_reverse=_by_flat(lambda v: v.flip(0)),
    shifted_by_one=_by_flat(lambda v: v.roll(1)),
    over_the_number_of_x=_by_flat(lambda v: v / len(v)),
    a_target_for_each_place=_by_flat(lambda v: (v - torch.arange(len(v)) % 4).square()),
    padded_after_the_fourth=_by_flat(lambda v: torch.cat([v[:4], 0 * v[4:]])),
    times_the_number_of_axes=lambda x: linear(x) * x.ndim,
    contrast_in_the_batch=_rows(
        lambda x: (x.flatten(1) @ x.flatten(1).T).log_softmax(-1).diagonal() + linear(x)
    ),
    axes_mixed_by_a_reshape=lambda x: linear(
        x.reshape(-1, N, C).transpose(0, 1).reshape(-1, N, C).reshape(x.shape)
    ),
)


# Through its graph it depends on the logits, as a one-argument f.


def _kl(logits: Tensor) -> Tensor:
    return (logits.softmax(-1) * logits.log_softmax(-1)).sum()


class _Holder(nn.Module):
    """A model with its own logits, and the KL of these in the loss."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x: Tensor) -> Tensor:
        return linear(x) + _kl(self.logits)


def _holds(name: str):
    return _faulty("HoldsLogitsError", "logits", name)


@_holds("KL of the same tensor")
def _(logits):
    logits = logits.clone().requires_grad_()
    return (lambda x: linear(x) + _kl(logits)), logits


@_holds("log-probability of x")
def _(logits):
    logits = logits.clone().requires_grad_()
    return (lambda x: linear(x) + (x * logits.log_softmax(-1)).sum((-2, -1))), logits


@_holds("importance weight")
def _(logits):
    logits = logits.clone().requires_grad_()

    def f(x):
        weight = (x * (W - logits).log_softmax(-1)).sum((-2, -1)).exp()
        return weight * linear(x)

    return f, logits


@_holds("entropy computed in advance")
def _(logits):
    logits = logits.clone().requires_grad_()
    entropy = -_kl(logits)
    return (lambda x: linear(x) + 0.1 * entropy), logits


@_holds("Parameter")
def _(logits):
    parameter = nn.Parameter(logits.clone())
    return (lambda x: linear(x) + _kl(parameter)), parameter


@_holds("Parameter that is passed detached")
def _(logits):
    parameter = nn.Parameter(logits.clone())
    return (lambda x: linear(x) + _kl(parameter)), parameter.detach()


@_holds("Parameter whose data is passed")
def _(logits):
    parameter = nn.Parameter(logits.clone())
    return (lambda x: linear(x) + _kl(parameter)), parameter.data


@_holds("a row of a Parameter that is passed detached")
def _(logits):
    table = nn.Parameter(torch.stack([logits, -logits, 2 * logits]))
    return (lambda x: linear(x) + _kl(table[1])), table[1].detach()


@_holds("module with the logits")
def _(logits):
    holder = _Holder(logits)
    return holder, holder.logits


@_holds("module with the logits, passed detached")
def _(logits):
    holder = _Holder(logits)
    return holder.forward, holder.logits.detach()


@_holds("logits of an encoder")
def _(logits):
    encoder = nn.Linear(4, N * C).double()
    encoded = encoder(_weights(4)).reshape(N, C)
    return (lambda x: linear(x) + _kl(encoded)), encoded


@_holds("log-probabilities of an encoder")
def _(logits):
    encoder = nn.Linear(4, N * C).double()
    encoded = encoder(_weights(4)).reshape(N, C)
    log_p = encoded.log_softmax(-1)
    return (lambda x: linear(x) - (x * log_p).sum((-2, -1))), encoded


@_holds("scale of the logits at one state only")
def _(logits):
    logits = logits.clone().requires_grad_()
    return (lambda x: linear(x) + x[..., 1].prod(-1) * logits.norm()), logits


# It writes into x.


def _masked(x: Tensor) -> Tensor:
    x[..., 0] = 0
    return linear(x)


def _as_numpy(x: Tensor) -> Tensor:
    table = x.detach().numpy()
    table += 1
    return linear(x)


def _transposed(x: Tensor) -> Tensor:
    x.transpose_(-1, -2)
    return (x * W.T).sum((-2, -1))


_faulty_functions(
    "ChangesInputError",
    "place",
    scaled_in_place=lambda x: linear(x.mul_(2)),
    masked_in_place=_masked,
    clamped_in_place=lambda x: linear(x.clamp_(0.1, 0.9)),
    ReLU_in_place=lambda x: linear(F.relu(x.sub_(0.5), inplace=True)),
    through_a_view=lambda x: linear(x.flatten(-2).add_(1).unflatten(-1, (N, C))),
    through_its_data=lambda x: linear(x) + 0 * linear(x.data.mul_(0.5)),
    after_detach=lambda x: linear(x) + x.detach().zero_().sum((-2, -1)),
    as_numpy=_as_numpy,
    softmax_into_x=lambda x: linear(torch.softmax(x.detach(), -1, out=x.detach())),
    transposed_in_place=_transposed,
)


@_faulty("ChangesInputError", "place", "first layer in place")
def _(logits):
    net = nn.Sequential(nn.Hardtanh(-0.5, 0.5, inplace=True), *_net(nn.Tanh()))
    return lambda x: net(x).squeeze(-1)


# Correct losses.

_correct_functions(
    quadratic=lambda x: (x - W.to(x.dtype)).square().sum((-2, -1)),
    linear=linear,
    large_offset=lambda x: linear(x) + 1e6,
    tiny_values=lambda x: 1e-12 * linear(x),
    values_of_1e_minus_300=lambda x: 1e-300 * linear(x),
    values_over_many_orders=lambda x: (20 * linear(x)).exp(),
    zero_at_all_states_but_one=lambda x: x[..., 1].prod(-1),
    sorted_over_classes=lambda x: (x + W.to(x.dtype)).sort(-1).values.cumsum(-1)[..., 0].sum(-1),
    sorted_over_variables=lambda x: (x.sort(-2).values * W.to(x.dtype)).sum((-2, -1)),
    a_view_of_x=lambda x: x[..., 0, 1],
    constant_with_a_graph=lambda x: 0 * x.sum((-2, -1)) + 3,
    softmax_over_classes=lambda x: (x + W.to(x.dtype)).softmax(-1)[..., 0].sum(-1),
    writes_into_its_copy=lambda x: _masked(x.clone()),
    checkpointed=lambda x: checkpoint(linear, x, use_reentrant=False).sin(),
    flattened_by_hand=_rows(lambda x: linear(x).cos()),
    loop_over_rows=lambda x: torch.stack(
        [(W * row).sum().sin() for row in x.reshape(-1, N, C)]
    ).reshape(x.shape[:-2]),
    vmapped=lambda x: torch.func.vmap(lambda one: (one * W).sum().exp())(
        x.reshape(-1, N, C)
    ).reshape(x.shape[:-2]),
    mean_over_variables_and_classes=lambda x: (x * W.to(x.dtype)).mean((-2, -1)),
    x_minus_its_mean_over_classes=lambda x: (x - x.mean(-1, keepdim=True)).pow(3).sum((-2, -1)),
    einsum=lambda x: torch.einsum("...nc,...md,nc,md->...", x, x, W, W),
)


@_correct("values without a gradient", differentiable=False)
def _(logits):
    def f(x):
        with torch.no_grad():
            return linear(x)

    return f


@_correct("constant without a graph", differentiable=False)
def _(logits):
    return lambda x: torch.ones(x.shape[:-2], dtype=x.dtype)


@_correct("expanded number", differentiable=False)
def _(logits):
    return lambda x: torch.tensor(2.5, dtype=x.dtype).expand(x.shape[:-2])


@_correct("embeddings by class", differentiable=False)
def _(logits):
    table = nn.Embedding(C, 2).double()
    return lambda x: table(x.argmax(-1)).square().sum((-2, -1)).detach()


@_correct("table of all states", differentiable=False)
def _(logits):
    table = _weights(C, C)
    return lambda x: table[tuple(x.argmax(-1).unbind(-1))]


@_correct("integers as numbers", differentiable=False)
def _(logits):
    return lambda x: x.argmax(-1).sum(-1).to(x.dtype)


@_correct("numpy inside", differentiable=False)
def _(logits):
    table = W.numpy()
    return lambda x: torch.as_tensor(np.sin((x.detach().numpy() * table).sum((-2, -1))))


@_correct("float32 net with float32 logits", tolerance=1e-4)
def _(logits):
    net = _net(nn.Tanh(), dtype=torch.float32)
    return (lambda x: net(x).squeeze(-1)), logits.float()


@_correct("float32 net inside a float64 loss", tolerance=1e-4)
def _(logits):
    net = _net(nn.Tanh(), dtype=torch.float32)
    return lambda x: net(x.float()).squeeze(-1).double()


@_correct("float32 values of float64 x", tolerance=1e-4)
def _(logits):
    return as_loss(_net(nn.GELU(), dtype=torch.float32))


@_correct("half precision inside", tolerance=1e-2)
def _(logits):
    weight = W.half()
    return lambda x: (weight * x.half()).tanh().double().sum((-2, -1))


@_correct("bfloat16 net by as_loss", tolerance=5e-2)
def _(logits):
    return as_loss(_net(nn.Tanh(), dtype=torch.bfloat16))


@_correct("module in training mode without anything random")
def _(logits):
    net = _net(nn.LayerNorm(6), nn.ReLU(inplace=True), nn.Dropout(0.0))
    return lambda x: net(x).squeeze(-1)


@_correct("LayerNorm")
def _(logits):
    net = _net(nn.LayerNorm(6), nn.GELU())
    return lambda x: net(x)[..., 0]


@_correct("GroupNorm by as_loss")
def _(logits):
    return as_loss(_net(nn.GroupNorm(2, 6), nn.Tanh()))


@_correct("BatchNorm and dropout in eval mode")
def _(logits):
    net = _net(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU())
    net(torch.rand(50, N, C, dtype=F64))
    return _rows(net.eval())


@_correct("BatchNorm and dropout in training mode by as_loss")
def _(logits):
    return as_loss(_net(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh()))


@_correct("Conv1d by as_loss")
def _(logits):
    return as_loss(nn.Conv1d(C, 2, 2).double(), layout="C N", reduce="sum")


@_correct("LSTM by as_loss")
def _(logits):
    return as_loss(nn.LSTM(C, 4, batch_first=True).double(), output=0, reduce="sum")


@_correct("transformer layer by as_loss")
def _(logits):
    layer = nn.TransformerEncoderLayer(C, 1, 6, dropout=0.3, batch_first=True).double()
    return as_loss(nn.Sequential(layer, nn.Linear(C, 1).double()), reduce="mean")


@_correct("one target by as_loss")
def _(logits):
    net = nn.Linear(N * C, 4).double()
    cross_entropy = nn.CrossEntropyLoss(reduction="none")
    return as_loss(net, layout="flat", target=torch.tensor([2]), loss=cross_entropy)


@_correct("a target for each element of the logits", batch=(4,))
def _(logits):
    net = nn.Linear(N * C, 4).double()
    cross_entropy = functools.partial(F.cross_entropy, reduction="none")
    f = as_loss(net, layout="flat", target=torch.tensor([2, 0, 1, 3]), loss=cross_entropy)
    return f, torch.stack([logits, -logits, 2 * logits, logits + 1])


class _Cubed(torch.autograd.Function):
    """x ** 3, with a backward of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *grads):
        (x,) = ctx.saved_tensors
        return grads[0] * 3 * x**2


@_correct("autograd function of its own")
def _(logits):
    return lambda x: _Cubed.apply(x + W.to(x.dtype)).sum((-2, -1))


@_correct("generator that is seeded at every call")
def _(logits):
    def f(x):
        own = torch.Generator().manual_seed(5)
        return linear(x * torch.rand(N, C, generator=own, dtype=x.dtype))

    return f


@_correct("global seed inside a fork")
def _(logits):
    def f(x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(6)
            noise = torch.randn(10, N, C, dtype=x.dtype)
        return (x[..., None, :, :] + noise).square().sum((-2, -1)).mean(-1)

    return f


@_correct("random numbers that change nothing")
def _(logits):
    def f(x):
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return linear(x) + 0 * noise

    return f


@_correct("counts its calls")
def _(logits):
    calls = collections.Counter()

    def f(x):
        calls[x.shape] += 1
        return linear(x)

    return f


@_correct("cache of the values of a state", differentiable=False)
def _(logits):
    @functools.cache
    def value(classes):
        return float(W[range(N), classes].sum())

    def f(x):
        rows = x.argmax(-1).reshape(-1, N).tolist()
        values = [value(tuple(row)) for row in rows]
        return torch.tensor(values, dtype=x.dtype).reshape(x.shape[:-2])

    return f


class _Autoencoder(nn.Module):
    """A VAE in training mode: BatchNorm and dropout in the encoder only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, N * C)
        )
        self.decoder = nn.Sequential(nn.Flatten(-2), nn.Linear(N * C, 4))
        self.double()

    def loss(self, x: Tensor) -> Tensor:
        return (self.decoder(x) - 1).square().sum(-1)


@_correct("decoder of a model whose encoder trains")
def _(logits):
    model = _Autoencoder()
    return (lambda x: (model.decoder(x) - 0.5).square().sum(-1)), logits


@_correct("bound method of a model, logits of its encoder")
def _(logits):
    model = _Autoencoder()
    encoded = model.encoder(_weights(5, 4))[0].reshape(N, C)
    return model.loss, encoded


@_correct("encoder and decoder with tied weights")
def _(logits):
    tied = nn.Parameter(_weights(4, N * C))
    encoded = (_weights(4) @ tied).reshape(N, C)
    return (lambda x: (x.flatten(-2) @ tied.T).square().sum(-1)), encoded


@_correct("detached logits inside")
def _(logits):
    logits = logits.clone().requires_grad_()
    frozen = logits.detach().softmax(-1)
    return (lambda x: ((x - frozen) * W).sum((-2, -1)).square()), logits


@_correct("logits under no_grad inside")
def _(logits):
    logits = nn.Parameter(logits.clone())

    def f(x):
        with torch.no_grad():
            weight = logits.softmax(-1)
        return (weight * x).sum((-2, -1)) + linear(x)

    return f, logits


@_correct("prior that starts equal to the logits")
def _(logits):
    parameter, prior = nn.Parameter(logits.clone()), nn.Parameter(logits.clone())
    return (lambda x: linear(x) - (x * prior.log_softmax(-1)).sum((-2, -1))), parameter


@_correct("weights beside the logits in one storage")
def _(logits):
    both = torch.cat([logits.flatten(), W.flatten()])
    weight = both[N * C :].reshape(N, C).requires_grad_()
    return (lambda x: (weight * x).sum((-2, -1)).sin()), both[: N * C].reshape(N, C)


@_correct("learned parameters")
def _(logits):
    parameters = nn.ParameterDict({"a": nn.Parameter(W.clone())})
    return lambda x: (parameters["a"] * x).sum((-2, -1)).exp()


@_correct("module that takes any leading axes")
def _(logits):
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net(nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).squeeze(-1)

    return Decoder()


@_correct("values of inference mode", differentiable=False)
def _(logits):
    return torch.inference_mode()(linear)


@_correct("option beside x")
def _(logits):
    def f(x, scale=2.0):
        return scale * linear(x)

    return f


@_correct("wrapped by a decorator")
def _(logits):
    def f(*args, **options):
        (x,) = args
        return linear(x, **options)

    return f


@_correct("partial function")
def _(logits):
    def power(x, k):
        return linear(x).pow(k)

    return functools.partial(power, k=3)


@_correct("callable object")
def _(logits):
    @dataclass(frozen=True)
    class Scaled:
        factor: float

        def __call__(self, x: Tensor) -> Tensor:
            return self.factor * linear(x)

    return Scaled(-2.0)

"""Bad input is refused: an error names the argument, says what is wrong and what is allowed.

The checks of shapes and types that only tests have are off: the messages are those that users see.
"""

import math
import re

import numpy as np
import pytest
import torch

import gradlab
from cases import DROP_IN, estimators, generator, logits_of, loss_of
from gradlab.comparison.comparing import compare
from gradlab.estimators import (
    ESTIMATORS,
    STZGR,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    QuadratureError,
    Reinforce,
    parse,
    zgr,
)
from gradlab.exact import enumeration
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import NotExactError
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.loss import LossDtypeError, LossError, NotDifferentiableError
from gradlab.montecarlo import monte_carlo

pytestmark = pytest.mark.usefixtures("unchecked")

F = loss_of("cubic")
LOGITS = logits_of("moderate")

# Everything that takes f and logits.
ENTRIES = {
    "exact_value": lambda f, logits: exact_value(f, logits),
    "exact_gradient": lambda f, logits: exact_gradient(f, logits),
    "exact_moments": lambda f, logits: exact_moments(ZGR(), f, logits),
    "exact_moments of RF": lambda f, logits: exact_moments(LeaveOneOut(), f, logits),
    "monte_carlo": lambda f, logits: monte_carlo(ZGR(), f, logits, 100),
    "compare": lambda f, logits: compare(f, logits, ["ZGR"]),
    "draw of ST": lambda f, logits: gradlab.StraightThrough().draw(f, logits, 500),
    "draw of GR": lambda f, logits: GumbelRao().draw(f, logits, 500),
    "draw of RF": lambda f, logits: LeaveOneOut().draw(f, logits, 500),
    "draw of ARSM": lambda f, logits: gradlab.ARSM().draw(f, logits, 500),
}
entries = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
SAMPLES = {
    "sample of ZGR": lambda logits: ZGR().sample(logits),
    "sample of GR": lambda logits: GumbelRao().sample(logits),
    "surrogate of RF": lambda logits: LeaveOneOut().surrogate(F, logits),
    "zgr": lambda logits: zgr(logits),
}
samples = pytest.mark.parametrize("entry", SAMPLES.values(), ids=list(SAMPLES))


def with_entry(value: float) -> torch.Tensor:
    logits = LOGITS.clone()
    logits[1, 2] = value
    return logits


BAD_VALUES = [
    pytest.param(with_entry(math.nan), "logits contain NaN", id="NaN"),
    pytest.param(with_entry(math.inf), r"logits contain \+inf", id="+inf"),
    pytest.param(
        torch.stack([LOGITS[0], torch.full((3,), -math.inf, dtype=torch.float64)]),
        r"logits row \[1\] masks every class",
        id="all masked",
    ),
    pytest.param(torch.tensor([[math.nan] * 3, [-math.inf] * 3]), "logits contain NaN", id="both"),
]
BAD_KINDS = [
    pytest.param(torch.ones(2, 3, dtype=torch.int64), "torch.int64", id="integers"),
    pytest.param(torch.ones(2, 3, dtype=torch.bool), "torch.bool", id="booleans"),
    pytest.param(torch.ones(2, 3, dtype=torch.complex64), "torch.complex64", id="complex"),
    pytest.param(np.ones((2, 3)), "ndarray", id="numpy"),
    pytest.param([[0.0, 1.0]], "list", id="list"),
]


# Logits.


@pytest.mark.parametrize(("logits", "message"), BAD_VALUES)
@entries
def test_bad_values_of_logits(entry, logits, message):
    with pytest.raises(ValueError, match=message):
        entry(F, logits)


@pytest.mark.parametrize(("logits", "message"), BAD_VALUES)
@samples
def test_bad_values_of_logits_in_training(entry, logits, message):
    with pytest.raises(ValueError, match=message):
        entry(logits)


@pytest.mark.parametrize(("logits", "kind"), BAD_KINDS)
@entries
def test_bad_kinds_of_logits(entry, logits, kind):
    with pytest.raises(TypeError, match=f"logits must be a floating-point torch.Tensor.*{kind}"):
        entry(F, logits)


@pytest.mark.parametrize(("logits", "kind"), BAD_KINDS)
@samples
def test_bad_kinds_of_logits_in_training(entry, logits, kind):
    with pytest.raises(TypeError, match=f"logits must be a floating-point torch.Tensor.*{kind}"):
        entry(logits)


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 2, 3), (2, 0)], ids=str)
@entries
def test_bad_shapes_of_logits(entry, shape):
    shown = re.escape(str(list(shape)))
    with pytest.raises(ValueError, match=rf"logits must have shape \[N, C\].*not {shown}"):
        entry(F, torch.zeros(shape))


def test_a_single_row_of_logits_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"use unsqueeze\(0\)"):
        exact_gradient(F, torch.zeros(3))


@entries
def test_masked_logits_are_no_error(entry):
    entry(F, with_entry(-math.inf))


# Temperatures and other hyperparameters.


@pytest.mark.parametrize("tau", [0, 0.0, -1.0, math.nan, math.inf, -math.inf, "1", None])
@pytest.mark.parametrize("cls", [GumbelSoftmax, GumbelSoftmaxST, GumbelRao])
def test_bad_tau(cls, tau):
    with pytest.raises(ValueError, match="tau must be a positive finite number, not"):
        cls(tau)


@pytest.mark.parametrize("cls", [GumbelSoftmax, GumbelSoftmaxST, GumbelRao])
def test_tau_whose_reciprocal_overflows(cls):
    with pytest.raises(
        ValueError, match=r"1e-310 is so small that 1/tau overflows in torch.float64"
    ):
        cls(1e-310)


@pytest.mark.parametrize("cls", [GumbelSoftmax, GumbelSoftmaxST, GumbelRao])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tau_whose_reciprocal_overflows_in_the_dtype_of_logits(cls, dtype):
    logits = LOGITS.to(dtype)
    with pytest.raises(ValueError, match=r"tau = 1e-42 .*overflows in torch.float32"):
        cls(1e-42).draw(F, logits, 10)
    with pytest.raises(ValueError, match=r"tau = 1e-42 .*overflows in torch.float32"):
        cls(1e-42).sample(logits)


@pytest.mark.parametrize("k", [0, -1, 2.0, math.inf, "3"])
def test_bad_k(k):
    with pytest.raises(ValueError, match="k must be a positive int, or None"):
        GumbelRao(1.0, k)


@pytest.mark.parametrize("m", [1, 0, -2, 2.0, None, math.inf])
def test_bad_m(m):
    with pytest.raises(ValueError, match="m must be an int >= 2"):
        LeaveOneOut(m)


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf, "1", None])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number"):
        STZGR(alpha)


@pytest.mark.parametrize("baseline", [math.nan, math.inf, None])
def test_bad_baseline(baseline):
    with pytest.raises(ValueError, match="baseline must be a finite number"):
        Reinforce(baseline)


@pytest.mark.parametrize("dim", [2, -3, 5])
@pytest.mark.parametrize(("function", "arguments", "estimator"), DROP_IN)
def test_bad_dim(function, arguments, estimator, dim):
    with pytest.raises(
        ValueError, match=rf"dim = {dim} is not an axis of logits of shape \[2, 3\]"
    ):
        function(LOGITS, **arguments, dim=dim)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.eye(3)[:1], r"x must have the shape of logits \[2, 3\], not \[1, 3\]"),
        (torch.full((2, 3), 1 / 3), "x must be one-hot"),
        (torch.zeros(2, 3), "x must be one-hot"),
        (torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), "x must be one-hot"),
        (torch.tensor([[math.nan, 1.0, 0.0], [0.0, 0.0, 1.0]]), "x must be one-hot"),
    ],
    ids=["shape", "relaxed", "empty", "two", "NaN"],
)
@estimators(one_each=True, pathwise=True)
@pytest.mark.few(40)
def test_bad_given_samples(claim, x, message):
    with pytest.raises(ValueError, match=message):
        claim.estimator.sample(LOGITS, x=x)


def test_exact_gumbel_rao_says_that_it_is_not_for_torch_func():
    with pytest.raises(ValueError, match=r"k = None .* is not for torch\.func; give k a number"):
        torch.func.grad(lambda row: F(GumbelRao(0.5, None).sample(row)))(LOGITS)


# The loss.


def reduced_too_far(x):
    return x.sum()


def not_reduced(x):
    return x.sum(-1)


BAD_LOSSES = [
    pytest.param(reduced_too_far, r"one value for each x: .*not \[\]", id="not batched"),
    pytest.param(not_reduced, r"one value for each x: .*; reduce over the last two", id="shape"),
    pytest.param(lambda x: x[..., 0, 0].tolist(), "floating-point tensor, not .*list", id="list"),
    pytest.param(lambda x: None, "floating-point tensor, not .*NoneType", id="None"),
    pytest.param(lambda x: x.argmax(-1).sum(-1), "not a torch.int64 tensor", id="integers"),
    pytest.param(lambda x: x[..., 0, 0] > 0, "not a torch.bool tensor", id="booleans"),
]


@pytest.mark.parametrize(("f", "message"), BAD_LOSSES)
@entries
def test_bad_losses(entry, f, message):
    with pytest.raises(LossError, match=rf"f must return.*{message}"):
        entry(f, LOGITS)


@entries
def test_losses_of_another_dtype_are_told_what_to_do(entry):
    weight = torch.ones(6, dtype=torch.float32)
    with pytest.raises(LossDtypeError, match=r"works on x of float32 but not of float64.*float32"):
        entry(lambda x: x.flatten(-2) @ weight, LOGITS)


@entries
def test_a_loss_that_cannot_be_called(entry):
    with pytest.raises(TypeError, match="f must be a callable x -> values, not int"):
        entry(3, LOGITS)


@pytest.mark.parametrize(("f", "message"), BAD_LOSSES[:2])
@estimators(one_each=True)
@pytest.mark.few(30)
def test_bad_losses_in_training(claim, f, message):
    with pytest.raises(LossError, match=rf"f must return.*{message}"):
        claim.estimator.surrogate(f, LOGITS.expand(4, 2, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@entries
@pytest.mark.few(10)
def test_values_that_are_not_finite_are_shown_with_their_x(entry, value):
    def f(x):
        return torch.where(x[..., 0, 1] * x[..., 1, 2] == 1, value, F(x))

    with pytest.raises(
        LossError, match=rf"f\(x\) is {value} for classes \[1, 2\]; it must be finite"
    ):
        entry(f, torch.zeros_like(LOGITS))


def test_values_that_are_not_finite_at_a_relaxed_x_are_shown():
    def f(x):
        return torch.where(x[..., 0, 1] > 0.5, math.nan, F(x))

    with pytest.raises(LossError, match=r"f\(x\) is nan for relaxed x = \[\[0\.\d"):
        GumbelSoftmax().draw(f, LOGITS, 100, generator())


@pytest.mark.parametrize("name", ["exact_moments", "monte_carlo", "compare", "draw of ST"])
def test_gradients_that_are_not_finite_are_shown_with_their_x(name):
    # At x = 0 the derivative of the square root is infinite.
    with pytest.raises(LossError, match=r"grad f\(x\) is (inf|nan) for classes \[\d, \d\]"):
        ENTRIES[name](lambda x: x.sqrt().sum((-2, -1)), LOGITS)


TABLE = loss_of("table")
NO_GRADIENT = {
    "lookup table": TABLE,
    "detached": lambda x: F(x.detach()),
    "parameters only": lambda x: TABLE(x) * torch.ones(1, requires_grad=True)[0],
}
no_gradient = pytest.mark.parametrize("f", NO_GRADIENT.values(), ids=list(NO_GRADIENT))


@no_gradient
@estimators(one_each=True, needs_gradient=True)
@pytest.mark.few(24)
def test_estimators_that_need_a_gradient_refuse_f_without_one(claim, f):
    with pytest.raises(NotDifferentiableError, match=r"f is not differentiable.*such as RF\(m=4\)"):
        claim.estimator.draw(f, LOGITS, 10)
    with pytest.raises(NotDifferentiableError, match="f is not differentiable"):
        monte_carlo(claim.estimator, f, LOGITS, 100)


@no_gradient
@estimators(one_each=True, needs_gradient=True, exact=True)
@pytest.mark.few(20)
def test_exact_moments_refuse_f_without_a_gradient(claim, f):
    with pytest.raises(NotDifferentiableError, match="f is not differentiable"):
        exact_moments(claim.estimator, f, LOGITS)


@pytest.mark.parametrize("f", [TABLE, lambda x: F(x.detach())], ids=["table", "detached"])
@estimators(one_each=True, needs_gradient=True)
@pytest.mark.few(16)
def test_training_refuses_f_without_a_gradient(claim, f):
    logits = LOGITS.clone().requires_grad_()
    with pytest.raises(NotDifferentiableError, match="f is not differentiable"):
        claim.estimator.surrogate(f, logits)


@no_gradient
@estimators(needs_gradient=False)
@pytest.mark.few(16)
def test_score_function_estimators_need_no_gradient(claim, f):
    logits = LOGITS.clone().requires_grad_()
    assert claim.estimator.draw(f, logits, 10).isfinite().all()
    claim.estimator.surrogate(f, logits).backward()
    assert logits.grad.isfinite().all()


# Monte Carlo and comparison.


@pytest.mark.parametrize("draws", [0, -5, 31, 100.0, None, math.inf, "100"])
def test_bad_draws(draws):
    with pytest.raises(ValueError, match="draws must be an int of at least 32, not"):
        monte_carlo(ZGR(), F, LOGITS, draws)


@pytest.mark.parametrize("draws", [0, -5, 31, 100.0])
def test_bad_draws_of_a_comparison(draws):
    with pytest.raises(ValueError, match="draws must be an int of at least 32, not"):
        compare(F, LOGITS, ["GS"], draws=draws)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, None, "0"])
@pytest.mark.parametrize(
    "entry",
    [
        lambda seed: monte_carlo(ZGR(), F, LOGITS, 100, seed),
        lambda seed: compare(F, LOGITS, ["ZGR"], seed=seed),
    ],
    ids=["monte_carlo", "compare"],
)
def test_bad_seeds(entry, seed):
    with pytest.raises(ValueError, match="seed must be an int in"):
        entry(seed)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_smallest_and_the_largest_seed(seed):
    assert monte_carlo(ZGR(), F, LOGITS, 100, seed).mean.isfinite().all()


@pytest.mark.parametrize("value", [0, -1, 1.0, None])
@pytest.mark.parametrize("name", ["workers", "chunk"])
def test_bad_workers_and_chunks(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an int of at least 1, not"):
        monte_carlo(ZGR(), F, LOGITS, 100, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"estimators": []}, ValueError, "estimators .* must not be empty"),
        ({"temperatures": []}, ValueError, "temperatures, where given.* must not be empty"),
        ({"temperatures": [1.0, 0.0]}, ValueError, "tau must be a positive finite number, not 0.0"),
        ({"temperatures": [math.nan]}, ValueError, "tau must be a positive finite number, not nan"),
        ({"temperatures": 0.5}, TypeError, r"temperatures must be a list, such as \[0.5\]"),
        ({"estimators": "ZGR"}, TypeError, r"estimators must be a list, such as \[ZGR\]"),
        ({"estimators": ZGR()}, TypeError, r"estimators must be a list, such as \[ZGR\]"),
        ({"estimators": ZGR}, TypeError, "estimators must be a list"),
        ({"estimators": ["ZGR", 3]}, TypeError, "cannot draw from int; give an Estimator"),
        ({"estimators": ["ZRG"]}, ValueError, "unknown estimator 'ZRG'; did you mean 'ZGR'"),
        ({"method": "exactly"}, ValueError, "method must be one of auto, exact, monte-carlo, both"),
    ],
    ids=str,
)
def test_bad_comparisons(arguments, error, message):
    with pytest.raises(error, match=message):
        compare(F, LOGITS, **{"estimators": ["ZGR", "GS"]} | arguments)


@pytest.mark.parametrize("text", ["GS", "ARSM"])
def test_what_has_no_exact_moments_says_what_to_use(text):
    with pytest.raises(
        NotExactError, match=rf"known for {text}.*; use monte_carlo\(\.\.\.\) instead"
    ):
        exact_moments(parse(text), F, LOGITS)


@pytest.mark.parametrize(
    "entry",
    [ENTRIES[name] for name in ("exact_value", "exact_moments", "exact_moments of RF", "compare")],
)
def test_too_many_configurations(entry):
    message = (
        r"20 variables of 4 classes have about 10\^12\.0 .*than the 16777216 .*use monte_carlo"
    )
    with pytest.raises(TooLargeError, match=message):
        entry(lambda x: x[..., 0].sum(-1), torch.zeros(20, 4))


def test_the_limit_counts_what_is_not_masked():
    logits = torch.full((40, 4), -math.inf)
    logits[:, 0] = 0
    logits[:2] = 0
    assert exact_value(lambda x: x[..., 0].sum(-1), logits) == pytest.approx(38.5)


def test_more_classes_than_tables_hold(monkeypatch):
    monkeypatch.setattr(enumeration, "_MOMENT_ELEMENTS", 50)
    with pytest.raises(TooLargeError, match=r"N C\^3 = 54 numbers, more than 50; use monte_carlo"):
        exact_moments(ZGR(), F, LOGITS)


# Text forms.


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("ZRG", "ZGR"),
        ("zgrr", "ZGR"),
        ("GS_SST", "GS-ST"),
        ("Reinforc", "REINFORCE"),
        ("rff(m=2)", "RF"),
    ],
)
def test_unknown_estimators_list_the_known_and_suggest_the_nearest(text, nearest):
    with pytest.raises(ValueError, match=f"unknown estimator .*did you mean '{nearest}'") as caught:
        parse(text)
    assert all(name in str(caught.value) for name in ESTIMATORS)


@pytest.mark.parametrize("text", ["", "   ", "123", "(tau=1)", "!"])
def test_what_is_like_no_estimator_lists_the_known(text):
    with pytest.raises(ValueError, match=r"unknown estimator .*Known: ST, DARN, ZGR"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GR(tau=1", r"cannot read estimator 'GR\(tau=1'; write it as GR\(tau=\.\.\., k=\.\.\.\)"),
        ("GR(1, 2)", r"cannot read .*write it as GR\(tau=\.\.\., k=\.\.\.\)"),
        ("GR(tau=x)", "cannot read"),
        ("GR(tau=1) + 1", "cannot read"),
        ("GR(tau=1)(k=2)", "cannot read"),
        ("GR(**{'tau': 1})", "cannot read"),
        ("GR(tau=__import__('os'))", "cannot read"),
        ("GR(tau=1, tau=2)", "cannot read"),
        ("GR(temperature=1)", r"GR has no argument 'temperature'; write it as GR\(tau="),
        ("ZGR(tau=1)", "ZGR has no argument 'tau'; write it as ZGR"),
        ("GR(tau=-1)", "tau must be a positive finite number, not -1"),
        ("GR(tau=inf)", "tau must be a positive finite number"),
        ("GR(k=0)", "k must be a positive int"),
        ("GR(k=nan)", "cannot read"),
        ("RF(m=1)", "m must be an int >= 2"),
        ("RF(m=inf)", "m must be an int >= 2"),
        ("GS(tau='0.5')", "tau must be a positive finite number, not '0.5'"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError, match="module 'gradlab' has no attribute 'ZRG'"):
        gradlab.ZRG  # noqa: B018


# What would fill the memory.


def test_arsm_refuses_more_swaps_than_fit():
    f, logits = loss_of("mlp", 1, 400), torch.zeros(1, 400, dtype=torch.float64)
    message = "ARSM evaluates f at 79801 points of 1 x 400 numbers.*use RF"
    with pytest.raises(ValueError, match=message):
        gradlab.ARSM().draw(f, logits, 2)
    (row,) = compare(f, logits, ["ARSM"]).itertuples()
    assert re.match(f"one draw of {message}", row.reason)


def test_exact_gumbel_rao_refuses_tables_that_do_not_fit():
    f, logits = loss_of("mlp", 1, 400), torch.zeros(1, 400, dtype=torch.float64)
    with pytest.raises(QuadratureError, match=r"64000000 numbers.*Gumbel-Rao with a finite k"):
        GumbelRao(1.0, None).draw(f, logits, 2)

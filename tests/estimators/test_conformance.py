"""What every estimator must keep to when it draws, whatever its family."""

import inspect
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from cases import CLAIMS, DTYPES, estimators, generator, logits_of, loss_of
from gradlab.comparison.comparing import compare
from gradlab.estimators import ESTIMATORS, GumbelRao, LeaveOneOut, parse
from gradlab.exact.truth import exact_gradient
from gradlab.moments import GROUPS
from gradlab.montecarlo import monte_carlo
from significance import limit, scores

with_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).split(".")[1])


@with_dtypes
@estimators(one_each=True)
@pytest.mark.few(33)
def test_shape_and_dtype_of_draws(claim, dtype):
    logits = logits_of("moderate", 3, 4).to(dtype)
    g = claim.estimator.draw(loss_of("mlp", 3, 4), logits, 17, generator())
    assert g.shape == (17, 3, 4)
    assert g.dtype == dtype
    assert not g.requires_grad
    assert g.isfinite().all()
    assert (g != 0).any()


@with_dtypes
@estimators(one_each=True)
@pytest.mark.few(33)
def test_draws_sum_to_zero_over_classes(claim, dtype):
    logits = logits_of("masked", 3, 4).to(dtype)
    g = claim.estimator.draw(loss_of("norm:1.5", 3, 4), logits, 200, generator()).double()
    # Rounding of the result is all that may be left, and that of gradients of size 1 on the way.
    final = torch.finfo(dtype).eps
    inner = min(final, torch.finfo(torch.float32).eps)
    assert g.sum(-1).abs().max() <= 4 * final * g.abs().amax() + 16 * inner


@pytest.mark.parametrize(
    ("classes", "dtype"), list(zip([3, 4, 9], DTYPES, strict=True)), ids=["3", "4", "9"]
)
@estimators(one_each=True)
@pytest.mark.few(33)
def test_masked_classes_get_exactly_nothing(claim, classes, dtype):
    logits = logits_of("masked", 3, classes).to(dtype)
    g = claim.estimator.draw(loss_of("cubic", 3, classes), logits, 200, generator())
    assert g.isfinite().all()
    assert (g[:, logits == -math.inf] == 0).all()


@estimators(one_each=True)
@pytest.mark.few(11)
def test_a_single_class_has_no_gradient(claim):
    logits = torch.ones(3, 1, dtype=torch.bfloat16)
    g = claim.estimator.draw(loss_of("cubic", 3, 1), logits, 50, generator())
    assert g.shape == (50, 3, 1)
    assert (g == 0).all()


@estimators()
@pytest.mark.few(17)
def test_the_only_class_left_by_a_mask_has_no_gradient(claim):
    logits = torch.tensor([[-math.inf, 0.3, -math.inf], [0.1, 0.2, 0.3]], dtype=torch.float64)
    g = claim.estimator.draw(loss_of("cubic"), logits, 50, generator())
    assert g[:, 0].abs().max() < 1e-15
    assert g[:, 1].abs().max() > 0


@pytest.mark.parametrize(("gap", "dtype"), [(1e30, torch.float32), (30.0, torch.float64)])
@estimators(one_each=True)
@pytest.mark.few(22)
def test_peaked_logits_give_finite_draws(claim, dtype, gap):
    logits = torch.tensor([[0.0, gap, -gap], [gap, gap, 0.0]], dtype=dtype)
    g = claim.estimator.draw(loss_of("cubic"), logits, 200, generator())
    assert g.isfinite().all()
    # Swaps of all variables together: where others move, a certain one gets noise of mean zero.
    if claim.certain:
        assert g[:, 0].abs().max() < 1e-6


@pytest.mark.parametrize("tau", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "text", ["GR(k=inf)", *(n for n, c in ESTIMATORS.items() if hasattr(c, "tau"))]
)
@pytest.mark.few(30)
def test_all_temperatures_give_finite_draws(text, dtype, tau):
    estimator = replace(parse(text), tau=tau)
    g = estimator.draw(loss_of("cubic"), logits_of("masked").to(dtype), 2000, generator())
    assert g.isfinite().all()
    assert g.abs().max() <= 10 / min(tau, 1)


# Public Gumbel-Rao codes are 9 % off when all logits are moved by 15, and NaN at 100.
@pytest.mark.parametrize(("shift", "dtype"), [(100.0, torch.float32), (-1e4, torch.float64)])
@estimators(one_each=True)
@pytest.mark.few(22)
def test_shifted_logits_give_the_same_draws(claim, dtype, shift):
    # Eighths can be shifted without rounding.
    logits = ((logits_of("masked", 3, 4) * 8).round() / 8).to(dtype)
    rows = torch.tensor([[1.0], [-1.0], [0.5]], dtype=dtype)
    f = loss_of("cubic", 3, 4)
    expected = claim.estimator.draw(f, logits, 200, generator())
    found = claim.estimator.draw(f, logits + shift * rows, 200, generator())
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@estimators(one_each=True)
@pytest.mark.few(11)
def test_the_generator_alone_decides(claim):
    f, logits = loss_of("cubic"), logits_of("moderate")
    before = torch.get_rng_state()
    first = claim.estimator.draw(f, logits, 50, generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    assert torch.equal(claim.estimator.draw(f, logits, 50, generator(1)), first)
    assert not torch.equal(claim.estimator.draw(f, logits, 50, generator(2)), first)


@estimators(one_each=True)
@pytest.mark.few(11)
def test_successive_draws_of_one_generator_differ(claim):
    f, logits, source = loss_of("cubic"), logits_of("moderate"), generator(1)
    first = claim.estimator.draw(f, logits, 50, source)
    assert not torch.equal(claim.estimator.draw(f, logits, 50, source), first)


@estimators(one_each=True)
@pytest.mark.few(11)
def test_without_a_generator_the_global_one_is_used(claim):
    f, logits = loss_of("cubic"), logits_of("moderate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = claim.estimator.draw(f, logits, 50)
        second = claim.estimator.draw(f, logits, 50)
        torch.manual_seed(3)
        assert torch.equal(claim.estimator.draw(f, logits, 50), first)
    assert not torch.equal(first, second)


@cache
def all_rows() -> pd.DataFrame:
    texts = [str(c.estimator) for c in CLAIMS if not (c.binary or c.levels)]
    f, logits = loss_of("cubic"), logits_of("moderate")
    return compare(f, logits, texts, draws=200, method="monte-carlo")


@pytest.mark.usefixtures("unchecked")
@estimators(one_each=True, levels=False)
@pytest.mark.few(11)
def test_other_rows_do_not_matter(claim):
    f, logits = loss_of("cubic"), logits_of("moderate")
    among = all_rows()
    alone = compare(f, logits, [claim.estimator], draws=200, method="monte-carlo")
    row = among[among.estimator == str(claim.estimator)]
    kept = list(alone.columns.drop("seconds"))
    # Floats are written so that they are read back the same, bit for bit.
    assert row[kept].to_csv(index=False) == alone[kept].to_csv(index=False)


@estimators(one_each=True)
@pytest.mark.few(11)
def test_one_variable_is_enough(claim):
    g = claim.estimator.draw(loss_of("cubic", 1, 3), logits_of("moderate", 1, 3), 20, generator())
    assert g.shape == (20, 1, 3)


@pytest.mark.parametrize("n", [0, 1])
@estimators(one_each=True)
@pytest.mark.few(22)
def test_few_draws(claim, n):
    g = claim.estimator.draw(loss_of("cubic"), logits_of("moderate"), n, generator())
    assert g.shape == (n, 2, 3)


@estimators(one_each=True)
@pytest.mark.few(11)
def test_logits_and_global_settings_are_left_alone(claim):
    logits = logits_of("moderate").requires_grad_()
    before = logits.detach().clone()
    claim.estimator.draw(loss_of("cubic"), logits, 20, generator())
    assert torch.equal(logits.detach(), before)
    assert logits.grad is None
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


@estimators()
@pytest.mark.few(17)
def test_calls_are_what_is_spent(claim):
    seen = []
    f = loss_of("cubic", 2, 4)

    def counting(x):
        seen.append(math.prod(x.shape[:-2]))
        return f(x)

    claim.estimator.draw(counting, logits_of("moderate", 2, 4), 12, generator())
    assert sum(seen) == 12 * claim.estimator.calls(4, 2)


@estimators(one_each=True)
def test_f_sees_one_hot_points_only_unless_relaxed(claim):
    seen = []
    f = loss_of("cubic")
    claim.estimator.draw(
        lambda x: seen.append(x.detach().clone()) or f(x), logits_of("moderate"), 20, generator()
    )
    one_hot = all(bool(((x == 0) | (x == 1)).all()) for x in seen)
    assert one_hot == claim.one_hot
    assert all(torch.allclose(x.sum(-1), torch.ones(1, dtype=x.dtype)) for x in seen)


@estimators()
@pytest.mark.few(17)
def test_gradient_of_a_constant_is_zero_on_average(claim):
    f, logits = loss_of("constant"), logits_of("moderate")
    assert exact_gradient(f, logits).abs().max() < 1e-15
    moments = monte_carlo(claim.estimator, f, logits, 320)
    # What falls on no draw has no error: such a coordinate of the mean must be 0 itself.
    assert scores(moments.mean, 0.0, moments.mean_se).abs().max() < limit(GROUPS - 1)
    if claim.pathwise or isinstance(claim.estimator, LeaveOneOut):
        assert moments.mean.abs().max() < 1e-15
        assert moments.variance.value < 1e-30


# The object itself.


@estimators()
def test_text_form_is_read_back(claim):
    assert parse(str(claim.estimator)) == claim.estimator
    assert repr(claim.estimator) == str(claim.estimator)


@pytest.mark.parametrize(
    "tau", [1 / 3, 0.1 + 0.2, 1e-3, np.float64(10**-1.7), 123456.789012345, 2, 1e-300]
)
@pytest.mark.parametrize("name", ["GS", "GS-ST", "GR"])
def test_any_temperature_is_read_back(name, tau):
    estimator = ESTIMATORS[name](tau)
    assert parse(str(estimator)) == estimator


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ZGR", "ZGR"),
        ("ZGR()", "ZGR"),
        ("  GR ", "GR(tau=1, k=10)"),
        ("GR(tau=0.1,k=inf)", "GR(tau=0.1, k=inf)"),
        ("GR( k = 3 )", "GR(tau=1, k=3)"),
        ("GS(tau=1.0)", "GS(tau=1)"),
        ("RF", "RF(m=2)"),
        ("ST-ZGR", "ST-ZGR(alpha=0.5)"),
    ],
)
def test_text_forms(text, expected):
    assert str(parse(text)) == expected


def test_a_series_is_the_text_without_the_temperature():
    assert GumbelRao(0.1, None).text(without="tau") == "GR(k=inf)"
    assert parse("GS-ST(tau=0.3)").text(without="tau") == "GS-ST"


@estimators(one_each=True)
def test_estimators_are_frozen_and_compared_by_value(claim):
    estimator = claim.estimator
    arguments = list(inspect.signature(type(estimator)).parameters)
    copy = type(estimator)(**{name: getattr(estimator, name) for name in arguments})
    assert copy == estimator
    assert hash(copy) == hash(estimator)
    with pytest.raises(AttributeError):
        estimator.order = 5


@pytest.mark.parametrize("cls", ESTIMATORS.values(), ids=list(ESTIMATORS))
def test_every_estimator_constructs_without_arguments(cls):
    assert ESTIMATORS[cls().name] is cls
    assert parse(cls.name) == cls()


@pytest.mark.parametrize("name", ["cubic", "table"])
@estimators(one_each=True, levels=False)
@pytest.mark.few(22)
def test_support_is_declared_with_a_reason(claim, name):
    reason = claim.estimator.supports(loss_of(name), logits_of("masked"))
    if name == "table" and claim.needs_gradient:
        assert "not differentiable" in reason
        assert "RF" in reason
    else:
        assert reason is None

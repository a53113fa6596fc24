"""Nothing is proved of code that does not run: estimators that replace what is enumerated.

Every entry of the library is given every fault of `mechanisms.FAULTY`: none may call it unbiased,
or print an exact number that is not that of the code.
"""

import functools

import pytest
import torch

import gradlab
from gradlab.comparison.comparing import compare
from gradlab.comparison.recommending import recommend
from gradlab.estimators import SampledValueEstimator, SampleOnlyEstimator
from gradlab.exact.moments import NotExactError
from gradlab.exact.truth import exact_moments
from gradlab.nn.probe import GradientProbe
from gradlab.sweep import cells
from gradlab.testing import assert_exact_to_degree
from gradlab.user_code.under_test import EstimatorError
from gradlab.verification.order import rungs, verify_order
from gradlab.verification.verdict import BIASED, UNBIASED
from gradlab.verification.verifying import verify
from mechanisms import BOTH, CORRECT, DRAW, FAULTY, TABLE, TRAINING, variant

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

# Without the fault it is soon cleared; the smallest bias, of logits times 1.1, is a tenth.
OPTIONS = {"delta": 0.2, "max_draws": 2**16, "alpha": 1e-6}
# Draws of the independent check, and standard errors that it may be off.
DRAWS, FAR = 2**14, 6.0

BY_NAME = {fault.name: fault for fault in FAULTY}
CORRECT_BY_NAME = {correct.name: correct for correct in CORRECT}


# One of each kind in every run, all of them with the slow tests.
QUICK = {
    *("draw times .9", "surrogate times .5", "tables times .9", "patched and wrapped"),
    *("clips v", "counts its calls", "other tuples", "half of the value", "in float32"),
    *("recorded estimate", "C > 3", "rare class", "shifted"),
}


def quick(names):
    """Return the names; all but `QUICK` are slow."""
    return [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in names]


@pytest.fixture(params=BY_NAME)
def fault(request):
    """Return each fault, what it patches patched."""
    with BY_NAME[request.param].patch():
        yield BY_NAME[request.param]


@pytest.fixture(params=quick(BY_NAME))
def quick_fault(request):
    """Return each fault, what it patches patched; one of each kind in every run."""
    with BY_NAME[request.param].patch():
        yield BY_NAME[request.param]


@pytest.fixture(params=[name for name, fault in BY_NAME.items() if fault.everywhere])
def known_fault(request):
    """Return each fault that is met at the losses and logits of gradlab's own."""
    with BY_NAME[request.param].patch():
        yield BY_NAME[request.param]


def test_the_table_holds_what_it_says():
    assert len(BY_NAME) == len(FAULTY) >= 8 + 16
    assert len(CORRECT_BY_NAME) == len(CORRECT) >= 12


# ---- verify -------------------------------------------------------------------------------------


def options(fault, judge):
    """Return the options of `verify`; a bias of .1 asks for a smaller delta than the others."""
    small = fault.name == "draw times .9" and judge != TRAINING
    return OPTIONS | ({"delta": 0.05, "max_draws": 2**18} if small else {})


def outcome_of(fault, judge):
    """Return the outcome and method of a verdict; an error refuses the code by name."""
    try:
        verdict = verify(fault.make(), fault.f, fault.logits, judge=judge, **options(fault, judge))
    except EstimatorError:
        return "refused", "monte carlo"
    return verdict.outcome, verdict.method


@pytest.mark.parametrize("name", quick(BY_NAME))
@pytest.mark.few(2)
def test_what_runs_is_not_called_unbiased(name):
    fault = BY_NAME[name]
    with fault.patch():
        outcome, method = outcome_of(fault, "both")
    if fault.wrong == TABLE:
        assert method == "monte carlo"
    else:
        assert outcome in (BIASED, "refused")


@pytest.mark.slow
@pytest.mark.parametrize("judge", [DRAW, TRAINING])
def test_the_wrong_part_is_accused(fault, judge):
    outcome, method = outcome_of(fault, judge)
    if fault.wrong == TABLE:
        assert method == "monte carlo"
    elif fault.wrong in (BOTH, judge):
        assert outcome in (BIASED, "refused")
    else:
        assert outcome == UNBIASED


@pytest.mark.parametrize("name", ["in batch", "no value", "half of the value"])
@pytest.mark.few(1)
def test_what_trains_a_batch_is_accused(name):
    fault = BY_NAME[name]
    logits = fault.logits.expand(2, -1, -1).contiguous()
    verdict = verify(fault.make(), fault.f, logits, **OPTIONS)
    assert (verdict.outcome, verdict.judged) == (BIASED, TRAINING)


# ---- exact numbers ------------------------------------------------------------------------------


def drawn(estimator, f, logits, *, training=False):
    """Return mean and its standard error [N, C] of what runs, by its own methods alone."""
    generator = torch.Generator().manual_seed(5)
    if training:
        rows = logits.expand(DRAWS, *logits.shape).clone().requires_grad_()
        (g,) = torch.autograd.grad(estimator.surrogate(f, rows, generator).sum(), rows)
    else:
        g = estimator.draw(f, logits.clone(), DRAWS, generator)
    g = g.detach().double()
    return g.mean(0), g.std(0) / DRAWS**0.5


def check_mean(estimator, fault, mean, *, training=False):
    """Assert that a mean is that of the code."""
    found, se = drawn(estimator, fault.f, fault.logits, training=training)
    off = (found - mean).abs() / se.clamp_min(1e-6 * float(mean.abs().max()))
    assert float(off.max()) < FAR


@pytest.mark.few(20)
def test_exact_moments_are_those_of_the_code(fault):
    try:
        moments = exact_moments(fault.make(), fault.f, fault.logits)
    except NotExactError:
        return
    assert fault.wrong != TABLE
    check_mean(fault.make(), fault, moments.mean)


def check_row(fault, row, *, training=False):
    """Assert that an exact row says the bias of the code."""
    if row["method"] != "exact" or row["reason"] is not None:
        return
    g = gradlab.exact_gradient(fault.f, fault.logits)
    mean, se = drawn(fault.make(), fault.f, fault.logits, training=training)
    off = (float((mean - g).square().sum()) ** 0.5) - row["bias2"] ** 0.5
    assert abs(off) < FAR * float(se.square().sum()) ** 0.5


@pytest.mark.few(4)
def test_a_row_of_compare_is_of_the_code(quick_fault):
    fault = quick_fault
    try:
        rows = compare(fault.f, fault.logits, [fault.make()], draws=256)
    except EstimatorError:
        return
    (row,) = rows.where(rows.notna(), None).to_dict("records")
    assert fault.wrong != TABLE or row["method"] == "monte carlo"
    check_row(fault, row)


@pytest.mark.slow
def test_a_row_of_the_probe_is_of_what_trains(fault):
    f, logits = fault.f, fault.logits.expand(2, -1, -1).contiguous()
    probe = GradientProbe([fault.make()], draws=256)
    probe(0, f, logits)
    (row,) = probe.rows.to_dict("records")
    assert fault.wrong != TABLE or row["method"] != "exact"
    if row["method"] == "exact":
        check_row(fault, row | {"bias2": row["bias2"] / 2}, training=True)


@pytest.mark.slow
def test_a_cell_of_a_sweep_is_of_the_code(known_fault, monkeypatch):
    fault = known_fault
    estimator = fault.make()
    monkeypatch.setattr(cells, "estimator_of", lambda task, cell: estimator)
    task = cells.Task(
        "quadratic", 2, 3, "moderate", 3, (cells.Cell("one", "Mine"),), 256, "auto", ""
    )
    row = next(found for found in cells.computed(task) if found is not None)
    if row["error"] is None:
        assert fault.wrong != TABLE or row["method"] == "monte carlo"
        check_row(fault, row)


@pytest.mark.slow
def test_a_recommendation_does_not_say_that_it_has_no_bias(fault):
    try:
        answer = recommend(fault.f, fault.logits, evaluations=64, estimators=[fault.make()])
    except (EstimatorError, ValueError):
        return
    if fault.wrong in (DRAW, BOTH):
        assert "no bias here" not in answer.explain()


# ---- degrees ------------------------------------------------------------------------------------


@functools.cache
def few_rungs():
    return rungs(["linear", "quadratic"], sizes=[(2, 3)], regimes=["moderate"], seed=3)


@pytest.mark.slow
def test_no_degree_is_certified(known_fault):
    fault = known_fault
    options = {"on": few_rungs(), "max_draws": 2**16}
    try:
        ladder = verify_order(fault.make(), **options)
    except EstimatorError:
        return
    if fault.wrong == TABLE:
        assert {verdict.method for verdict in ladder.verdicts} == {"monte carlo"}
        assert ladder.static is None
        return
    assert ladder.degree < 2
    with pytest.raises(AssertionError, match="BIASED"):
        assert_exact_to_degree(fault.make(), 2, **options)


# ---- correct subclasses -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRECT_BY_NAME)
@pytest.mark.few(6)
def test_a_correct_subclass_is_proved(name):
    estimator, fault = CORRECT_BY_NAME[name].make(), FAULTY[0]
    verdict = verify(estimator, fault.f, fault.logits)
    assert (verdict.outcome, verdict.method) == (UNBIASED, "exact")
    assert verdict.judged == "draw and training"
    truth = gradlab.exact_gradient(fault.f, fault.logits)
    moments = exact_moments(estimator, fault.f, fault.logits)
    torch.testing.assert_close(moments.mean, truth, rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRECT_BY_NAME)
def test_a_correct_subclass_keeps_its_exact_rows(name):
    estimator, fault = CORRECT_BY_NAME[name].make(), FAULTY[0]
    rows = compare(fault.f, fault.logits, [estimator])
    assert list(rows["method"]) == ["exact"]
    logits = fault.logits.expand(2, -1, -1).contiguous()
    probe = GradientProbe([estimator], draws=256)
    probe(0, fault.f, logits)
    assert list(probe.rows["method"]) == ["exact"]
    ladder = verify_order(estimator, on=few_rungs())
    assert ladder.holds
    assert {verdict.method for verdict in ladder.verdicts} == {"exact"}


# ---- what a family enumerates is what it draws --------------------------------------------------

WRITTEN = [
    pytest.param(cls, name, id=cls.name)
    for cls in gradlab.ESTIMATORS.values()
    for base, name in ((SampleOnlyEstimator, "pullback"), (SampledValueEstimator, "estimate_at"))
    if issubclass(cls, base) and (base is SampleOnlyEstimator or cls().enumerable)
]


@pytest.mark.parametrize(("cls", "name"), WRITTEN)
@pytest.mark.few(9)
def test_what_may_be_overridden_is_what_is_drawn(cls, name):
    def changed(self, *args):
        found = getattr(cls, name)(self, *args)
        return (found[0], 3 * found[1]) if isinstance(found, tuple) else 3 * found

    own = variant(cls, **{name: changed})
    f, logits = gradlab.problems.problem("quadratic", 3, 2), torch.zeros(3, 2).double()
    mine, theirs = (e.draw(f, logits, 8, torch.Generator().manual_seed(0)) for e in (own, cls()))
    torch.testing.assert_close(mine, 3 * theirs)
    moments = exact_moments(own, f, logits)
    torch.testing.assert_close(moments.mean, 3 * exact_moments(cls(), f, logits).mean)

"""Verdicts, rankings and probes of losses that see the logits: about the whole gradient."""

import math

import pytest
import torch

import gradlab
from gradlab import with_parameters
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.verification.exact_bias import exact_bias

pytestmark = pytest.mark.usefixtures("unchecked")


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W, LOGITS = random(2, 3, seed=1), random(2, 3, seed=2)


def kl(logits):
    return (logits.softmax(-1) * logits.log_softmax(-1)).sum((-2, -1))


@with_parameters
def f(x, logits):
    """Return a loss of which 99 % of the gradient are direct."""
    return (x * W).sum((-2, -1)).tanh() + 100 * kl(logits)


ON = Enumeration(f, LOGITS)
UNBIASED = ["RF(m=2)", "REINFORCE", "LE", "MuProp", "UNORD(k=2)"]
BIASED = ["ST", "ZGR", "DARN", "GS-ST(tau=0.5)", "ReinMax"]


def test_the_direct_part_is_most_of_the_gradient():
    first = float(ON.values.gradient.norm())
    assert first < 0.02 * float(ON.gradient.norm())


@pytest.mark.parametrize("text", UNBIASED)
def test_unbiased_estimators_are_proved(text):
    verdict = gradlab.verify(text, ON)
    assert (verdict.outcome, verdict.method, verdict.judged) == ("UNBIASED", "exact", "training")
    torch.testing.assert_close(verdict.target, ON.gradient)


@pytest.mark.parametrize("text", BIASED)
@pytest.mark.parametrize("method", ["exact", "monte-carlo"])
@pytest.mark.few(6)
def test_a_large_direct_part_hides_no_bias(text, method):
    verdict = gradlab.verify(text, ON, method=method, max_draws=2**16)
    assert verdict.outcome == "BIASED"
    # The bias is that of the estimated part, though it is small beside the gradient.
    alone = gradlab.exact_moments(gradlab.parse(text), lambda x: f(x, LOGITS), LOGITS.clone())
    bias = alone.mean - ON.values.gradient
    size = float(bias.norm())
    assert verdict.bias2.value == pytest.approx(size**2, rel=1e-9 if method == "exact" else 1.0)
    assert size < 0.01 * float(ON.gradient.norm())


def test_delta_is_a_share_of_the_estimated_part():
    share = float(ON.values.gradient.norm() / ON.gradient.norm())
    verdict = gradlab.verify("RF(m=4)", ON, method="monte-carlo", max_draws=2**17, delta=0.2)
    assert verdict.delta == pytest.approx(0.2 * share)
    assert verdict.outcome == "UNBIASED"
    assert verdict.limit <= 0.2 * float(ON.values.gradient.norm())
    # Against the whole gradient 256 draws would do, and ST would pass as well.
    assert verdict.draws > 256
    assert any("estimated part" in note for note in verdict.notes)


def test_a_symmetric_first_part_leaves_delta_as_it_is():
    even = with_parameters(lambda x, logits: 0 * x.sum((-2, -1)) + kl(logits))
    verdict = gradlab.verify("RF(m=2)", even, LOGITS, method="monte-carlo", max_draws=2**14)
    assert verdict.delta == 0.05
    assert verdict.outcome == "UNBIASED"


def test_sums_over_classes_that_are_not_0_are_no_bias():
    """df/dlogits of a norm does not sum to 0 over classes, as a score does."""
    norm = with_parameters(lambda x, logits: (x * W).sum((-2, -1)) + logits.square().sum((-2, -1)))
    assert float(gradlab.exact_gradient(norm, LOGITS).sum(-1).abs().min()) > 0.1
    for method in ("exact", "monte-carlo"):
        assert gradlab.verify("RF(m=2)", norm, LOGITS, method=method).outcome == "UNBIASED"


def surrogate(f, logits, generator):
    x = gradlab.LeaveOneOut(2)
    return x.surrogate(f, logits, generator)


def forgets(f, logits, generator):
    """Lose the direct part: the value of f is detached, and the estimate added."""
    value = gradlab.LeaveOneOut(2).surrogate(lambda x: f(x).detach(), logits, generator)
    return value


def twice(f, logits, generator):
    value = gradlab.LeaveOneOut(2).surrogate(f, logits, generator)
    x = torch.eye(3, dtype=logits.dtype)[torch.zeros(2, dtype=torch.long)].expand(logits.shape)
    return value + f(x) - f(x).detach()


def sample(logits, generator):
    return gradlab.ZGR().sample(logits, generator)


def draws_of_both(f, logits, n, generator):
    return gradlab.LeaveOneOut(2).draw(f, logits, n, generator)


def draws_of_x(f, logits, n, generator):
    return gradlab.LeaveOneOut(2).draw(lambda x: f(x), logits, n, generator)


CODES = {
    surrogate: "UNBIASED",
    forgets: "BIASED",
    twice: "BIASED",
    sample: "BIASED",
    draws_of_both: "UNBIASED",
    draws_of_x: "BIASED",
}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.__name__)
@pytest.mark.few(2, "surrogate", "forgets")
def test_code_of_a_users_own_is_judged_on_the_whole_gradient(code):
    mild = with_parameters(
        lambda x, logits: 3 * (x * W * logits.softmax(-1)).sum((-2, -1)).tanh() + kl(logits)
    )
    verdict = gradlab.verify(code, mild, LOGITS, max_draws=2**17, delta=0.2)
    assert verdict.outcome == CODES[code]


def test_draws_that_are_analysed_have_no_direct_part_to_judge():
    with pytest.raises(ValueError, match="only a surrogate has"):
        gradlab.verify("ZGR", ON, judge="draw")
    assert gradlab.verify("RF(m=2)", ON, judge="training").outcome == "UNBIASED"


def test_rounding_of_a_large_direct_part_is_in_the_bound():
    """Its value is 0 at these logits, so that nothing else tells how large its gradient is."""

    @with_parameters
    def huge(x, logits):
        return (x * W).sum((-2, -1)).tanh() + 1e10 * ((logits - LOGITS.to(x)) * W).sum((-2, -1))

    on = Enumeration(huge, LOGITS.clone())
    found = exact_bias(gradlab.UnorderedSet(2), on)
    assert 1e-9 < found.size <= found.bound < 1e-10 * float(on.gradient.norm())
    assert gradlab.verify("UNORD(k=2)", on).outcome == "UNBIASED"


def test_float32_training_is_judged_in_float32():
    single = with_parameters(lambda x, logits: (x * W.to(x)).sum((-2, -1)).tanh() + 3 * kl(logits))
    verdict = gradlab.verify("RF(m=2)", single, LOGITS.float())
    assert verdict.outcome == "UNBIASED"
    assert "float32" in verdict.how


def test_comparisons_and_rankings_are_of_the_whole_gradient():
    rows = gradlab.compare(ON, estimators=["ST", "RF(m=4)", "ARSM"], draws=4096)
    wanted = float(ON.gradient.square().sum())
    assert rows["truth2"].tolist() == pytest.approx([wanted] * 3)
    assert rows.loc[1, "bias2"] < 1e-20
    assert abs(rows.loc[2, "bias2"]) < 4 * rows.loc[2, "bias2_se"]
    found = gradlab.recommend(ON, evaluations=4, estimators=["RF(m=4)", "ST", "ARSM"], draws=256)
    assert found.length2.value == pytest.approx(wanted)
    assert set(found.table["series"]) == {"RF(m=4)", "ST", "ARSM"}


@pytest.mark.parametrize("reference", [True, False], ids=["draws", "enumeration"])
def test_the_probe_measures_against_the_whole_gradient(reference, monkeypatch):
    if reference:
        monkeypatch.setattr("gradlab.nn.probe.LARGEST_STATES", 1)
    torch.manual_seed(0)
    encoder = torch.nn.Linear(4, 6).double()
    logits = encoder(random(5, 4, seed=3)).unflatten(-1, (2, 3))
    data = random(5, seed=4)

    def f(x, logits):
        return data * (x * W).sum((-2, -1)).tanh() + kl(logits)

    probe = gradlab.GradientProbe(["ST", "RF(m=4)"], draws=4096, reference_draws=8192, seed=1)
    probe(0, with_parameters(f), logits)
    truth = gradlab.exact_gradient(with_parameters(f), logits)
    row = probe.rows.iloc[1]
    error = row["truth2_se"] if reference else 0.0
    assert abs(row["truth2"] - float(truth.square().sum())) <= 4 * error + 1e-12
    assert row["bias2"] <= 4 * row["bias2_se"] + 1e-12
    assert probe.rows["reason"].isna().all()
    # The training goes on: the graph of the encoder is as it was.
    gradlab.ZGR().surrogate(with_parameters(f), logits).sum().backward()
    assert float(encoder.weight.grad.norm()) > 0


def test_a_batch_is_proved_element_by_element():
    on = EnumeratedBatch(f, random(3, 2, 3, seed=6))
    verdict = gradlab.verify("RF(m=2)", on)
    assert verdict.outcome == "UNBIASED"
    torch.testing.assert_close(verdict.target, on.gradient)
    assert gradlab.verify("ST", on).outcome == "BIASED"


def test_too_many_states_for_enumeration_are_judged_by_draws():
    logits = random(30, 3, seed=7)
    weight = random(30, 3, seed=8)
    large = with_parameters(lambda x, logits: (x * weight).sum((-2, -1)) / 30 + kl(logits) / 30)
    verdict = gradlab.verify("ST", large, logits, max_draws=2**12, delta=0.5)
    assert verdict.method == "monte carlo"
    assert verdict.outcome != "BIASED"  # ST is exact for linear f
    assert math.isfinite(verdict.limit)

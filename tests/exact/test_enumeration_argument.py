"""An enumeration is given in place of f and logits: never beside them, and never of another f."""

import os
import warnings

import pytest
import torch

import gradlab
from cases import logits_of, loss_of
from gradlab import ZGR, CategoricalLayer, compare, exact_moments, recommend, verify
from gradlab.cli import main
from gradlab.comparison.comparing import reproducible_columns
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.verification.exact_bias import exact_bias

pytestmark = pytest.mark.usefixtures("unchecked")  # wrong arguments are what is tried here

F, LOGITS = loss_of("quadratic"), logits_of("moderate")
ON = Enumeration(F, LOGITS)

# Every public function that takes f and logits or an enumeration, with (f, logits) left open.
CALLS = {
    "compare": lambda *on, **more: compare(*on, estimators=["ST", "RF"], **more),
    "verify": lambda *on, **more: verify("ST", *on, **more),
    "recommend": lambda *on: recommend(*on, evaluations=8, estimators=["ST", "RF"]),
    "exact_moments": lambda *on: exact_moments(ZGR(), *on),
    "exact_bias": lambda *on, **more: exact_bias(ZGR(), *on, **more),
}
OLD = {name: CALLS[name] for name in ("compare", "verify", "exact_bias")}
each = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_old = pytest.mark.parametrize("call", OLD.values(), ids=OLD)


def numbers(result) -> list:
    """Return all that a result says, in a form that compares exactly."""
    if isinstance(result, gradlab.Verdict):
        return [result.explain(), result.bias.tolist(), result.target.tolist()]
    if hasattr(result, "table"):
        return [result.table.to_csv(), reproducible_columns(result.rows).to_csv()]
    if hasattr(result, "columns"):
        return [reproducible_columns(result).to_csv()]
    return [result.mean.tolist()]


@each
@pytest.mark.few(2)
def test_an_enumeration_gives_what_f_and_logits_give(call):
    assert numbers(call(ON)) == numbers(call(F, LOGITS))


@each
def test_both_are_refused(call):
    with pytest.raises(TypeError, match=r"logits .*beside an Enumeration.*leave.* out"):
        call(ON, LOGITS)


@each
def test_neither_is_refused(call):
    with pytest.raises(TypeError, match=r"logits are missing.*\(f, logits\).*Enumeration"):
        call(F)


def test_estimators_in_the_place_of_logits_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"compare\(on, estimators=\[\.\.\.\]\)"):
        compare(ON, ["ST"])


def test_no_estimators_are_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        compare(F, LOGITS)


@each_old
def test_an_enumeration_twice_is_refused(call):
    with pytest.raises(TypeError, match="beside an Enumeration"):
        call(ON, enumeration=ON)


@each_old
def test_the_old_keyword_warns_and_gives_the_same(call):
    with pytest.warns(DeprecationWarning, match="enumeration.*in place of f") as seen:
        old = call(F, LOGITS, enumeration=ON)
    if "GRADLAB_CHECK_SHAPES" not in os.environ:  # whose wrappers are further frames
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(call(ON)) == numbers(old)


@each_old
@pytest.mark.parametrize(
    ("f", "logits", "message"),
    [
        (loss_of("cubic"), LOGITS, "is of quadratic.*not of the f that is given, cubic"),
        (F, LOGITS + torch.eye(*LOGITS.shape), "at other logits"),
        (F, LOGITS[:1], "at other logits"),
        (F, torch.zeros(2, 3), "at float64 logits, not at float32"),
    ],
    ids=["f", "logits", "shape", "dtype"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_old_keyword_must_be_of_the_same(call, f, logits, message):
    on = Enumeration(F, torch.zeros_like(LOGITS)) if logits.dtype == torch.float32 else ON
    with pytest.raises(ValueError, match=message):
        call(f, logits, enumeration=on)


def batched(x):
    """Return one objective for each of three elements, x [..., 3, N, C] -> [..., 3]."""
    return torch.stack([loss_of(k)(x[..., i, :, :]) for i, k in enumerate(KINDS)], -1)


KINDS = ("linear", "quadratic", "cubic")
LOGITS_OF_ALL = torch.stack([logits_of(name) for name in ("uniform", "moderate", "peaked")])


@pytest.mark.parametrize("name", ["compare", "verify", "exact_moments", "recommend"])
@pytest.mark.few(1)
def test_a_batch_is_an_argument_too(name):
    on = EnumeratedBatch(batched, LOGITS_OF_ALL)
    assert numbers(CALLS[name](on)) == numbers(CALLS[name](batched, LOGITS_OF_ALL))


@pytest.mark.parametrize("name", ["compare", "verify"])
def test_the_old_keyword_takes_a_batch(name):
    on = EnumeratedBatch(batched, LOGITS_OF_ALL)
    with pytest.warns(DeprecationWarning, match="in place of f"):
        old = CALLS[name](batched, LOGITS_OF_ALL, enumeration=on)
    assert numbers(CALLS[name](on)) == numbers(old)


@pytest.mark.parametrize("name", ["exact_bias"])
def test_a_batch_is_refused_where_one_element_is_asked_for(name):
    with pytest.raises(ValueError, match=r"\[N, C\].*not \[3, 2, 3\]"):
        CALLS[name](EnumeratedBatch(batched, LOGITS_OF_ALL))
    with pytest.raises(ValueError, match=r"\[N, C\].*not \[3, 2, 3\]"):
        CALLS[name](batched, LOGITS_OF_ALL)


def test_an_element_of_a_batch_is_an_enumeration():
    on = EnumeratedBatch(batched, LOGITS_OF_ALL).elements[1]
    alone = compare(ON, estimators=["ST", "RF"])
    assert numbers(compare(on, estimators=["ST", "RF"], problem=alone.problem[0])) == numbers(alone)


def test_the_dtype_of_the_enumeration_reaches_the_code():
    seen = set()

    def code(f, logits, n, generator):
        seen.add(logits.dtype)
        return gradlab.LeaveOneOut(2).draw(f, logits, n, generator)

    on = Enumeration(F, LOGITS.float())
    verdict = verify(code, on, draws=320)
    assert seen == {torch.float32}
    assert numbers(verdict) == numbers(verify(code, F, LOGITS.float(), draws=320))
    assert compare(on, estimators=["ST"])["dtype"].item() == "float32"


@pytest.mark.thorough  # test_an_enumeration_gives_what_f_and_logits_give
def test_an_enumeration_of_a_probe_like_loss_is_verified():
    layer = CategoricalLayer("ZGR")
    weight = torch.nn.Parameter(torch.linspace(-1, 1, LOGITS.numel(), dtype=torch.float64))
    logits = LOGITS.clone().requires_grad_()

    def loss(x):
        return (x.flatten(-2) @ weight).tanh()

    verdict = verify(layer, Enumeration(loss, logits))
    assert numbers(verdict) == numbers(verify(layer, loss, logits))


def test_logits_that_a_training_changes_leave_the_enumeration_as_it_was():
    logits = LOGITS.clone()
    on = Enumeration(F, logits)
    batch = EnumeratedBatch(batched, whole := LOGITS_OF_ALL.clone())
    logits.add_(1.0 * torch.eye(*logits.shape))
    whole.add_(torch.eye(*logits.shape))
    assert torch.equal(on.gradient, ON.gradient)
    assert torch.equal(batch.gradient, EnumeratedBatch(batched, LOGITS_OF_ALL).gradient)
    assert numbers(verify("RF", on, method="monte-carlo")) == numbers(
        verify("RF", ON, method="monte-carlo")
    )


def test_the_command_line_enumerates_once(monkeypatch, capsys):
    made = []
    before = Enumeration.__post_init__
    monkeypatch.setattr(
        Enumeration, "__post_init__", lambda self: (made.append(self), before(self))[1]
    )
    arguments = ["verify", "ZGR", "RF", "--problem", "quadratic", "--size", "2x3"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert main(arguments) == 0
    assert len(made) == 1
    assert "UNBIASED" in capsys.readouterr().out

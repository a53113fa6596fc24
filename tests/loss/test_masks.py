"""Masks written as a large negative number: what has probability 0 counts as masked by -inf."""

import itertools
import math

import pytest
import torch

from cases import CLAIMS, generator, logits_of, loss_of
from gradlab.categorical import is_masked, log_probabilities, masked_logits, probabilities
from gradlab.exact.truth import exact_gradient
from gradlab.exact.tuples import tuple_moments

MASKS = ["-1e4", "-1e8", "finfo.min"]
# A mask in each dtype for every estimator; `make test-all` tries all pairs.
SHORT = [(torch.float32, "finfo.min"), (torch.float64, "-1e4")]
with_masks = pytest.mark.parametrize(
    ("dtype", "mask"),
    [
        pytest.param(*pair, marks=() if pair in SHORT else pytest.mark.slow)
        for pair in itertools.product([torch.float32, torch.float64], MASKS)
    ],
)
of_all = pytest.mark.parametrize("claim", CLAIMS, ids=[str(c.estimator) for c in CLAIMS])


def masked_by(claim, mask: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits with a mask of -inf, and the same with this mask."""
    logits = logits_of("masked", 3, 2 if claim.binary else 4).to(dtype)
    value = torch.finfo(dtype).min if mask == "finfo.min" else float(mask)
    return logits, logits.masked_fill(logits == -math.inf, value)


@of_all
@with_masks
@pytest.mark.few(38)
def test_draws_are_those_of_a_mask_of_minus_infinity(claim, dtype, mask):
    logits, same = masked_by(claim, mask, dtype)
    f = loss_of("cubic", *logits.shape)
    expected, found = (claim.estimator.draw(f, each, 50, generator()) for each in (logits, same))
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert (found[:, logits == -math.inf] == 0).all()


@of_all
@with_masks
@pytest.mark.few(38)
def test_training_gets_the_same_gradient(claim, dtype, mask):
    f, grads = None, []
    for logits in masked_by(claim, mask, dtype):
        f = f or loss_of("cubic", *logits.shape)
        leaf = logits.clone().requires_grad_()
        claim.estimator.surrogate(f, leaf, generator()).sum().backward()
        grads.append(leaf.grad)
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(grads[1], grads[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.binary and not c.pathwise], ids=str)
@pytest.mark.parametrize("gap", [110.0, 150.0, 1e3, 1e30])
def test_a_class_that_underflows_in_single_precision_gets_nothing(claim, gap):
    logits = torch.tensor([[0.0, -gap], [0.3, 0.1], [-gap, 2.0]])
    g = claim.estimator.draw(loss_of("cubic", 3, 2), logits, 200, generator())
    assert (g[:, 0] == 0).all()
    assert (g[:, 2] == 0).all()
    assert (g[:, 1] != 0).any()


@pytest.mark.parametrize("gap", [110.0, 150.0, 700.0])
def test_the_precision_decides_what_is_masked(gap):
    logits = torch.tensor([[0.0, -gap, 1.0]], dtype=torch.float64)
    assert masked_logits(logits).isfinite().all()
    assert masked_logits(logits.float()).isfinite().tolist() == [[True, False, True]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [-1e4, -3e4, -math.inf])
def test_a_masked_class_has_probability_zero_and_no_logarithm(dtype, mask):
    logits = torch.tensor([[0.5, mask, -1.0], [mask, mask, 0.0]], dtype=dtype)
    masked = is_masked(probabilities(logits))
    assert masked.tolist() == [[False, True, False], [True, True, False]]
    assert torch.equal(log_probabilities(masked_logits(logits)) == -math.inf, masked)
    torch.testing.assert_close(
        probabilities(masked_logits(logits)), probabilities(logits), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    "claim",
    [c for c in CLAIMS if hasattr(c.estimator, "estimate_at") and not c.binary],
    ids=lambda c: str(c.estimator),
)
@pytest.mark.parametrize("mask", [-1e4, -1e8, torch.finfo(torch.float64).min])
@pytest.mark.few(18)
def test_tuples_leave_masked_classes_out(claim, mask):
    logits = logits_of("masked")
    f = loss_of("table")
    f = loss_of("cubic") if claim.needs_gradient else f
    expected = tuple_moments(claim.estimator, f, logits)
    found = tuple_moments(claim.estimator, f, logits.masked_fill(logits == -math.inf, mask))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[0], exact_gradient(f, logits), rtol=0, atol=1e-10)

"""I-MLE in closed form, against quadrature over its noise, and its limit."""

import math

import pytest
import scipy
import torch
from torch import Tensor

import gradlab
from cases import generator, logits_of, loss_of
from gradlab.exact.perturbed import chance_to_move, imle_limit, imle_moments
from significance import limit

P = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
V = torch.tensor([1.3, -0.4, 0.5], dtype=torch.float64)


def density(a: float, weight: float) -> float:
    """The density of a Gumbel variable at log(weight)."""
    return weight * math.exp(-a - weight * math.exp(-a))


def below(a: float, weight: float) -> float:
    return math.exp(-weight * math.exp(-a))


@pytest.mark.parametrize("lam", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, 2), (2, 1), (1, 0)])
@pytest.mark.few(4)
def test_the_chance_to_move_is_that_of_quadrature_over_the_noise(i: int, j: int, lam: float):
    (k,) = {0, 1, 2} - {i, j}
    step = lam * float(V[i] - V[j])

    def integrand(gap: float, a: float) -> float:
        # z = i at a + gap, z' = j at a; k is below both, before the step and after.
        third = min(a + gap, a + lam * float(V[k] - V[j]))
        both = density(a + gap, float(P[i])) * density(a, float(P[j]))
        return both * below(third, float(P[k]))

    wanted = 0.0
    if step > 0:
        wanted, _ = scipy.integrate.dblquad(integrand, -6, 40, 0, step, epsabs=1e-10)
    x = torch.eye(3, dtype=torch.float64)[i]
    found = float(chance_to_move(P, x, V, lam)[j] * P[i])
    assert found == pytest.approx(wanted, abs=1e-8)


def test_probabilities_of_moving_sum_to_one_and_keep_masked_classes_out():
    p = torch.tensor([0.6, 0.0, 0.4], dtype=torch.float64)
    for x in torch.eye(3, dtype=torch.float64)[[0, 2]]:
        for lam in (1e-9, 1.0, 1e6):
            found = chance_to_move(p, x, V, lam)
            assert float(found.sum()) == pytest.approx(1)
            assert float(found[1]) == 0
            assert bool((found >= 0).all())


@pytest.mark.parametrize("size", [(1, 4), (2, 3)])
@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("lam", [0.2, 1.0, 8.0])
def test_draws_agree_with_the_exact_moments(size: tuple[int, int], logits: str, lam: float):
    f, at = loss_of("cubic", *size), logits_of(logits, *size)
    exact = gradlab.exact_moments(gradlab.IMLE(lam), f, at)
    found = gradlab.monte_carlo(f"I-MLE(lam={lam})", f, at, 20_000)
    # A class that is never drawn has no error, and then a mean of 0.
    z = (found.mean - exact.mean) / found.mean_se.clamp_min(1e-12)
    assert float(z.abs().max()) < limit(100)
    assert abs(found.variance.value - exact.variance.value) < 6 * found.variance.se + 1e-12
    surrogate = gradlab.IMLE(lam).surrogate(f, at.requires_grad_(), generator())
    surrogate.backward()
    assert bool(at.grad.isfinite().all())


def limit_by_quadrature(f, logits: Tensor) -> Tensor:
    """The limit at one categorical: both at the same height, integrated over the height."""
    p, unit = logits.softmax(-1), torch.eye(len(logits), dtype=torch.float64)
    found = torch.zeros_like(p)
    for i, x in enumerate(unit):
        leaf = x.clone().requires_grad_()
        (v,) = torch.autograd.grad(f(leaf[None, :]), leaf)
        for j in range(len(p)):
            rest = float(1 - p[i] - p[j]) if i != j else 0.0

            def height(a: float, i=i, j=j, rest=rest) -> float:
                both = density(a, float(p[i])) * density(a, float(p[j]))
                return both * (below(a, rest) if rest > 0 else 1.0)

            if i != j and v[i] > v[j]:
                rate, _ = scipy.integrate.quad(height, -8, 60, epsabs=1e-12)
                found += rate * float(v[i] - v[j]) * (x - unit[j])
    return found


@pytest.mark.parametrize("name", ["linear", "quadratic", "cubic", "mlp"])
def test_the_limit_agrees_with_quadrature(name: str):
    f, logits = loss_of(name, 1, 4), logits_of("moderate", 1, 4)
    found = imle_limit(f, logits)
    assert torch.allclose(found[0], limit_by_quadrature(f, logits[0]), atol=1e-6)
    # What is left at a small step is of the size of the step.
    off = [float((imle_moments(f, logits, lam).mean - found).norm()) for lam in (1e-3, 1e-4)]
    assert off[0] / off[1] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("size", [(1, 4), (2, 3)])
@pytest.mark.parametrize(
    ("name", "is_exact"), [("linear", True), ("quadratic", False), ("cubic", False)]
)
def test_the_limit_is_exact_for_linear_f_only(name: str, is_exact: bool, size: tuple[int, int]):
    f, logits = loss_of(name, *size), logits_of("moderate", *size)
    truth = gradlab.exact_gradient(f, logits)
    off = float((imle_limit(f, logits) - truth).norm() / truth.norm())
    assert (off < 1e-12) == is_exact
    assert off < 1e-12 or off > 1e-2


def test_the_limit_is_the_mean_of_zgr_and_a_term_of_absolute_differences():
    f, logits = loss_of("cubic", 1, 4), logits_of("moderate", 1, 4)
    p, x = logits.softmax(-1)[0], torch.eye(4, dtype=torch.float64)
    leaf = x[:, None].clone().requires_grad_()
    (v,) = torch.autograd.grad(f(leaf).sum(), leaf)
    v = v[:, 0]
    h = v.diagonal()[:, None] - v  # h_ij = d_i f(e_i) - d_j f(e_i)
    more = torch.einsum("i,j,ij,ijc->c", p, p, h.abs(), x[:, None] - x[None]) / 2
    zgr = gradlab.exact_moments(gradlab.ZGR(), f, logits).mean[0]
    assert torch.allclose(imle_limit(f, logits)[0], zgr + more, atol=1e-14)


def test_the_variance_grows_as_the_step_falls():
    f, logits = loss_of("cubic"), logits_of("moderate")
    wide, fine = (imle_moments(f, logits, lam).variance.value for lam in (1e-3, 1e-4))
    assert fine / wide == pytest.approx(10, rel=0.02)


def test_where_exact_moments_take_long_draws_are_used():
    f, logits = loss_of("quadratic", 2, 150), logits_of("moderate", 2, 150)
    (row,) = gradlab.compare(f, logits, ["I-MLE(lam=1)"], draws=64).to_dict("records")
    assert row["method"] == "monte carlo"
    assert "exact moments would take about" in row["note"]


@pytest.mark.parametrize("lam", [0.0, -1.0, math.inf, math.nan])
def test_a_step_that_is_none_is_refused(lam):
    with pytest.raises(ValueError, match="lam must be a positive finite number"):
        gradlab.IMLE(lam)

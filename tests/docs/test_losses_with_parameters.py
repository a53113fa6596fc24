"""What docs/how-to/losses-with-parameters.md says of a recipe holds where the recipe has ended."""

import contextlib
import io
from functools import cache

import pytest
import torch

import gradlab
from pages import blocks, sentences

PAGE = "docs/how-to/losses-with-parameters.md"
SAID = sentences(PAGE)
NAMES = ["rule", "elbo", "entropy", "router", "rounding", "prior", "tied"]


@cache
def after(name):
    """Return the names of a recipe after it has run."""
    found = {block.number: block for block in blocks("python") if block.page == PAGE}
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(found[1 + NAMES.index(name)].code, names)
    return names


def rows_of(name):
    return after(name)["rows"].set_index("estimator")


def test_every_recipe_is_here():
    assert len([block for block in blocks("python") if block.page == PAGE]) == len(NAMES)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_recipe_ends_with_rows_of_three_or_four_estimators(name):
    names = after(name)
    rows = rows_of(name)
    assert len(rows) == 4
    usable = rows[rows["reason"].isna()]
    assert len(usable) >= 3
    assert (usable["method"] == "exact").all()
    assert (usable[usable.index.str.startswith(("RF", "LE", "REIN"))]["bias2"] < 1e-20).all()
    g = names.get("g")
    if g is None:
        g = torch.cat([names["of_weight"], names["of_step"].reshape(1)])
    assert usable["truth2"].iloc[0] == pytest.approx(float(g.square().sum()))


def test_the_closed_form_has_less_noise_and_the_same_gradient_and_bias():
    assert "Every estimator here has less noise with the closed form, and the same bias." in SAID
    names = after("elbo")
    estimators = ["ST", "ZGR", "RF(m=4)", "LE"]
    closed = gradlab.compare(names["closed"], names["logits"], estimators)
    sampled = gradlab.compare(names["sampled"], names["logits"], estimators)
    assert (closed["variance"] < sampled["variance"]).all()
    assert closed["truth2"].tolist() == pytest.approx(sampled["truth2"].tolist())
    assert closed["bias2"].tolist() == pytest.approx(sampled["bias2"].tolist(), abs=1e-12)
    # The KL by torch, and the gradient of the whole by hand.
    q = torch.distributions.Categorical(logits=names["logits"])
    uniform = torch.distributions.Categorical(logits=torch.zeros(3, 3, dtype=torch.float64))
    kl = torch.distributions.kl_divergence(q, uniform).sum()
    x = torch.eye(3, dtype=torch.float64)
    found = names["closed"](x, names["logits"]) - names["nll"](x)
    assert float(found) == pytest.approx(float(kl))


def test_a_score_function_that_sees_the_entropy_as_a_number_misses_its_gradient():
    names = after("entropy")
    assert float(torch.cosine_similarity(names["first"].flatten(), names["g"].flatten(), 0)) < 0.9
    leaf = names["logits"].clone().requires_grad_()
    entropy = torch.distributions.Categorical(logits=leaf).entropy().sum()
    (of_entropy,) = torch.autograd.grad(-entropy, leaf)
    torch.testing.assert_close(names["g"] - names["first"], of_entropy, rtol=0, atol=1e-13)
    assert "is not differentiable" in rows_of("entropy").loc["ST", "reason"]


def test_the_direct_part_of_a_router_is_too_short():
    assert "it is 18 % too short and has a cosine of 0.87" in SAID
    names, rows = after("router"), rows_of("router")
    assert f"{1 - float(names['direct'].norm() / names['g'].norm()):.0%}" == "18%"
    cosine = torch.cosine_similarity(names["direct"].flatten(), names["g"].flatten(), 0)
    assert f"{float(cosine):.2f}" == "0.87"
    assert rows.loc["RF(m=4)", "variance"] < rows.loc["ZGR", "variance"]
    assert rows.loc["RF(m=4)", "calls"] == 4


def test_zgr_is_exact_for_rounded_weights_and_their_step():
    rows, names = rows_of("rounding"), after("rounding")
    assert rows.loc["ZGR", "bias2"] < 1e-20 * rows.loc["ZGR", "truth2"]
    assert rows.loc["ST", "bias2"] > 0.01 * rows.loc["ST", "truth2"]
    scaled = names["weight"] / names["log_step"].exp()
    clipped = (scaled > 2) | (scaled < -2)
    assert bool(clipped.any())
    assert bool((names["of_weight"][clipped] == 0).all())
    assert bool((names["of_weight"][~clipped] != 0).all())
    # By differences of the exact value, where no weight changes its cell.
    step = 1e-6
    values = [
        gradlab.exact_value(
            names["f"], (names["weight"], names["log_step"] + sign * step), distribution=names["up"]
        )
        for sign in (1, -1)
    ]
    slope = float(values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float(names["of_step"]), rel=1e-5)


def test_the_prior_gets_its_gradient_without_noise():
    names = after("prior")
    found = []
    for _ in range(3):
        names["prior"].grad = None
        gradlab.ZGR().surrogate(names["f"], names["logits"]).backward()
        found.append(names["prior"].grad.clone())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], names["of_prior"], rtol=0, atol=1e-14)
    names["prior"].grad = None
    # All the noise is of the reconstruction.
    without = lambda x: (  # noqa: E731
        torch.nn.functional.softplus(x.flatten(-2) @ names["decoder"])
        - names["image"] * (x.flatten(-2) @ names["decoder"])
    ).sum(-1)
    rows = gradlab.compare(without, names["logits"].detach().clone(), ["ZGR", "RF(m=4)"])
    wanted = rows_of("prior").loc[["ZGR", "RF(m=4)"], "variance"]
    assert rows["variance"].tolist() == pytest.approx(wanted.tolist())


def test_the_gradient_of_a_shared_row_is_a_sum_and_its_mark_is_needed():
    names = after("tied")
    row = names["row"].clone().requires_grad_()
    with pytest.raises(gradlab.loss.HoldsLogitsError):
        gradlab.exact_gradient(lambda x: names["f"](x, row), row, distribution=names["tied"])


@pytest.mark.parametrize("wrong", ["f(x)", "sum()", "entr"])
def test_the_rules_are_those_of_the_gate(wrong):
    logits = torch.zeros(2, 3, dtype=torch.float64)
    masked = logits.clone()
    masked[0, 0] = -torch.inf
    cases = {
        "f(x)": (lambda x, logits: x.sum((-2, -1)), logits, gradlab.loss.SecondArgumentError),
        "sum()": (
            gradlab.with_parameters(lambda x, logits: x[..., 0].sum(-1) + logits.exp().sum()),
            logits,
            gradlab.loss.BatchDependentError,
        ),
        "entr": (
            gradlab.with_parameters(
                lambda x, logits: (
                    x[..., 0].sum(-1) + torch.special.entr(logits.softmax(-1)).sum((-2, -1))
                )
            ),
            masked,
            gradlab.loss.NotFiniteError,
        ),
    }
    f, at, error = cases[wrong]
    with pytest.raises(error):
        gradlab.exact_gradient(f, at)
    assert error.__name__ in SAID or "refuses" in SAID

"""Deep stochastic networks: exact gradients and moments, draws against them, their figure."""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import gradlab
from gradlab.estimators import (
    ARSM,
    DARN,
    STZGR,
    ZGR,
    Estimator,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    StraightThrough,
)
from gradlab.exact.enumeration import TooLargeError
from gradlab.figures.depth import draws, plot
from gradlab.figures.depth import rows as figure
from gradlab.figures.depth.draws import deep_moments, draw_gradients, passes
from gradlab.figures.depth.exact import exact_deep_moments, exact_means
from gradlab.figures.depth.network import (
    DeepNetwork,
    Layer,
    exact_gradients,
    expected_loss,
    state_probabilities,
    states,
)
from gradlab.figures.depth.task import classification, training
from gradlab.loss import LossError, NotDifferentiableError
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.problems import Quadratic, problem, regime
from gradlab.reproducible import block_generator
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

UNBIASED = [Reinforce(0.7), LeaveOneOut(2), LeaveOneOut(4), ARSM()]
SLOW_TO_DRAW = GumbelRao(1.0, None)
WITH_MOMENTS = [
    *(StraightThrough(), DARN(), ZGR(), STZGR(0.5), GumbelSoftmaxST(0.5), GumbelRao(0.5, 10)),
    *(SLOW_TO_DRAW, Reinforce(0.7), LeaveOneOut(2), LeaveOneOut(4)),
]
each = pytest.mark.parametrize("estimator", UNBIASED, ids=str)


def uneven(hidden: int = 3) -> DeepNetwork:
    """Three layers of different sizes with tanh features, a masked class, two inputs."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    layers, below = [], 2
    for variables, classes in ((2, 3), (3, 2), (1, 4)):
        numbers = variables * classes
        mixing = normal(below, hidden) if hidden else None
        bias = normal(variables, classes)
        if classes == 3:
            bias[1, 2] = -math.inf
        layers.append(Layer(bias, normal(below + hidden, numbers), mixing))
        below = numbers
    table = normal(2, 4)

    def loss(x):
        return (torch.einsum("...bnc,bc->...b", x, table) + 0.3).square()

    return DeepNetwork(tuple(layers), loss, normal(2, 2))


def noisy() -> DeepNetwork:
    """A classifier without rare classes, which draws would miss."""
    return classification(3, 3, hidden=2, gain=1.0)


def one_layer(f, logits: torch.Tensor) -> DeepNetwork:
    return DeepNetwork((Layer(logits, logits.new_zeros(0, logits.numel())),), f)


def by_paths(network: DeepNetwork) -> torch.Tensor:
    """E f for each input as a sum over all paths through the layers."""
    total = torch.zeros(len(network.inputs), dtype=torch.float64)
    spaces = [states(layer) for layer in network.layers]
    for path in itertools.product(*spaces):
        for b, h in enumerate(network.inputs):
            p, below = torch.ones((), dtype=torch.float64), h
            for layer, x in zip(network.layers, path, strict=True):
                p = p * (torch.softmax(layer.logits(below), -1) * x).sum(-1).prod()
                below = x.flatten()
            x = path[-1].expand(len(network.inputs), *path[-1].shape)
            total = total + p * network.loss(x)[b] * (torch.arange(len(total)) == b)
    return total


def with_leaves(network: DeepNetwork) -> DeepNetwork:
    for layer in network.layers:
        layer.bias.requires_grad_()
        layer.weight.requires_grad_()
    return network


# ---- the exact gradient -----------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [by_paths, expected_loss], ids=["paths", "autograd"])
@pytest.mark.few(1)
def test_gradients_agree_with_paths_and_with_autograd(value):
    network = with_leaves(uneven())
    exact = exact_gradients(network)
    for b in range(2):
        leaves = [t for layer in network.layers for t in (layer.bias, layer.weight)]
        expected = torch.autograd.grad(value(network)[b], leaves)
        found = [t[b] for g in exact for t in g]
        for a, e in zip(found, expected, strict=True):
            torch.testing.assert_close(a, e.nan_to_num(0.0), rtol=0, atol=1e-10)


def test_the_expected_loss_is_the_sum_over_paths():
    network = uneven(hidden=0)
    torch.testing.assert_close(expected_loss(network), by_paths(network), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [0, 10, 100])
@pytest.mark.few(1)
def test_gradients_of_a_classifier_agree_with_autograd(steps):
    ((_, network),) = training(classification(3, hidden=2), [steps])
    network = with_leaves(network)
    leaves = [t for layer in network.layers for t in (layer.bias, layer.weight)]
    expected = torch.autograd.grad(expected_loss(network).sum(), leaves)
    found = [t.sum(0) for g in exact_gradients(network) for t in g]
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=1e-10)


def test_gradients_sum_to_zero_and_masked_classes_have_none():
    first = exact_gradients(uneven())[0].bias
    assert first.sum(-1).abs().max() < 1e-14
    assert (first[:, 1, 2] == 0).all()


def test_states_and_their_probabilities_are_in_one_order():
    logits = regime("moderate", 3, 2)
    layer = Layer(logits, logits.new_zeros(0, 6))
    expected = (torch.softmax(logits, -1) * states(layer)).sum(-1).prod(-1)
    torch.testing.assert_close(state_probabilities(logits), expected)


@pytest.mark.parametrize("estimator", WITH_MOMENTS, ids=str)
@pytest.mark.parametrize("name", ["quadratic", "mlp"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.few(14)
def test_one_layer_agrees_with_the_exact_engine(estimator, name, classes):
    f, logits = problem(name, 3, classes), regime("moderate", 3, classes)
    network = one_layer(f, logits)
    truth = gradlab.exact_gradient(f, logits)
    torch.testing.assert_close(exact_gradients(network)[0].bias[0], truth, rtol=0, atol=1e-10)
    expected = gradlab.exact_moments(estimator, f, logits)
    means = exact_means(network, estimator)
    assert means is not None
    torch.testing.assert_close(means[0][0], expected.mean, rtol=0, atol=1e-10)
    found = exact_deep_moments(network, estimator)
    if found is None:  # E[M v v^T M^T | x] is not known
        assert classes > 2
        assert isinstance(estimator, GumbelSoftmaxST | GumbelRao)
        return
    torch.testing.assert_close(
        found[0].variance_per_variable, expected.variance_per_variable, rtol=0, atol=1e-10
    )


def test_zgr_is_exact_on_one_layer_of_a_quadratic_and_on_the_last_layer_only():
    f, logits = Quadratic.random(3, 3), regime("moderate", 3, 3)
    (found,) = exact_means(one_layer(f, logits), ZGR()) or ()
    torch.testing.assert_close(found[0], gradlab.exact_gradient(f, logits), rtol=0, atol=1e-10)
    network = uneven()  # its loss is a quadratic of the last layer
    relative = [
        float((m - g.bias).norm() / g.bias.norm())
        for m, g in zip(exact_means(network, ZGR()) or (), exact_gradients(network), strict=True)
    ]
    assert relative[-1] < 1e-12
    assert min(relative[:-1]) > 1e-3


# ---- draws ------------------------------------------------------------------------------------

DRAWS = 16_384


def worst(found: tuple[Moments, ...], expected) -> float:
    return max(
        float(scores(m.mean, e.flatten(0, -2), m.mean_se).abs().max())
        for m, e in zip(found, expected, strict=True)
    )


@pytest.mark.usefixtures("unchecked")
@each
@pytest.mark.parametrize("make", [uneven, noisy], ids=["uneven", "classifier"])
@pytest.mark.few(2)
def test_score_function_estimators_are_unbiased_in_every_layer(estimator, make):
    network = make()
    truth = [g.bias for g in exact_gradients(network)]
    assert worst(deep_moments(network, estimator, DRAWS), truth) < limit()


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.few(1)
def test_a_dropped_factor_would_be_noticed(layer):
    network = uneven()
    found = deep_moments(network, LeaveOneOut(4), DRAWS)[layer]
    truth = exact_gradients(network)[layer].bias
    assert worst((found,), [3 / 4 * truth]) > limit()


@pytest.mark.parametrize("estimator", [e for e in WITH_MOMENTS if e != SLOW_TO_DRAW], ids=str)
@pytest.mark.few(3)
def test_draws_agree_with_exact_moments(estimator):
    network = noisy()
    exact = exact_deep_moments(network, estimator)
    assert exact is not None
    found = deep_moments(network, estimator, 4096 if isinstance(estimator, GumbelRao) else DRAWS)
    assert worst(found, [m.mean for m in exact]) < limit()
    z = [
        float(scores(a.variance.value, b.variance.value, a.variance.se))
        for a, b in zip(found, exact, strict=True)
    ]
    assert max(map(abs, z)) < limit(GROUPS - 1), z


def test_exact_variances_of_straight_through_would_notice_a_missing_product():
    network = noisy()
    found = deep_moments(network, ZGR(), DRAWS)
    wrong = exact_deep_moments(network, StraightThrough())
    assert wrong is not None
    first, other = found[0].variance, wrong[0].variance
    assert abs(float(scores(first.value, other.value, first.se))) > limit(GROUPS - 1)


def test_the_relaxed_estimator_has_draws_only():
    network = classification(2, 2)
    assert exact_means(network, GumbelSoftmax()) is None
    assert exact_deep_moments(network, GumbelSoftmax()) is None
    assert exact_deep_moments(network, ARSM()) is None
    found = deep_moments(network, GumbelSoftmax(1.0), 512)
    assert all(m.mean.sum(-1).abs().max() < 1e-12 for m in found)


# ---- reproducibility, cost --------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [ZGR(), LeaveOneOut(2), ARSM()], ids=str)
def test_one_seed_one_result(estimator):
    network = classification(2, 3)
    first, again, other = (deep_moments(network, estimator, 256, seed) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.mean, b.mean)
        assert a.variance == b.variance
        assert not torch.equal(a.mean, c.mean)
    row = deep_moments(network, estimator, 256, 1, row="other")
    assert not torch.equal(first[0].mean, row[0].mean)


def test_blocks_are_drawn_alone_and_merged_in_order(monkeypatch):
    monkeypatch.setattr(draws, "_BLOCK_NUMBERS", 6 * 8 * 2 * GROUPS)
    network, estimator = classification(2, 3), ZGR()
    sums = [
        Groups.from_draws(
            draw_gradients(network, estimator, 2 * GROUPS, block_generator(3, f"|{estimator}", k))[
                0
            ].flatten(1, 2)
        )
        for k in range(3)
    ]
    expected = Moments.from_groups(sums[0].merge(sums[1]).merge(sums[2]))
    found = deep_moments(network, estimator, 6 * GROUPS, 3)[0]
    assert torch.equal(found.mean, expected.mean)
    assert found.variance == expected.variance


@pytest.mark.parametrize(
    ("estimator", "cost"),
    [(ZGR(), 1), (Reinforce(), 1), (LeaveOneOut(4), 4), (ARSM(), (2 * 6 + 2) / 3)],
    ids=str,
)
def test_coupled_samples_need_passes_for_every_layer(estimator, cost):
    network = classification(3)
    evaluations = 0

    def counted(x):
        nonlocal evaluations
        evaluations += x[..., 0, 0, 0].numel()
        return network.loss(x)

    draw_gradients(DeepNetwork(network.layers, counted, network.inputs), estimator, 5)
    assert passes(network, estimator) == pytest.approx(cost)
    per_layer = 3 if isinstance(estimator, ARSM) else 1
    assert evaluations == 5 * estimator.calls(2) * per_layer


@pytest.mark.usefixtures("unchecked")
@pytest.mark.thorough  # test_vae_training.py lowers a loss
def test_training_lowers_the_loss_and_leaves_the_start_alone():
    network = classification(3)
    before = network.layers[0].weight.clone()
    made = dict(training(network, (0, 10, 100)))
    again = dict(training(network, (0, 100)))
    losses = [float(expected_loss(n).mean()) for n in made.values()]
    assert losses[0] > losses[1] > losses[2]
    assert torch.equal(network.layers[0].weight, before)
    assert torch.equal(made[100].layers[0].weight, again[100].layers[0].weight)


# ---- faults -----------------------------------------------------------------------------------


def bias(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)


class Foreign(Estimator):
    name, order, needs_gradient, reference = "X", 0, False, ""

    def draw(self, f, logits, n, generator=None):
        raise NotImplementedError

    def surrogate(self, f, logits, generator=None):
        raise NotImplementedError


FAULTS = {
    "weight must have shape": lambda: Layer(bias(2, 3), bias(4, 5)),
    "mixing of shape": lambda: Layer(bias(2, 3), bias(4, 6), bias(4, 1)),
    "masks every class": lambda: Layer(bias(2, 3) - math.inf, bias(0, 6)),
    "at least one layer": lambda: DeepNetwork((), torch.sum),
    "layer 1 takes 4 numbers": lambda: DeepNetwork((Layer(bias(1, 2), bias(4, 2)),), torch.sum),
    "2\\^30.0 states": lambda: exact_gradients(one_layer(torch.sum, bias(30, 2))),
    "use deep_moments": lambda: exact_deep_moments(classification(1, 12), ZGR()),
    "draws must be": lambda: deep_moments(classification(1), ZGR(), 3),
    "seed must be": lambda: deep_moments(classification(1), ZGR(), 64, -1),
    "steps must increase": lambda: list(training(classification(1), (5, 5))),
    "depth must be": lambda: classification(0),
    "gain must be": lambda: classification(1, gain=0.0),
    "one value for each x": lambda: exact_gradients(one_layer(torch.sum, bias(2, 2))),
    "must be a Readout": lambda: list(training(uneven())),
    "pathwise": lambda: draw_gradients(uneven(), Foreign(), 1),
    "not differentiable": lambda: draw_gradients(
        one_layer(lambda x: x.detach().sum((-1, -2)), bias(2, 2)), ZGR(), 4
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_named(message):
    kinds = (ValueError, TypeError, TooLargeError, LossError, NotDifferentiableError)
    with pytest.raises(kinds, match=message):
        FAULTS[message]()


# ---- the figure -------------------------------------------------------------------------------


SHOWN = ("ST", "ZGR", "GR(tau=0.5, k=10)", "RF(m=4)", "ARSM")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    few = {"steps": (0, 2), "networks": 1, "small_steps": (0, 5), "small_networks": 2}
    return figure.rows(depths=(1, 3, 4), draws=64, estimators=SHOWN, **few)


@pytest.mark.slow
def test_the_figure_reads_rows_from_a_csv(rows):
    drawn = plot.plot(pd.read_csv(io.StringIO(rows.to_csv(index=False))))
    drawn.set_layout_engine("none")  # most of the time
    drawn.savefig(io.BytesIO(), format="png", dpi=30)
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in drawn.axes)


@pytest.mark.thorough  # test_committed.py computes rows of figures again
def test_rows_hold_every_layer_once_with_its_method(rows):
    keys = ["depth", "network", "steps", "layer", "estimator"]
    assert not rows.duplicated(keys).any()
    # The shallow network at random weights only, two of 5-5-5 and the deepest one while trained.
    assert len(rows) == (1 + 3 * 2 * 2 + 4 * 2) * len(SHOWN)
    assert set(rows.loc[rows["depth"] == 3, "steps"]) == {0, 5}
    assert (rows["distance"] == rows["depth"] - rows["layer"]).all()
    drawn = rows["estimator"] == "ARSM"
    assert (rows["method"] == drawn.map({True: "monte carlo", False: "exact"})).all()
    assert (rows.loc[drawn, "variance_se"] > 0).all()
    assert (rows.loc[~drawn, "variance_se"] == 0).all()


@pytest.mark.parametrize("count", [1, 5])
def test_curves_of_errors_are_medians_over_networks_with_their_band(count):
    ax = Figure().subplots()
    found = pd.DataFrame(
        {"estimator": "ZGR", "series": "ZGR", "bias2": 0.0, "truth2": 4.0}
        | {"variance": [float(k**2) for k in range(1, count + 1)]}
    )
    plot._errors(ax, found)
    n, error = ax.lines[0].get_data()
    assert error == pytest.approx((count + 1) / 2 / 2 / np.sqrt(n))
    lowest = ax.collections[0].get_paths()[0].get_extents().ymin
    assert lowest == pytest.approx((1 + 0.15 * (count - 1)) / 2 / 100)


def test_the_seed_decides_networks_and_draws():
    made = [
        figure.rows(s, depths=(2,), steps=(0,), networks=1, draws=32, estimators=("ARSM",))
        for s in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(made[0], made[1])
    assert not made[0]["truth2"].equals(made[2]["truth2"])

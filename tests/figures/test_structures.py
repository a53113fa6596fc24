"""The figure of structures: each row names its target, of which perturb-and-MAP is one."""

import pandas as pd
import pytest
import torch

import gradlab
from gradlab.distributions import KSubset, WithoutReplacement
from gradlab.figures.structures.own_law import OwnLaw
from gradlab.figures.structures.plot import plot
from gradlab.figures.structures.rows import STRUCTURES, polynomial, rows
from significance import limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts


@pytest.fixture(scope="module")
def few() -> pd.DataFrame:
    return rows(seeds=1, degrees=(1, 3), draws=256, own_draws=256)


@pytest.mark.thorough  # tests/distributions/test_peers.py
@pytest.mark.parametrize("degree", [1, 3])
def test_on_subsets_the_own_law_is_sampling_without_replacement(degree: int) -> None:
    theta = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = polynomial(degree, STRUCTURES["3-subsets of 6"], 0)
    truth, other = (
        gradlab.exact_gradient(f, theta, distribution=lambda p, law=law: law(p, 3))
        for law in (WithoutReplacement, KSubset)
    )
    own = OwnLaw(KSubset(theta, 3), 2**19, 0, "test")
    value = float(gradlab.exact_value(f, theta, distribution=lambda p: WithoutReplacement(p, 3)))
    found = own.gradient(f, value, theta.shape)
    assert float(((found.mean - truth) / found.mean_se).abs().max()) < limit(100)
    assert float(((found.mean - other) / found.mean_se).abs().max()) > limit(100)


@pytest.mark.thorough  # the picture below reads the targets
def test_every_row_names_its_target(few: pd.DataFrame) -> None:
    targets = few.groupby("series")["target"].agg(set).to_dict()
    assert targets.pop("I-MLE(lam=0.3)") == {"perturb-and-MAP", "exponential family"}
    assert targets.pop("TopK") == {"sampling without replacement"}
    assert all(found == {"exponential family"} for found in targets.values())
    assert set(few.loc[few["series"] == "TopK", "structure"]) == {"3-subsets of 6"}
    assert set(few["structure"]) == set(STRUCTURES)


def test_polynomials_have_their_degree() -> None:
    for structure in STRUCTURES.values():
        steps = torch.arange(6.0, dtype=torch.float64).reshape(6, *[1] * len(structure.x))
        direction = torch.randn(structure.x, generator=torch.Generator().manual_seed(1)).double()
        for degree in (1, 2, 3, 4):
            differences = polynomial(degree, structure, 3)(steps * direction)
            for _ in range(degree):
                differences = differences.diff()
            assert float(differences.abs().max()) > 1e-3
            assert float(differences.diff().abs().max()) < 1e-9


def test_the_picture_has_a_column_for_each_structure(few: pd.DataFrame) -> None:
    figure = plot(few)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == list(STRUCTURES)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "relaxed top-k, without replacement" in texts
    assert "I-MLE(λ=0.3), against its own law" in texts

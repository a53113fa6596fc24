"""What classes declare, and what follows from it: families, temperatures, fits, footprints."""

from dataclasses import fields

import pytest
import torch

from cases import CLAIMS, estimators, generator, logits_of, loss_of
from gradlab.comparison.comparing import with_temperatures
from gradlab.estimators import (
    ESTIMATORS,
    MVE,
    OF_STRUCTURES,
    RELAX,
    GumbelRao,
    MovingAverage,
    Reinforce,
    parse,
)
from gradlab.estimators.base import FAMILIES
from gradlab.plots import style

ALL = ESTIMATORS | OF_STRUCTURES
classes = pytest.mark.parametrize("cls", ALL.values(), ids=lambda cls: cls.name)
F, LOGITS = loss_of("cubic"), logits_of("moderate")


@classes
def test_the_family_is_one_of_those_that_figures_know(cls):
    assert cls.family in FAMILIES
    assert style.family(str(cls())) == cls.family


def test_figures_order_families_as_the_classes_do():
    assert tuple(style.FAMILIES) == FAMILIES
    assert {name for names in style.FAMILIES.values() for name in names} == set(ALL)


@classes
def test_declared_fields_are_fields(cls):
    names = {field.name for field in fields(cls)}
    declared = {cls.temperature_field, cls.running_field} - {None}
    assert declared | {*cls.fitted_fields, *cls.learned_fields} <= names
    assert set(cls.learned_fields) <= set(cls.fitted_fields)
    assert set(cls.written_fields()) == names - set(cls.learned_fields)


TEMPERED = [cls for cls in ESTIMATORS.values() if cls.temperature_field is not None]


def test_these_have_a_temperature():
    assert {cls.name for cls in TEMPERED} == {
        *("ST-T", "GST", "GST-p", "ReinMax", "GS", "GS-ST", "GR", "DGS-ST", "ReinMax-Rao"),
        *("ReinMax-CV", "ReinMax-CV-pub", "REBAR", "RELAX"),
    }


@pytest.mark.parametrize("cls", TEMPERED, ids=lambda cls: cls.name)
def test_a_temperature_is_set_checked_and_seen_in_the_draws(cls):
    hot, cold = cls().at_temperature(2.0), cls().at_temperature(0.25)
    assert (hot.temperature_value, cold.temperature_value) == (2.0, 0.25)
    with pytest.raises(ValueError, match="tau must be a positive finite number"):
        cls().at_temperature(0.0)
    if not cls.learned_fields:  # RELAX without a network is REINFORCE
        draws = [e.draw(F, LOGITS, 20, generator()) for e in (hot, cold)]
        assert not torch.equal(*draws)


@pytest.mark.parametrize("text", ["ZGR", "MVE", "MVE-INT", "RK2", "ARSM"])
def test_what_has_no_temperature_is_not_swept(text):
    estimator = parse(text)
    assert estimator.temperature_value is None
    assert with_temperatures([estimator], [0.1, 1.0]) == [estimator]
    with pytest.raises(ValueError, match="has no temperature"):
        estimator.at_temperature(0.1)


def test_a_sweep_sets_the_declared_field():
    assert with_temperatures([RELAX()], [0.1, 1.0]) == [RELAX(0.1), RELAX(1.0)]


def test_with_returns_another_object_and_checks_it():
    before = GumbelRao(0.5, 4)
    assert before.with_(k=8) == GumbelRao(0.5, 8)
    assert before == GumbelRao(0.5, 4)
    with pytest.raises(ValueError, match="k must be a positive int"):
        before.with_(k=0)
    with pytest.raises(TypeError, match="nope"):
        before.with_(nope=1)


@estimators(one_each=True)
def test_a_footprint_counts_every_evaluation(claim):
    size = claim.estimator.footprint(2, 4)
    assert size >= 2 * 4 * claim.estimator.calls(4, 2)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("ZGR", 10 * 3),
        ("RF(m=4)", 10 * 3 * 4),
        ("GS-ST", 10 * 3),
        ("GR(k=8)", 10 * 3 * 8),
        ("ReinMax-Rao(k=5)", 10 * 3 * 5),
        ("GR(k=inf)", 10 * 3 * 3 * 3),
        ("SAS(k=3)", 10 * 3 * 4),
        ("UNORD(k=3)", 10 * 3 * 3),
        ("LE", 10 * 3 * 21),
    ],
)
def test_footprint(text, numbers):
    assert parse(text).footprint(10, 3) == numbers


@estimators(one_each=True)
def test_fit_changes_the_declared_fields_only(claim):
    estimator = claim.estimator
    found = estimator.fit(F, LOGITS, 64, generator(), steps=3)
    assert type(found) is type(estimator)
    changed = {
        field.name
        for field in fields(estimator)
        if getattr(found, field.name) != getattr(estimator, field.name)
    }
    assert changed == set(estimator.fitted_fields)
    assert (found is estimator) == (not estimator.fitted_fields)


@estimators(one_each=True)
def test_updated_moves_the_running_field_only(claim):
    found = claim.estimator.updated(torch.tensor([3.0, 5.0]))
    if claim.estimator.running_field is None:
        assert found is claim.estimator
    else:
        name = claim.estimator.running_field
        assert getattr(found, name) != getattr(claim.estimator, name)
        assert found.with_(**{name: getattr(claim.estimator, name)}) == claim.estimator


def test_the_moving_average_alone_runs():
    assert [cls for cls in ESTIMATORS.values() if cls.running_field] == [MovingAverage]


def test_reinforce_is_fitted_but_not_learned():
    assert Reinforce().fit(F, LOGITS, 64, generator()).text() != "REINFORCE(baseline=0)"


def test_the_penalty_of_mve_is_not_a_temperature():
    assert MVE.temperature_field is None
    assert any(isinstance(claim.estimator, MVE) for claim in CLAIMS)

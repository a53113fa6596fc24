"""The registry: names of all kinds are read, and what is misspelt is put right."""

from pathlib import Path

import pytest

import gradlab
from gradlab import estimators
from gradlab.catalogue import entries
from gradlab.catalogue.made import made, markdown_table
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES, GumbelRao, LeaveOneOut, parse
from gradlab.estimators.registry import _READING_ORDER
from gradlab.text_forms import _bare

ALL = ESTIMATORS | OF_STRUCTURES
classes = pytest.mark.parametrize("cls", ALL.values(), ids=lambda cls: cls.name)


@classes
def test_every_name_of_a_class_is_read_in_any_spelling(cls):
    for name in (cls.name, cls.__name__, *cls.aliases):
        for text in (name, name.lower(), name.upper(), name.replace("-", "_"), _bare(name)):
            assert parse(text) == cls(), text


def test_no_two_estimators_share_a_name():
    spelt: dict[str, set[str]] = {}
    for cls in ALL.values():
        for name in (cls.name, cls.__name__, *cls.aliases):
            spelt.setdefault(_bare(name), set()).add(cls.name)
    assert {name for name, owners in spelt.items() if len(owners) > 1} == set()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("RLOO", "RF(m=2)"),
        ("rloo(m=4)", "RF(m=4)"),
        ("LeaveOneOut(m=4)", "RF(m=4)"),
        ("leave_one_out", "RF(m=2)"),
        ("gumbel-rao", "GR(tau=1, k=10)"),
        ("GumbelRao(tau=0.1, k=inf)", "GR(tau=0.1, k=inf)"),
        ("zgr", "ZGR"),
        ("Gumbel-Softmax", "GS(tau=1)"),
        ("gumbel softmax (tau=0.5)", "GS(tau=0.5)"),
        ("StraightThrough", "ST"),
        ("Straight-Through", "ST"),
        ("reinmax_cv", "ReinMax-CV(tau=0.5, c=0.5, k=10)"),
    ],
)
def test_names_of_the_field_are_read_and_the_text_form_stays(text, written):
    assert str(parse(text)) == written
    assert parse(written) == parse(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("RLO", "RF"),
        ("LeavOneOut(m=4)", "RF"),
        ("GumbleRao", "GR"),
        ("StraitThrough", "ST"),
        ("Gumbel-Sofmax", "GS"),
        ("RODE", "RODEO"),
        ("ZRG", "ZGR"),
        ("reinforc", "REINFORCE"),
        ("IndiCateR", "LE"),
    ],
)
def test_a_misspelt_name_is_put_right(text, nearest):
    with pytest.raises(ValueError, match=f"; did you mean '{nearest}'"):
        parse(text)


@pytest.mark.parametrize("text", ["RLOO(k=2)", "LeaveOneOut(network=1)", "rf(n=2)"])
def test_a_wrong_argument_is_reported_by_the_short_name(text):
    with pytest.raises(ValueError, match=r"RF has no argument .*; write it as RF\(m=\.\.\.\)"):
        parse(text)


@pytest.mark.parametrize("text", ["LEARNED(weights=1)", "RELAX(network=1)"])
def test_what_only_a_fit_can_give_is_not_read(text):
    with pytest.raises(ValueError, match="has no argument"):
        parse(text)


def test_the_reading_order_names_estimators_once():
    assert sorted(_READING_ORDER) == sorted(set(_READING_ORDER) & set(ALL))


@classes
def test_every_estimator_is_public_and_described_with_its_parts(cls):
    assert getattr(gradlab, cls.__name__) is getattr(estimators, cls.__name__) is cls
    assert cls.__name__ in gradlab.__all__
    assert ".. math::" in (cls.__doc__ or "")


def test_public_names_are_those_of_the_room():
    home = {name for name, home in gradlab._HOME.items() if home == "estimators"}
    assert home == set(estimators.__all__)


def test_the_page_of_estimators_shows_the_table_of_the_classes():
    page = Path(__file__).parents[2] / "docs" / "estimators.md"
    hint = "run python -m gradlab.catalogue.made docs/estimators.md"
    assert markdown_table() in page.read_text(encoding="utf-8"), hint


def test_the_catalogue_is_what_the_classes_give():
    assert entries() == made(), "run python -m gradlab.catalogue.made"


def test_short_names_are_what_is_written():
    assert (str(LeaveOneOut(4)), str(GumbelRao(1.0, None))) == ("RF(m=4)", "GR(tau=1, k=inf)")

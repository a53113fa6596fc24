"""The page of estimators and their cards say what the classes declare."""

import inspect
import re
from pathlib import Path

import pytest

import gradlab
from _generate import cards, curves
from _generate.docstrings import escaped
from gradlab.catalogue import estimator_rows
from gradlab.citations import bibtex
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES
from gradlab.estimators.base import FAMILIES
from gradlab.verification.planted_errors import PLANTED

PAGE = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text(encoding="utf-8")
TABLE = {
    cells[0]: cells
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 6
}
ALL = ESTIMATORS | OF_STRUCTURES
CARDS = {name: cards.card(cls(), "exact", "exact") for name, cls in ALL.items()}
named = pytest.mark.parametrize("name", ALL)


def test_the_table_lists_every_estimator() -> None:
    assert set(TABLE) - {"name"} == set(ALL)


@named
def test_a_row_of_the_table_agrees_with_the_class(name: str) -> None:
    estimator = ALL[name]()
    _, constructor, exact, calls, needs_gradient, source = TABLE[name]
    classes = {cls.__name__: cls for cls in ALL.values()}
    assert eval(constructor.strip("`"), classes) == estimator
    order = {"constants": 0, "degree 1": 1, "degree 2": 2, "every f": float("inf")}[exact]
    assert estimator.order == order
    assert estimator.calls(3) == int(calls)
    assert estimator.needs_gradient == (needs_gradient == "yes")
    assert estimator.reference == source


def test_the_page_names_all_that_have_no_exact_moments() -> None:
    (said,) = re.findall(r"known for all but (.*?),?\s+which are measured", PAGE, re.S)
    rows = estimator_rows()
    drawn = rows[rows["moments"] == "draws"]["estimator"].str.partition("(")[0]
    assert set(re.split(r",\s+| and ", said)) == {*drawn, "fitted RELAX"}


def test_every_family_has_a_grid_of_cards() -> None:
    assert {cls.family for cls in ALL.values()} <= set(FAMILIES)


@named
def test_a_card_shows_formula_text_form_class_and_paper(name: str) -> None:
    estimator, text = ALL[name](), CARDS[name]
    assert text.startswith(f"{name}\n=")
    assert ".. math:: " in text
    assert f"``{estimator}``" in text
    assert f".. autoclass:: gradlab.{type(estimator).__name__}\n" in text
    assert all(line in text for line in bibtex([estimator]).splitlines())
    assert all(f"``{alias}``" in text for alias in estimator.aliases)


@named
def test_a_card_keeps_every_word_of_the_docstring(name: str) -> None:
    cls = ALL[name]
    prose = re.split(r"\n(?:Args|Raises|Example):\n", inspect.getdoc(cls) or "")[0]
    card = " ".join(CARDS[name].split())
    words = " ".join(escaped(prose.splitlines())).split()
    assert [word for word in words if word not in card] == []


FAULTY = [n for n, cls in ESTIMATORS.items() if "ublished code" in (inspect.getdoc(cls) or "")]


@pytest.mark.parametrize("name", FAULTY)
def test_what_a_docstring_says_of_published_code_stands_in_a_box(name: str) -> None:
    body, faults = cards.parts(ESTIMATORS[name])
    assert "ublished code" not in body
    assert "ublished code" in " ".join(faults)
    assert ".. admonition:: Published code differs" in CARDS[name]


def test_some_published_code_has_faults_and_some_has_none_that_are_known() -> None:
    assert {"EMA", "UNORD", "CARMS", "ARMS", "RK2"} <= set(FAULTY)
    assert "admonition" not in CARDS["ST"]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_error_stands_on_the_card_of_the_right_estimator(planted) -> None:
    card = CARDS[planted.right.partition("(")[0]]
    assert f"- *{planted.name}*: " in card


@named
@pytest.mark.few(5)
def test_the_commands_of_a_card_can_be_run_as_they_stand(name: str) -> None:
    from test_gallery import read

    (block,) = re.findall(r"code-block:: sh\n\n(.*?)\n\n", CARDS[name], re.S)
    commands = [line.strip() for line in block.splitlines()]
    assert len(commands) >= 2
    for command in commands:
        read(command)


def test_the_curve_of_a_card_is_what_compare_measures() -> None:
    rows = curves.curve_rows(gradlab.GumbelRao(tau=1.0, k=10))
    f, logits = gradlab.problems.problem("mlp", 3, 3), gradlab.problems.regime("moderate", 3, 3)
    at = rows.iloc[4]
    found = gradlab.compare(f, logits, [gradlab.GumbelRao(at["tau"], 10)]).iloc[0]
    for square in ("bias2", "variance"):
        assert at[square] == pytest.approx(found[square] / found["truth2"])
    assert at["progress"] == pytest.approx(found["progress"])
    assert "3 variables of 3 classes" in curves.about_problem(gradlab.ZGR())
    assert "2 classes" in curves.about_problem(gradlab.DisARM())


@pytest.mark.parametrize(("text", "law"), [("SIMPLE", "KSubset"), ("TopK", "WithoutReplacement")])
@pytest.mark.few(1)
def test_the_curve_of_an_estimator_of_subsets_is_of_its_law(text: str, law: str) -> None:
    estimator = gradlab.parse(text)
    f, logits = gradlab.problems.problem("mlp", 1, 6), gradlab.problems.regime("moderate", 1, 6)
    given = {"distribution": lambda p: getattr(gradlab.distributions, law)(p, 3)}
    at = curves.curve_rows(estimator).iloc[0]
    found = gradlab.compare(
        lambda x: f(x.unsqueeze(-2)), logits[0], [at["estimator"]], draws=curves.DRAWS, **given
    ).iloc[0]
    assert at["variance"] == pytest.approx(found["variance"] / found["truth2"], rel=1e-9)
    assert f"3 of 6 elements: `{law}`" in curves.about_problem(estimator)


@pytest.mark.thorough  # the curve of the law of subsets, above
def test_a_curve_without_temperature_is_against_what_is_averaged() -> None:
    rows = curves.curve_rows(gradlab.ZGR())
    assert rows["averaged"].is_monotonic_increasing
    assert rows["bias2"].nunique() == 1
    product = rows["variance"] * rows["averaged"]
    assert product.max() == pytest.approx(product.min())
    assert curves.picture(rows) == curves.picture(rows)

"""The list of mutants does not go stale: each still changes the code that it names."""

import ast
from pathlib import Path

import pytest

import gradlab
from mutants.planted import MUTANTS

PACKAGE = Path(gradlab.__file__).parent
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_changes_one_place_and_parses(name):
    mutant = MUTANTS[name]
    text = (PACKAGE / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    changed = text.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("test", sorted({test for m in MUTANTS.values() for test in m.tests}))
def test_the_tests_of_mutants_are_there(test):
    assert (TESTS.parent / test).is_file()


def test_there_are_mutants_of_all_rooms():
    assert len(MUTANTS) >= 40
    rooms = {mutant.file.split("/")[0] for mutant in MUTANTS.values()}
    assert {"estimators", "exact", "loss", "verification", "comparison", "sweep"} <= rooms

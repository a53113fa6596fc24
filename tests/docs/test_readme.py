"""The README: short, its example runs, and the names in its tables exist."""

import re

import pytest
import typer

import gradlab
from gradlab.cli import app
from pages import ROOT, blocks, text

README = text("README.md")
VERBS = README.partition("## Verbs")[2].partition("\n## ")[0]
COMMAND_LINE = typer.main.get_command(app)


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 150
    assert README.count("![") == 1


def test_python_example_is_ten_lines_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in blocks("python") if block.page == "README.md"]
    exec(example.code, {})
    assert "ZGR" in capsys.readouterr().out
    statements = compile(example.code, "README", "exec", 0x400).body  # PyCF_ONLY_AST
    assert len(statements) <= 10


def test_it_counts_the_estimators() -> None:
    assert f"of {len(gradlab.ESTIMATORS)} estimators" in " ".join(README.split())


@pytest.mark.parametrize("name", re.findall(r"`([A-Za-z_]+(?:\.\w+)?)`", VERBS))
def test_verbs_exist(name: str) -> None:
    thing: object = gradlab
    for part in name.split("."):
        thing = getattr(thing, part)
    assert name.split(".")[0] in gradlab.__dir__()


def test_every_command_is_in_the_table_of_verbs() -> None:
    named = set(re.findall(r"`gradlab (\w+)", VERBS))
    assert named == set(COMMAND_LINE.commands)


def test_the_table_of_distributions_lists_all() -> None:
    table = README.partition("## Distributions")[2].partition("\n## ")[0]
    shown = {name for line in table.splitlines() for name in re.findall(r"`([A-Z]\w+)`", line)}
    bases = {"ExponentialFamily", "FiniteDistribution"}
    assert shown == set(gradlab.distributions.__all__) - bases


def test_its_pictures_are_there() -> None:
    (picture,) = re.findall(r"!\[.+?\]\((\S+)\)", README)
    assert (ROOT / picture).exists()

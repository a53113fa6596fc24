"""README and the pages of docs/: code runs and prints what is shown, commands parse, links lead."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import pages
from gradlab.cli import app
from pages import ROOT, WRITTEN, Block, blocks, is_generated, links, text
from test_notebooks import same

# Over a second: verdicts by draws, sweeps, all estimators, a training.
SLOW = {
    "how-to/cluster.md-1",
    "how-to/own-estimator.md-1",
    "how-to/own-estimator.md-2",
    "how-to/own-estimator.md-3",
    "is-my-gradient-right.md-1",
    "is-my-gradient-right.md-2",
    "is-my-gradient-right.md-3",
    "real-models.md-4",
}
# Recipes for packages that may not be here: test_loggers.py and test_pyro.py run them.
OPTIONAL = [
    b for b in blocks("python") if b.page == "docs/how-to/loggers.md" or "import pyro" in b.code
]
# A file of the reader, which the commands below it use.
FILES = {"start.md-2", "how-to/own-policy-loss.md-1", "how-to/own-policy-loss.md-2"}

PYTHON = [b for b in blocks("python") if b not in OPTIONAL]
BOXES = [
    (str(block), command)
    for block in blocks("sh")
    for line in block.code.replace("\\\n", "").splitlines()
    if (command := shlex.split(line, comments=True)) and command[0] == "gradlab"
]
# In a sentence a command may lack its arguments: its options are known all the same.
SAID = [
    (page, [*shlex.split(found), "--help"])
    for page in WRITTEN
    for found in re.findall(r"(?<!`)`(gradlab\s[^`]+)`", text(page))
    if "VERB" not in found
]
COMMAND_LINE: Any = typer.main.get_command(app)


@pytest.mark.parametrize(
    "block",
    [pytest.param(b, marks=pytest.mark.slow) if str(b) in SLOW else b for b in PYTHON],
    ids=str,
)
@pytest.mark.few(5)
def test_python_runs_and_prints_what_is_shown(
    block: Block, capsys: pytest.CaptureFixture[str], unchecked: None
) -> None:
    exec(block.code, {"__name__": "page"})
    printed = capsys.readouterr().out
    if block.shown is not None:
        assert same(block.shown, printed)
    assert bool(printed) == (str(block) not in FILES)


def test_a_box_that_shows_something_else_is_seen_and_refilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "# A\n\n```python\nprint(2.5)\n```\n\n```text\n2.6\n```\n\n```python\nprint(1)\n```\n"
    (tmp_path / "a.md").write_text(page)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert pages.refilled("a.md") == page.replace("2.6", "2.5")
    assert not same("2.7\n", "2.5\n")


def test_exceptions_are_blocks_that_exist() -> None:
    assert {str(block) for block in PYTHON} >= SLOW | FILES


@pytest.mark.parametrize(("page", "command"), [*BOXES, *SAID], ids=lambda part: str(part)[:60])
@pytest.mark.few(50)
def test_commands_parse(page: str, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where examples/small.toml is
    assert status(command[1:]) == 0


def status(arguments: list[str]) -> int:
    """Return the exit status of reading the arguments, without running what they ask for."""
    command = COMMAND_LINE
    try:
        context = command.make_context("gradlab", list(arguments))
        while hasattr(command, "resolve_command"):
            rest = [*context._protected_args, *context.args]
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except Exception as ended:  # of typer's own click, or of click
        return ended.exit_code
    return 0


@pytest.mark.parametrize(
    "command",
    ["compair ZGR", "compare ZGR --size", "recommend --taus 1", "train vea", "sweep run", "cite"],
)
def test_a_command_that_does_not_exist_would_be_seen(command: str) -> None:
    assert status(command.split()) == 2


def test_there_are_commands_of_every_verb() -> None:
    verbs = {command[1] for _, command in BOXES + SAID if len(command) > 1}
    assert verbs >= set(COMMAND_LINE.commands)


@pytest.mark.parametrize("page", WRITTEN)
def test_links_lead_somewhere(page: str) -> None:
    assert [to for to in links(page) if not ((ROOT / to).exists() or is_generated(to))] == []


@pytest.mark.parametrize("page", WRITTEN)
def test_pictures_exist_and_say_what_they_show(page: str) -> None:
    shown = re.findall(r"^```\{image\} (\S+)\n:alt: (.+)$", text(page), re.M)
    assert len(shown) == text(page).count("```{image}")
    missing = [path for path, _ in shown if not ((ROOT / page).parent / path).exists()]
    assert missing == []


def test_every_page_is_reached_from_readme() -> None:
    reached, new = {"README.md"}, ["README.md"]
    while new:
        found = {to for page in new if page in WRITTEN for to in links(page)} - reached
        reached |= found
        new = sorted(found)
    of_site = {"index", "references", "changelog", "contributing"}  # its menu leads there
    assert set(WRITTEN) - reached <= {f"docs/{name}.md" for name in of_site}

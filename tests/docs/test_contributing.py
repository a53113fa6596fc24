"""What CONTRIBUTING, CHANGELOG and CITATION say about the tree is so."""

import re
from pathlib import Path

import pytest

from gradlab import __version__
from gradlab._moved import MOVED
from gradlab.version import REMOVAL

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:gradlab|tests)/[\w/.]+)`", TEXT)))
TREE = re.findall(r"^gradlab/\n(.*?)^tests/", TEXT, re.S | re.M)[0]


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_tree_names_every_room() -> None:
    rooms = {p.parent.name for p in (ROOT / "gradlab").glob("*/__init__.py")}
    files = {p.name for p in (ROOT / "gradlab").glob("[a-z]*.py")}
    assert set(re.findall(r"^  (\w+)/", TREE, re.M)) == rooms
    assert files <= set(re.findall(r"\w+\.py", TREE))


def test_there_are_ten_questions() -> None:
    assert len(re.findall(r"^\| .*\? \| `gradlab/.*` \|$", TEXT, re.M)) == 10


def test_the_changelog_lists_moved_modules() -> None:
    lines = [
        f"| `gradlab.{old}` | {', '.join(f'`gradlab.{name}`' for name in new.split())} |"
        for old, new in MOVED.items()
    ]
    assert [line for line in lines if line not in CHANGELOG] == []


def test_the_version_stands_in_one_file() -> None:
    # Of what a release edits: rows, tables and tests of old versions name them too.
    edited = [
        ROOT / name for name in ("CITATION.cff", "pyproject.toml", "README.md", "docs/conf.py")
    ]
    edited += (ROOT / "gradlab").rglob("*.py")
    written = [
        f for f in edited if re.search(rf"version[\W_]+{re.escape(__version__)}\b", f.read_text())
    ]
    assert [file.name for file in written] == ["version.py"]


def test_every_sentence_names_the_release_that_removes_what_is_old() -> None:
    pages = [
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/how-to").iterdir(),
    ]
    named = [
        (file.name, found)
        for file in [*pages, *(ROOT / "gradlab").rglob("*.py")]
        for found in re.findall(
            r"\b(?:until|goes (?:in|with)) (?:release )?(\d\.\d)", file.read_text(), re.I
        )
    ]
    assert {"CHANGELOG.md", "command-line.md", "policy.md", "verifying.py"} <= {f for f, _ in named}
    assert [(file, release) for file, release in named if release != REMOVAL] == []
    assert f"such as {__version__.partition('.')[0]}.0.0" in (ROOT / "docs/policy.md").read_text()

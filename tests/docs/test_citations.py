"""Every estimator has the BibTeX entry of its paper, and no entry is of another one."""

import re
from pathlib import Path

import pytest
import yaml

from gradlab.bounds import ESTIMATORS as BOUNDS
from gradlab.citations import bibtex, bibtex_of_names
from gradlab.cli import main
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES, ZGR
from gradlab.version import __version__

ALL = ESTIMATORS | OF_STRUCTURES


@pytest.mark.parametrize("name", ALL)
def test_the_entry_is_that_of_the_reference(name):
    reference, entry = ALL[name].reference, bibtex([name])
    assert entry.count("@") == 1
    assert entry.count("{") == entry.count("}")
    author, year = re.findall(r"^\w+|\d{4}", reference)[:2]
    assert re.search(rf"author = {{{author}\b", entry)
    assert f"year = {{{year}}}" in entry
    number = re.search(r"arXiv (\S+)", reference)
    assert re.findall(r"eprint = {(.*)}", entry) == ([number[1]] if number else [])


def test_all_entries_are_used_once_and_stand_by_year():
    entries = bibtex(ALL).split("\n\n")
    keys = [re.search(r"{(\w+),", entry)[1] for entry in entries]
    assert len(set(keys)) == len(keys)
    years = [int(re.search(r"year = {(\d+)}", entry)[1]) for entry in entries]
    assert years == sorted(years)


@pytest.mark.parametrize("name", BOUNDS)
def test_estimators_of_bounds_have_the_entry_of_their_reference(name):
    reference, entry = BOUNDS[name].reference, bibtex([BOUNDS[name]()])
    author, year = re.findall(r"^\w+|\d{4}", reference)[:2]
    assert re.search(rf"author = {{{author}\b", entry)
    assert f"year = {{{year}}}" in entry
    if name not in ESTIMATORS:
        assert bibtex([name]) == bibtex_of_names([name]) == entry


def test_objects_and_texts_of_one_paper_give_one_entry():
    assert bibtex([ZGR(), "ST-ZGR(alpha=0.3)", "ZGR"]) == bibtex(["ZGR"])


def test_an_estimator_without_entry_is_named():
    class Unknown(ZGR):
        reference = "Nobody 1900, nowhere"

    with pytest.raises(LookupError, match="no entry for ZGR: Nobody 1900"):
        bibtex([Unknown()])


def test_the_entry_of_the_package_says_what_citation_cff_says():
    cff = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    entry = bibtex(["gradlab"])
    assert entry.startswith("@software{gradlab,\n")
    (author,) = cff["authors"]
    found = dict(re.findall(r"(\w+) = {(.*)},\n", entry))
    assert found["author"] == f"{{{author['name']}}}"
    # The version stands in one place, and that is not a file of text.
    assert "version" not in cff
    assert found["version"] == __version__
    assert {name: found[name] for name in ("title", "license")} == {
        name: str(cff[name]) for name in ("title", "license")
    }


def test_the_package_and_estimators_are_cited_together_each_once(capsys, unchecked):
    assert main(["cite", "gradlab", "ZGR", "gradlab", "ST-ZGR"]) == 0
    keys = re.findall(r"^@\w+{(\w+),$", capsys.readouterr().out, re.MULTILINE)
    assert sorted(keys) == ["gradlab", "shekhovtsov2023"]


def test_command_line(capsys, unchecked):
    assert main(["cite", "ST", "GR(tau=0.1)"]) == 0
    assert re.findall(r"{(\w+),\n", capsys.readouterr().out) == ["bengio2013", "paulus2021"]
    assert main(["cite", "ZRG"]) == 2
    assert "did you mean 'ZGR'" in capsys.readouterr().err

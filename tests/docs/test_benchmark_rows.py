"""The committed speeds are those of the benchmarks that there are, and pages say what rows say."""

import math
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from _generate.directives import benchmark_table, measured_on
from benchmarks import PARTS, results
from benchmarks.__main__ import main
from benchmarks.pages import SENTENCES, Sentence, numbers, write_pages
from benchmarks.ratios import Ratio, effort, faster, time_text
from benchmarks.results import COLUMNS, RESULTS, Results, first_line, read
from pages import text

ROWS = read()


def test_every_part_has_rows_in_the_order_of_the_parts():
    assert ROWS["part"].drop_duplicates().tolist() == list(PARTS)
    assert list(ROWS.columns) == list(COLUMNS)
    assert not ROWS.duplicated(["part", "what"]).any()


@pytest.mark.parametrize("part", PARTS)
def test_the_rows_of_a_part_say_where_they_were_measured(part):
    rows = ROWS[ROWS["part"] == part]
    assert len(rows[["machine", "cores", "run", "torch"]].drop_duplicates()) == 1
    assert rows["machine"].str.len().gt(3).all()
    assert rows["cores"].astype(int).ge(1).all()
    assert rows["load"].astype(float).ge(0).all()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_says_what_it_measures(part):
    assert first_line(part)[:1].isupper()
    assert "run" in import_module(f"benchmarks.{part}").__all__


def test_what_is_met_follows_from_the_number_and_the_target():
    for row in ROWS.to_dict("records"):
        sign, _, bound = row["target"].partition(" ")
        value = float(row["value"] or "nan")
        target = float(bound) if sign else None
        line = Ratio(row["what"], value, target, row["unit"], at_least=sign == ">=")
        # Three digits of a value may lie on the other side of the target than the value.
        if target is None or not math.isclose(value, target, rel_tol=0.006):
            assert str(line.row()["met"]) == row["met"], row["what"]


def test_a_peer_is_slower_or_the_line_says_why_not():
    peers = ROWS[ROWS["part"] == "peers"]
    assert (peers["note"][peers["met"] != "True"] != "").all()
    measured = peers[peers["value"] != ""]
    ratio = measured["theirs"].astype(float) / measured["ours"].astype(float)
    assert (ratio / measured["value"].astype(float)).between(0.98, 1.02).all()


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.page)
def test_the_numbers_of_a_page_are_those_of_the_rows(sentence):
    assert numbers(sentence, text(sentence.page)) == sentence.values(ROWS)


def test_sentences_are_written_anew_wherever_their_lines_end(tmp_path, monkeypatch):
    said = Sentence("page.md", "It takes {}, and {} by hand.", lambda _: ["1.5 ms", "2,000 s"])
    page = tmp_path / "page.md"
    page.write_text("Before. It takes 3 s, and\n1 us by hand. After 3 s.\n")
    monkeypatch.setattr("benchmarks.pages.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.pages.SENTENCES", (said,))
    assert numbers(said, page.read_text()) == ["3 s", "1 us"]
    write_pages(ROWS)
    assert page.read_text() == "Before. It takes 1.5 ms, and\n2,000 s by hand. After 3 s.\n"


LINES = [Ratio("a", 1.0, 2.0), Ratio("b", 3.0, 2.0), faster("c", 2e-3, 1e-6, note="why")]


class Measured:
    """A part that yields lines, and may be interrupted before the last."""

    def __init__(self, lines, interrupted=False):
        self.lines, self.interrupted = lines, interrupted

    def run(self):
        for line in self.lines:
            if self.interrupted and line is self.lines[-1]:
                raise KeyboardInterrupt
            yield line


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function that runs the benchmarks with parts of our own."""
    monkeypatch.setattr("benchmarks.__main__.PARTS", ("one", "two"))
    monkeypatch.setattr("benchmarks.results.PARTS", ("one", "two"))
    monkeypatch.setattr("benchmarks.__main__.first_line", str.upper)
    file = tmp_path / "rows.csv"

    def run(*asked, **parts):
        monkeypatch.setattr(
            "benchmarks.__main__.import_module", lambda name: parts[name.rpartition(".")[2]]
        )
        main([*asked, "--out", str(file)])

    run.file = file
    return run


def found(file):
    rows = read(file)
    return list(zip(rows["part"], rows["what"], rows["value"], strict=True))


def test_a_run_of_some_parts_replaces_only_their_rows(measure, capsys):
    measure(one=Measured(LINES[:1]), two=Measured(LINES[1:]))
    before = found(measure.file)
    assert before == [("one", "a", "1"), ("two", "b", "3"), ("two", "c", "2000")]
    measure("two", two=Measured([Ratio("c", 7.0), Ratio("d", 8.0)]))
    assert found(measure.file) == [("one", "a", "1"), ("two", "c", "7"), ("two", "d", "8")]
    measure("one", one=Measured([Ratio("a", 5.0)]))
    assert found(measure.file)[0] == ("one", "a", "5")
    assert "MISSED" in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_it_has(measure):
    measure(one=Measured(LINES[:1]), two=Measured(LINES[1:]))
    with pytest.raises(KeyboardInterrupt):
        measure(
            one=Measured([Ratio("a", 6.0)]),
            two=Measured([Ratio("b", 9.0), Ratio("c", 9.0)], interrupted=True),
        )
    # b was measured anew, c not.
    assert sorted(found(measure.file)) == [
        ("one", "a", "6"),
        ("two", "b", "9"),
        ("two", "c", "2000"),
    ]
    assert [file.name for file in measure.file.parent.iterdir()] == ["rows.csv"]


def test_an_unknown_part_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["today"])
    assert "there is no part 'today'; the parts are against_limits" in capsys.readouterr().err


def test_a_quick_run_leaves_the_committed_rows(measure, monkeypatch):
    before = RESULTS.read_bytes()
    seen = []
    monkeypatch.setenv("GRADLAB_BENCH_QUICK", "")
    monkeypatch.setattr("benchmarks.__main__.import_module", lambda _: Measured(LINES))
    monkeypatch.setattr(Results, "add", lambda self, *_: seen.append((self.file, effort(9, 1))))
    main(["one", "--quick"])
    assert seen == [(None, 1)] * 3
    assert RESULTS.read_bytes() == before


def test_a_row_says_where_it_was_measured(measure, monkeypatch):
    monkeypatch.setattr(results, "machine_name", lambda _: "a machine")
    measure(one=Measured([LINES[2]]), two=Measured([Ratio("d", math.nan, note="not installed")]))
    first, second = read(measure.file).to_dict("records")
    assert first["machine"] == "a machine"
    assert (first["ours"], first["theirs"], first["target"]) == ("1e-06", "0.002", ">= 1")
    assert (first["met"], second["met"], second["value"]) == ("True", "", "")
    table = benchmark_table(read(measure.file))
    assert table[2] == "| c | 2 ms | 1 us | 2000 x | >= 1 | ok; why |"
    assert table[3] == "| d |  |  |  |  | not installed |"
    said = measured_on(read(measure.file))
    assert f": a machine, {first['cores']} cores, load {float(first['load']):g} to " in said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2.0, "2 s"), (0.00123, "1.23 ms"), (0.9999, "1 s"), (4.5e-5, "45 us"), (3e-9, "3 ns")],
)
def test_times_have_three_digits_and_a_unit(seconds, said):
    assert time_text(seconds) == said


def test_rows_are_written_in_the_order_of_the_parts(tmp_path):
    kept = Results(tmp_path / "rows.csv")
    for part in reversed(PARTS):
        kept.add(part, Ratio("a", 1.0))
    assert pd.read_csv(tmp_path / "rows.csv")["part"].tolist() == list(PARTS)
    assert Path(tmp_path / "rows.csv").stat().st_size > 0

"""Progress on stderr: silent when short, a line now and then without a terminal, a bar with one."""

import io
import sys
import time

import pytest

from gradlab import progress
from gradlab.progress import Progress, say, tracked


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Return the clock of all progress, which no thread looks at by itself."""
    clock = Clock()
    monkeypatch.setattr(progress, "_clock", clock)
    monkeypatch.setattr(progress, "_said", float("-inf"))
    monkeypatch.setattr(progress, "_LOOK", 1e6)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(clock: Clock, steps: int, seconds: float, **options) -> None:
    """Do steps that take so many seconds each."""
    for _ in tracked(range(steps), "compare", "estimators", **options):
        clock.now += seconds


# ---- without a terminal -----------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "seconds"), [(19, 0.1), (9, 1.0), (0, 1.0)])
def test_short_work_is_silent(steps, seconds, clock, capsys):
    work(clock, steps, seconds)
    assert capsys.readouterr() == ("", "")


def test_one_line_every_ten_seconds(clock, capsys):
    work(clock, 40, 1.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "compare: 10/40 estimators, about 30 s left",
        "compare: 20/40 estimators, about 20 s left",
        "compare: 30/40 estimators, about 10 s left",
        "compare: 40/40 estimators",
    ]


def test_slow_steps_get_a_line_each(clock, capsys):
    work(clock, 3, 60 * 60)
    assert capsys.readouterr().err.splitlines() == [
        "compare: 1/3 estimators, about 2.0 h left",
        "compare: 2/3 estimators, about 60 min left",
        "compare: 3/3 estimators",
    ]


def test_not_shown_is_silent(clock, capsys):
    work(clock, 40, 60.0, shown=False)
    assert capsys.readouterr() == ("", "")


def test_the_outermost_work_speaks_for_what_is_inside(clock, capsys):
    with Progress("compare", 2, "estimators") as outer:
        for _ in range(2):
            with Progress("Monte Carlo", 100, "draws") as inner:
                for _ in range(5):
                    clock.now += 4.0
                    inner.add(20)
            outer.add()
    assert capsys.readouterr().err.splitlines() == [
        "compare: 0/2 estimators, about 28 s left",  # 12 s for 60 of 100 draws of the first
        "compare: 1/2 estimators, about 16 s left",
        "compare: 1/2 estimators, about 4 s left",
    ]


def test_lines_of_works_in_a_row_are_ten_seconds_apart(clock, capsys):
    work(clock, 11, 1.0)
    clock.now += 1.0
    work(clock, 9, 1.0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_work_resumed_counts_what_is_done_now(clock, capsys):
    with Progress("sweep", 100, "cells", done=80) as bar:
        clock.now += 10.0
        bar.note = "1 failed"
        bar.add(10)
    assert capsys.readouterr().err == "sweep: 90/100 cells (1 failed), about 10 s left\n"


def test_a_total_that_grows(clock, capsys):
    with Progress("2 runs", 0, "steps") as bar:
        clock.now += 10.0
        bar.add(0)
        bar.total += 1500
        clock.now += 10.0
        bar.add(500)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "2 runs: 0 steps"
    assert second == "2 runs: 500/1,500 steps, about 40 s left"


def test_a_step_that_takes_long_is_shown_too(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOOK", 0.01)
    monkeypatch.setattr(progress, "_BETWEEN", 0.05)
    monkeypatch.setattr(progress, "_said", float("-inf"))
    with Progress("time", 2, "sizes"):
        time.sleep(0.5)
    assert "time: 0/2 sizes\n" in capsys.readouterr().err


def test_a_fault_ends_the_progress(clock, capsys):
    with pytest.raises(KeyboardInterrupt), Progress("verify", 2, "rungs"):
        raise KeyboardInterrupt
    assert progress._open == []


# ---- on a terminal ----------------------------------------------------------------------------


def test_a_bar_appears_after_two_seconds_and_goes(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Progress("compare", 40, "estimators") as bar:
        clock.now += 1.9
        bar.add()
        assert terminal.getvalue() == ""
        clock.now += 2.1
        bar.add()
        shown = terminal.getvalue()
    assert "compare:" in shown
    assert "2/40 [00:04<01:16" in shown
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.parametrize("options", [{"shown": False}, {}], ids=["not shown", "short"])
def test_no_bar(options, clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    work(clock, 10, 60.0 if options else 0.1, **options)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", ["out", "err"])
def test_lines_said_stand_alone(stream, clock, capsys):
    say("done", sys.stdout if stream == "out" else None)
    assert getattr(capsys.readouterr(), stream) == "done\n"

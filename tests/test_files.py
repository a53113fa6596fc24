"""Files that appear at once and whole, whatever interrupts the writing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gradlab.files import move, write_tables, writing


def test_what_is_written_moves_when_the_block_ends_well(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with writing(tmp_path) as new:
        (new / "a.csv").write_text("new")
        assert (tmp_path / "a.csv").read_text() == "old"
    assert (tmp_path / "a.csv").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_an_error_leaves_the_old_files(tmp_path):
    (tmp_path / "a.csv").write_text("old")

    def interrupted():
        with writing(tmp_path) as new:
            (new / "a.csv").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from gradlab.files import writing
with writing(Path(sys.argv[1])) as new:
    (new / "a.csv").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.csv").read_text() == "old"
    with writing(tmp_path) as new:
        (new / "a.csv").write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "a.csv").write_text("old")

    def fill():
        with writing(tmp_path) as new:
            (new / "a.csv").symlink_to("/dev/full")
            (new / "a.csv").write_text("x" * 10**6)

    with pytest.raises(OSError, match="No space"):
        fill()
    assert (tmp_path / "a.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("mode", [0o444, 0o640, 0o604])
def test_a_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "a.csv").write_text("old")
    (tmp_path / "a.csv").chmod(mode)
    with writing(tmp_path) as new:
        (new / "a.csv").write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == mode


def test_a_new_file_has_the_permissions_that_a_plain_one_has(tmp_path):
    (tmp_path / "plain").write_text("")
    with writing(tmp_path) as new:
        (new / "a.csv").write_text("new")
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append("bytes"))
    monkeypatch.setattr(os, "replace", lambda *_: done.append("name"))
    (tmp_path / "part").write_text("all")
    move(tmp_path / "part", tmp_path / "whole")
    assert done == ["bytes", "name"]


def test_of_several_tables_all_are_written_or_none(tmp_path):
    class Broken(pd.DataFrame):
        def to_csv(self, *_, **__):
            raise OSError("the disk is full")

    rows = pd.DataFrame({"a": [0.1]})
    with pytest.raises(OSError, match="full"):
        write_tables({"one": rows, "two": Broken(rows)}, tmp_path)
    assert os.listdir(tmp_path) == []
    assert write_tables({"one": rows}, tmp_path) == [tmp_path / "one.csv"]
    assert (tmp_path / "one.csv").read_bytes() == b"a\n0.1\n"


def test_only_one_module_moves_files():
    package = Path(__file__).parents[1] / "gradlab"
    moving = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"os\.replace|NamedTemporaryFile\(dir|Directory\(dir", file.read_text())
    }
    assert moving == {"files.py"}

"""Plant each mutant in a copy of the package, run its tests, and print what was found.

    python -m tests.mutants [NAME ...]

The tests are those that `make test` runs: what is marked thorough or slow finds no mutant here.
The exit status is 1 if a mutant survived, or if tests fail that should not (`--sound`).
"""

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.pool import Pool
from pathlib import Path
from typing import NamedTuple

# Loaded once, before a process is forked for each mutant. Nothing of gradlab is among them.
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch

from tests.mutants.planted import MUTANTS

ROOT = Path(__file__).parents[2]
# Seconds of processor time, so that a busy machine kills no mutant. Tests of a mutant take less.
_LIMIT = 300
# What pytest returns when it could not run any test. Tests that cannot be collected find a mutant.
_NOT_RUN = {3, 4, 5}
# The copy of the package and of its tests that belongs to this process.
_copy = Path()


class Found(NamedTuple):
    """What became of a mutant: `status` is that of pytest, None if time ran out."""

    name: str
    status: int | None
    seconds: float
    printed: str

    @property
    def survived(self) -> bool:
        """Whether no test failed."""
        return self.status == 0

    @property
    def outcome(self) -> str:
        """The word that is printed."""
        if self.status is None:
            return "out of time"
        return "SURVIVED" if self.survived else "killed"


def main() -> int:
    """Run the mutants that the command line names, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to run, all by default")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--jobs", type=int, default=2, help="mutants that run at once")
    parser.add_argument("--only", help="mutants of files that begin so, such as report/")
    parser.add_argument(
        "--sound", action="store_true", help="first run the tests on the package as it is"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MUTANTS]
    if unknown:
        parser.error(f"unknown mutants: {', '.join(unknown)}")
    chosen = given.names or list(MUTANTS)
    chosen = [name for name in chosen if MUTANTS[name].file.startswith(given.only or "")]
    if given.list:
        print(*chosen, sep="\n")
        return 0
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "COLUMNS": "100"}
    # Bytecode is stored: without it each run rewrites the assertions of all its tests anew.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    fork = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory() as folder,
        fork.Pool(given.jobs, initializer=_begin, initargs=(folder,)) as pool,
    ):
        if given.sound and not is_sound(pool, chosen):
            return 1
        width = max(map(len, chosen), default=0)
        survived = []
        for found in pool.imap_unordered(run, chosen):
            file = MUTANTS[found.name].file
            print(
                f"{found.name:{width}}  {found.outcome:11}  {found.seconds:5.0f} s  {file}",
                flush=True,
            )
            if found.status in _NOT_RUN:
                raise RuntimeError(f"pytest ended with {found.status}:\n{found.printed}")
            if found.survived:
                survived.append(found.name)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed")
    for name in survived:
        print(f"survived: {name} ({MUTANTS[name].breaks})")
    return 1 if survived else 0


def _begin(folder: str) -> None:
    """Give a process its own copy of the package and of its tests."""
    global _copy
    _copy = copied(Path(folder) / str(os.getpid()))


def copied(folder: Path) -> Path:
    """Return a copy of what the tests read."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("gradlab", "tests", "docs", "figures", "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def is_sound(pool: Pool, names: list[str]) -> bool:
    """Return whether all tests of these mutants pass on the package as it is."""
    tests = sorted({test for name in names for test in MUTANTS[name].tests})
    failing = [found for found in pool.imap_unordered(run_sound, tests) if found.status != 0]
    for found in failing:
        print(f"{found.name} fails on the package as it is:\n{found.printed}")
    return not failing


def run_sound(test: str) -> Found:
    """Run one file of tests on the package as it is."""
    return _tried(test, (test,))


def run(name: str) -> Found:
    """Run the tests of a mutant while it is planted."""
    mutant = MUTANTS[name]
    path = _copy / "gradlab" / mutant.file
    before = path.read_text()
    _write(path, before.replace(mutant.old, mutant.new))
    try:
        return _tried(name, mutant.tests)
    finally:
        _write(path, before)


def _write(path: Path, text: str) -> None:
    """Write a file at a second of its own, so that no bytecode of another text is taken for it."""
    second = int(path.stat().st_mtime) + 1
    path.write_text(text)
    os.utime(path, (second, second))


def _tried(name: str, tests: tuple[str, ...]) -> Found:
    """Run tests in a process of their own that ends when its time does."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if not child:
            os._exit(_tests(tests, file))
        _, status = os.waitpid(child, 0)
        file.seek(0)
        printed = file.read()
    code = os.waitstatus_to_exitcode(status)
    late = code in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM)
    return Found(name, None if late else code, time.monotonic() - start, printed)


def _tests(tests: tuple[str, ...], printed: io.TextIOBase) -> int:
    """Run pytest in this process, with the package of the copy."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + _LIMIT
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
    signal.alarm(20 * _LIMIT)  # only tests that wait forever take so long
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    os.chdir(_copy)
    os.environ["PYTHONPATH"] = str(_copy)
    sys.path[:] = [str(_copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
    for module in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[module]
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


if __name__ == "__main__":
    sys.exit(main())

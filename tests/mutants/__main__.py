"""Plant each mutant in a copy of the package, run its tests, and print what was found.

    python -m tests.mutants [NAME ...]

The exit status is 1 if a mutant survived, or if tests fail that should not (`--sound`).
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
# Longer than any list of tests takes by far: a mutant that never ends is found as well.
_LIMIT = 900
# What pytest returns when tests failed, or could not even be collected.
_FAILED = {1, 2}


def main() -> int:
    """Run the mutants that the command line names, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to run, all by default")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument(
        "--sound", action="store_true", help="first run the tests on the package as it is"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MUTANTS]
    if unknown:
        parser.error(f"unknown mutants: {', '.join(unknown)}")
    chosen = given.names or list(MUTANTS)
    if given.list:
        print(*chosen, sep="\n")
        return 0
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        if given.sound and not passes(copy, sorted({t for n in chosen for t in MUTANTS[n].tests})):
            print("the tests fail on the package as it is")
            return 1
        width = max(map(len, chosen))
        for name in chosen:
            start = time.monotonic()
            if is_killed(copy, MUTANTS[name]):
                outcome = "killed"
            else:
                outcome = "SURVIVED"
                survived.append(name)
            seconds = time.monotonic() - start
            print(
                f"{name:{width}}  {outcome:8}  {seconds:5.0f} s  {MUTANTS[name].file}", flush=True
            )
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed")
    for name in survived:
        print(f"survived: {name} ({MUTANTS[name].breaks})")
    return 1 if survived else 0


def copied(folder: Path) -> Path:
    """Return a copy of what the tests read."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("gradlab", "tests", "figures", "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def is_killed(copy: Path, mutant: Mutant) -> bool:
    """Return whether a test fails while the mutant is planted in the copy."""
    path = copy / "gradlab" / mutant.file
    before = path.read_text()
    _write(path, before.replace(mutant.old, mutant.new))
    try:
        return not passes(copy, list(mutant.tests))
    finally:
        _write(path, before)


# Bytecode is stored, which saves time. It is taken for that of any text of the same second.
_SECONDS = itertools.count(int(time.time()))


def _write(path: Path, text: str) -> None:
    """Write a file at a second of its own, so that no bytecode of another text is taken for it."""
    path.write_text(text)
    second = next(_SECONDS)
    os.utime(path, (second, second))


def passes(copy: Path, tests: list[str]) -> bool:
    """Return whether the tests pass. Raises RuntimeError if pytest itself cannot run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in {0, *_FAILED}:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())

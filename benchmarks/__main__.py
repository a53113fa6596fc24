"""Print every ratio beside its target, and write the rows to results.csv.

`python -m benchmarks` measures all parts, and `python -m benchmarks PART...` some of them: only
their rows are replaced. `--quick` repeats little and writes no file. `--out FILE` writes elsewhere.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import PARTS
from benchmarks.pages import write_pages
from benchmarks.ratios import QUICK
from benchmarks.results import RESULTS, Results, first_line
from gradlab.nn.device import machine_name


def main(arguments: list[str]) -> None:
    about = "Speed of gradlab as ratios beside their targets."
    parser = argparse.ArgumentParser("python -m benchmarks", description=about)
    parser.add_argument("part", nargs="*", help=f"all by default: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few repeats; writes no file")
    parser.add_argument("--out", type=Path, help=f"where the rows go, instead of {RESULTS.name}")
    given = parser.parse_args(arguments)
    for part in given.part:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; the parts are {', '.join(PARTS)}")
    if given.quick:
        os.environ[QUICK] = "1"
    file = given.out or (None if given.quick else RESULTS)
    torch.set_num_threads(1)
    print(
        f"{machine_name(torch.device('cpu'))}, torch {torch.__version__}, one thread; CPU time, "
        "medians of interleaved runs, unless said\n"
    )
    results = Results(file)
    for part in given.part or PARTS:
        print(f"{part}: {first_line(part)}")
        for line in import_module(f"benchmarks.{part}").run():
            print(f"  {line}", flush=True)
            results.add(part, line)
        results.finish(part)
        print()
    if file is not None:
        print(file)
    if file == RESULTS:
        write_pages(results.rows)


if __name__ == "__main__":
    main(sys.argv[1:])

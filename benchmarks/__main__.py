"""Print every ratio beside its target, and write them to results.csv with the machine's name.

`python -m benchmarks PART...` measures some parts only and prints them.
"""

import sys
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import PARTS
from gradlab.files import writing
from gradlab.nn.device import machine_name
from gradlab.version import __version__

RESULTS = Path(__file__).with_name("results.csv")


def main(asked: list[str]) -> None:
    torch.set_num_threads(1)
    machine = machine_name(torch.device("cpu"))
    print(
        f"{machine}, torch {torch.__version__}, one thread; CPU time, medians of interleaved runs, "
        "unless said\n"
    )
    about = {"machine": machine, "torch": torch.__version__, "version": __version__}
    about["date"] = date.today().isoformat()
    rows: list[dict[str, Any]] = []
    for name in asked or PARTS:
        part = import_module(f"benchmarks.{name}")
        print(part.__doc__)
        for line in part.run():
            print(f"  {line}", flush=True)
            rows.append({"part": name, **line.row(), **about})
        print()
    if not asked:
        with writing(RESULTS.parent) as new:
            pd.DataFrame(rows).to_csv(new / RESULTS.name, index=False)
        print(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])

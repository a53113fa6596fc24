"""Print every ratio beside its target."""

import torch

from benchmarks import (
    against_limits,
    enumeration,
    layers,
    sequences,
    structures,
    sweeps,
    today,
)

torch.set_num_threads(1)
print(
    f"torch {torch.__version__}, one thread; CPU time, medians of interleaved runs, unless said\n"
)
for part in (against_limits, layers, enumeration, structures, sequences, today, sweeps):
    print(part.__doc__)
    for line in part.run():
        print(f"  {line}", flush=True)
    print()

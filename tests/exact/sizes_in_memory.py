"""Print what each estimator costs at sizes that are large for it: run by test_sizes in a process.

A row: size, estimator, time and megabytes of what is asked before a draw, megabytes of a draw. Time
is that of the processor, in units of 20 products of matrices [256, 256].
"""

import json
import resource
import sys
import time

import torch

from cases import CLAIMS
from gradlab.estimators import (
    ARMS,
    ESTIMATORS,
    GumbelRao,
    LeaveOneOut,
    ReinMaxCV,
    SumAndSample,
    UnorderedSet,
)
from gradlab.loss import gradient

MORE = [
    ARMS(64),
    GumbelRao(0.5, 50),
    LeaveOneOut(64),
    ReinMaxCV(1.0, 0.5, None),
    SumAndSample(4096),
    UnorderedSet(8),
]


def f(x: torch.Tensor) -> torch.Tensor:
    weight = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    return (x * weight).sum((-2, -1)) ** 2


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(variables: int, classes: int) -> None:
    logits = torch.randn(variables, classes, generator=torch.Generator().manual_seed(0)).double()
    of_all = {str(e): e for e in [c.estimator for c in CLAIMS] + [c() for c in ESTIMATORS.values()]}
    of_all |= {str(e): e for e in MORE}
    start = time.process_time()
    for _ in range(20):
        torch.mm(*torch.ones(2, 256, 256, dtype=torch.float64))
    unit = time.process_time() - start
    gradient(f, logits)  # what torch loads at its first backward is not an estimator's
    rows, accepted = {}, []
    for name, estimator in of_all.items():
        before, start = peak(), time.process_time()
        refused = estimator.refusal(logits), estimator.supports(f, logits)
        estimator.calls(classes, variables)
        rows[name] = [(time.process_time() - start) / unit, peak() - before]
        if refused[0] is None:
            accepted.append((name, estimator))
    for name, estimator in accepted:
        before = peak()
        estimator.draw(f, logits, 2, torch.Generator().manual_seed(0))
        rows[name].append(peak() - before)
    print(json.dumps(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))

"""One table of structures, each with its states and their weights in plain numpy."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from gradlab.distributions import Chain, Finite, KSubset, Permutation, SpanningTree

__all__ = ["CASES", "Case", "brute_force", "logits_of"]

LENGTH, CLASSES = 4, 3
UNARY = LENGTH * CLASSES
CYCLE = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]
TABLE = np.random.default_rng(7).normal(size=(6, 2, 2))


@dataclass(frozen=True)
class Case:
    """A structure: the shape of its parameters, the distribution, and an enumeration in numpy."""

    name: str
    shape: tuple[int, ...]
    make: Callable[..., Distribution]
    states: Callable[[], np.ndarray]
    weight: Callable[[np.ndarray, np.ndarray], float]

    def __str__(self) -> str:
        return self.name


def subsets(n: int, k: int) -> np.ndarray:
    every = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    return every[every.sum(1) == k]


def permutations(n: int) -> np.ndarray:
    return np.array([np.eye(n)[list(order)] for order in itertools.permutations(range(n))])


def trees(edges: list[tuple[int, int]], vertices: int) -> np.ndarray:
    found = []
    for chosen in itertools.combinations(range(len(edges)), vertices - 1):
        group = list(range(vertices))
        for e in chosen:
            i, j = edges[e]
            group = [group[i] if g == group[j] else g for g in group]
        if len(set(group)) == 1:
            found.append(np.bincount(chosen, minlength=len(edges)).astype(float))
    return np.array(found)


def sequences() -> np.ndarray:
    every = itertools.product(range(CLASSES), repeat=LENGTH)
    return np.array([np.eye(CLASSES)[list(classes)] for classes in every])


def linear(x: np.ndarray, theta: np.ndarray) -> float:
    return float((x * theta).sum())


def of_chain(x: np.ndarray, theta: np.ndarray) -> float:
    unary, pairwise = theta[:UNARY].reshape(LENGTH, CLASSES), theta[UNARY:]
    pairwise = pairwise.reshape(LENGTH - 1, CLASSES, CLASSES)
    steps = sum(x[t] @ pairwise[t] @ x[t + 1] for t in range(LENGTH - 1))
    return float((x * unary).sum() + steps)


def of_table(x: np.ndarray, theta: np.ndarray) -> float:
    (place,) = np.nonzero((x == TABLE).all((1, 2)))[0]
    return float(theta[place])


def chain(theta: Tensor, estimator: str = "ZGR") -> Chain:
    unary = theta[..., :UNARY].unflatten(-1, (LENGTH, CLASSES))
    pairwise = theta[..., UNARY:].unflatten(-1, (LENGTH - 1, CLASSES, CLASSES))
    return Chain(unary, pairwise, estimator)


def subset(k: int, n: int) -> Case:
    def make(theta: Tensor, estimator: str = "ZGR") -> KSubset:
        return KSubset(theta, k, estimator)

    return Case(f"{k}-subsets of {n}", (n,), make, lambda: subsets(n, k), linear)


COMPLETE = list(itertools.combinations(range(5), 2))

CASES = [
    Case(
        "2-subsets of 5", (5,), lambda p, e="ZGR": KSubset(p, 2, e), lambda: subsets(5, 2), linear
    ),
    Case(
        "3-subsets of 7", (7,), lambda p, e="ZGR": KSubset(p, 3, e), lambda: subsets(7, 3), linear
    ),
    Case(
        "1-subsets of 6", (6,), lambda p, e="ZGR": KSubset(p, 1, e), lambda: subsets(6, 1), linear
    ),
    Case(
        "5-subsets of 6", (6,), lambda p, e="ZGR": KSubset(p, 5, e), lambda: subsets(6, 5), linear
    ),
    Case("permutations of 4", (4, 4), Permutation, lambda: permutations(4), linear),
    Case("permutations of 5", (5, 5), Permutation, lambda: permutations(5), linear),
    Case(
        "trees of K5",
        (10,),
        lambda p, e="ZGR": SpanningTree(p, 5, estimator=e),
        lambda: trees(COMPLETE, 5),
        linear,
    ),
    Case(
        "trees of a cycle",
        (5,),
        lambda p, e="ZGR": SpanningTree(p, 5, CYCLE, e),
        lambda: trees(CYCLE, 5),
        linear,
    ),
    Case("chain", (UNARY + (LENGTH - 1) * CLASSES**2,), chain, sequences, of_chain),
    Case(
        "table",
        (6,),
        lambda p, e="ZGR": Finite(torch.tensor(TABLE), p.log_softmax(-1), e),
        lambda: TABLE,
        of_table,
    ),
]


def logits_of(case: Case, scale: float = 1.5, seed: int = 0) -> Tensor:
    """Return parameters of a case, float64."""
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(case.shape, generator=source, dtype=torch.float64)


def brute_force(case: Case, logits: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Return all states [S, ...], their probabilities [S] and the log-partition, in numpy."""
    states = case.states()
    weights = np.array([case.weight(x, logits.numpy()) for x in states])
    top = weights.max()
    total = np.exp(weights - top).sum()
    return states, np.exp(weights - top) / total, float(top + np.log(total))

"""Policy gradients over sequences against one batched forward and backward over all sequences."""

import time

import torch

from benchmarks.ratios import Ratio, Work, effort
from gradlab.sequences import (
    Tabular,
    Task,
    TinyTransformer,
    exact_gradient,
    exact_moments,
    parse,
    tasks,
)
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.held import HeldPolicy
from gradlab.sequences.moments import all_moments

__all__ = ["run"]

# Ten published estimators. On policy many of them give the tokens equal weights, off policy few.
_TEN = ("RLOO", "centred", "GRPO", "Dr.GRPO", "OPO", "PPO", "CISPO-verl", "GSPO", "MaxRL", "SAPO")


def run() -> list[Ratio]:
    """Return all ratios of this file."""
    # The first call of torch.func loads what it needs.
    of_groups = _of_groups()
    return [*_of_transformers(), of_groups]


def _last_is_right(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (tokens.sum(-1) % 3 == 0).double()


def _of_transformers() -> list[Ratio]:
    lines = []
    sizes = ((8, 6), (4, 9)) if effort(1, 0) else ((4, 7),)
    for vocabulary, horizon in sizes:
        policy = TinyTransformer(vocabulary, horizon)
        rollout = TinyTransformer(vocabulary, horizon, seed=1)
        task = Task(_last_is_right, vocabulary, horizon)
        source = torch.Generator().manual_seed(0)
        tokens = torch.randint(vocabulary, (4096, horizon), generator=source)
        parameters = list(policy.parameters())
        blocks = task.tree.size // len(tokens)

        def bare(policy=policy, tokens=tokens, parameters=parameters, blocks=blocks) -> None:  # type: ignore[no-untyped-def]
            for _ in range(blocks):
                log_p = policy(tokens).log_softmax(-1).gather(-1, tokens[..., None])
                torch.autograd.grad(log_p.sum(), parameters)

        def moments(policy=policy, task=task, rollout=None) -> None:  # type: ignore[no-untyped-def]
            all_moments([parse(name) for name in _TEN], [EnumeratedPolicy(policy, task, rollout)])

        def scores(policy=policy, task=task) -> None:  # type: ignore[no-untyped-def]
            # What any sum over squared estimates needs: the scores of all tokens, none kept.
            held, tree = HeldPolicy(policy, task), task.tree
            at = {}
            for start, count in tree.blocks(2**22 // (held.size * tree.vocabulary), even=True):
                rows = tree.contexts(tree.deepest, start, count)
                at.setdefault(count, torch.full((count,), tree.deepest))
                held.scores(rows, at[count])

        works = {
            "bare": bare,
            "scores": scores,
            "gradient": lambda policy=policy, task=task: exact_gradient(policy, task),
            "on": moments,
            "off": lambda moments=moments, rollout=rollout: moments(rollout=rollout),
        }
        # Each takes seconds: once is enough.
        found = {name: _seconds(work) for name, work in works.items()}
        found["bare"] = (found["bare"] + _seconds(bare)) / 2
        what = f"{vocabulary}^{horizon} sequences, {sum(p.numel() for p in parameters)} parameters"
        targets: dict[str, float | None]
        targets = {"gradient": 1.5, "scores": None, "on": 3.0, "off": 3.0}
        named = {
            "gradient": "exact gradient",
            "scores": "scores alone, no sums of them",
            "on": "moments of ten estimators on policy",
            "off": "and off policy",
        }
        lines += [
            Ratio(f"{named[key]}, {what}", found[key] / found["bare"], targets[key])
            for key in targets
        ]
    return lines


def _of_groups() -> Ratio:
    policy, task = Tabular(3, 3), tasks.parity()
    exact_moments("GRPO(g=16)", policy, task)
    spent = _seconds(lambda: exact_moments("GRPO(aggregation=TOK, g=16)", policy, task))
    return Ratio("exact moments, 15 sequences in groups of 16", 1e3 * spent, 100, "ms")


def _seconds(work: Work) -> float:
    """Return the CPU seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start

"""A policy as the engine holds it: a copy in float64, its logits, and the scores of its tokens."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from gradlab.sequences.faults import PolicyError
from gradlab.sequences.policy_contract import Policy, check_policy, logits_of
from gradlab.sequences.task import Task
from gradlab.sequences.token_scores import TokenScores

__all__ = ["HeldPolicy"]

# Scores of one row at a time are for small tasks: so many of them at most.
_ONE_BY_ONE = 2**14


class HeldPolicy:
    """A policy that keeps its contract on a task.

    A module is copied and computes in float64, unless it computes in its own type alone. A plain
    function has no parameters: it has values but no gradient.

    Args:
        policy: The policy.
        task: The task, whose prompt is put in front.
        what: What an error calls it.

    Raises:
        TypeError: If it cannot be called.
        PolicyError: If it breaks its contract.

    Example:
        >>> from gradlab.sequences import Tabular
        >>> task = Task(lambda tokens, lengths: lengths.double(), 3, 3, end=2)
        >>> held = HeldPolicy(Tabular(3, 3), task)
        >>> held.size, held.scores(torch.zeros(1, 3).long(), torch.tensor([0])).by_token.shape
        (39, torch.Size([1, 3, 39]))
    """

    def __init__(self, policy: Policy, task: Task, what: str = "policy") -> None:
        self.task, self.what = task, what
        if isinstance(policy, type):
            raise TypeError(f"the {what} must be a module or function, not the class {policy}")
        self.call: Policy = policy
        if isinstance(policy, nn.Module):
            self.call = _in_double(policy, task)
        check_policy(self.call, task, what)
        self._vmapped = isinstance(self.call, nn.Module)

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that train, in the order of `policy.parameters()`."""
        of = getattr(self.call, "parameters", None)
        found = [p for p in of() if p.requires_grad] if of is not None else []
        if not found:
            raise PolicyError(
                f"the {self.what} has no parameters that train, so there is no gradient: give a "
                "torch.nn.Module whose parameters require grad"
            )
        return found

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(p.numel() for p in self.parameters)

    def log_probs(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return log pi of each token of the vocabulary at each place, float64.

        Args:
            tokens: Sequences [B, T].
        """
        found = logits_of(self.call, self.task, tokens)
        return found.to(torch.float64).log_softmax(-1)

    def backward(
        self, tokens: Int[Tensor, "B T"], weights: Float[Tensor, "B T V"]
    ) -> Float[Tensor, " P"]:
        """Return the gradient of the sum of weights times log pi.

        Args:
            tokens: Sequences [B, T].
            weights: Of each token of the vocabulary at each place.
        """
        parameters = self.parameters
        with torch.enable_grad():
            log_p = self.log_probs(tokens)
            if not log_p.requires_grad:
                raise PolicyError(f"the logits of the {self.what} do not depend on its parameters")
            found = torch.autograd.grad(log_p, parameters, weights, allow_unused=True)
        return _flat(found, parameters)

    def weighted(
        self, tokens: Int[Tensor, "n G T"], weights: Float[Tensor, "n G T V"]
    ) -> Float[Tensor, "n P"]:
        """Return, for each of n groups, the gradient of the sum of weights times log pi.

        Args:
            tokens: Sequences [n, G, T].
            weights: Of each token of the vocabulary at each place.
        """
        if self._vmapped:
            try:
                return self._weighted_by_vmap(tokens, weights)
            except RuntimeError:
                self._vmapped = False
        rows = zip(tokens, weights, strict=True)
        return torch.stack([self.backward(row, weight) for row, weight in rows])

    def _weighted_by_vmap(self, tokens: Tensor, weights: Tensor) -> Tensor:
        policy, named = self._traced()

        def total(values: dict[str, Tensor], row: Tensor, weight: Tensor) -> Tensor:
            def call(tokens: Tensor) -> Any:
                return functional_call(policy, values, (tokens,))

            logits = logits_of(call, self.task, row)
            # What stands behind the end has no weight, and may be NaN.
            logits = torch.where((weight != 0).any(-1, keepdim=True), logits, 0.0)
            log_p = logits.to(torch.float64).log_softmax(-1)
            # A masked token has no weight, and log pi of -inf.
            return torch.where(weight != 0, log_p * weight, 0.0).sum()

        found = vmap(grad(total), in_dims=(None, 0, 0))(named, tokens, weights)
        return torch.cat([found[name].flatten(1) for name in named], 1).to(torch.float64)

    def _traced(self) -> tuple[nn.Module, dict[str, Tensor]]:
        policy = self.call
        assert isinstance(policy, nn.Module)
        return policy, {k: v.detach() for k, v in policy.named_parameters() if v.requires_grad}

    def scores(self, tokens: Int[Tensor, "B T"], at: Int[Tensor, " B"]) -> TokenScores:
        """Return the scores grad log pi(v | prefix) of all tokens at one place of each sequence.

        Args:
            tokens: Sequences [B, T].
            at: The place in each of them.
        """
        with torch.no_grad():
            log_p = self.log_probs(tokens)
        p, order = log_p[torch.arange(len(at)), at].exp().sort(-1, descending=True)
        weights = torch.nn.functional.one_hot(order[:, 1:], p.shape[-1]).to(torch.float64)
        others = self._products(tokens, at, weights)
        return TokenScores(others, -p[:, 1:] / p[:, :1], order.argsort(-1))

    def _products(self, tokens: Tensor, at: Tensor, weights: Tensor) -> Tensor:
        """Return the gradients of K weighted sums of log pi at one place of each row, [B, K, P]."""
        if self._vmapped:
            try:
                parts = self._by_vmap(tokens, at, weights)
            except RuntimeError:  # code that torch.func cannot trace
                self._vmapped = False
            else:
                return torch.cat([part.flatten(2) for part in parts], 2).to(torch.float64)
        return self._one_by_one(tokens, at, weights)

    def _by_vmap(self, tokens: Tensor, at: Tensor, weights: Tensor) -> list[Tensor]:
        policy, named = self._traced()

        def products(row: Tensor, here: Tensor, each: Tensor) -> list[Tensor]:
            def log_p(values: dict[str, Tensor]) -> Tensor:
                def call(tokens: Tensor) -> Any:
                    return functional_call(policy, values, (tokens,))

                found = logits_of(call, self.task, row[None])[0]
                # An index of each row would be a loop over the rows in the backward.
                found = torch.where(here[:, None], found, 0.0).sum(0)
                return found.to(torch.float64).log_softmax(-1)

            back = vjp(log_p, named)[1]
            (found,) = vmap(back)(each)
            return [found[name] for name in named]

        here = torch.arange(self.task.horizon) == at[:, None]
        with torch.no_grad():
            return vmap(products)(tokens, here, weights)

    def _one_by_one(self, tokens: Tensor, at: Tensor, weights: Tensor) -> Tensor:
        """Return the products row by row: any code of autograd will do, slowly."""
        if len(tokens) > _ONE_BY_ONE:
            raise PolicyError(
                f"the scores of {len(tokens):,} prefixes need a policy that torch.func.vmap can "
                "trace; this one branches on values or calls what it does not know"
            )
        parameters, rows = self.parameters, []
        for row, place, each in zip(tokens, at, weights, strict=True):
            with torch.enable_grad():
                log_p = self.log_probs(row[None])[0, place]
            for weight in each:
                found = torch.autograd.grad(
                    log_p, parameters, weight, retain_graph=True, allow_unused=True
                )
                rows.append(_flat(found, parameters))
        return torch.stack(rows).unflatten(0, weights.shape[:2])


def _flat(found: tuple[Tensor | None, ...], parameters: list[Tensor]) -> Tensor:
    """Return gradients as one row, 0 where a parameter is not used."""
    parts = [
        torch.zeros(p.numel(), dtype=torch.float64) if g is None else g.flatten().to(torch.float64)
        for g, p in zip(found, parameters, strict=True)
    ]
    return torch.cat(parts)


def _in_double(policy: nn.Module, task: Task) -> Callable[[Tensor], Tensor]:
    """Return a copy that computes in float64, or in its own type where it has no other."""
    kept = copy.deepcopy(policy)
    if all(p.dtype == torch.float64 for p in kept.parameters()):
        return kept
    double = copy.deepcopy(policy).double()
    try:
        with torch.no_grad():
            double(task.rows(torch.zeros(2, task.horizon, dtype=torch.int64)))
    except RuntimeError:
        return kept
    return double

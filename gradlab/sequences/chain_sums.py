r"""Sums over all sequences of a Markov chain by class (reward, length), one step after the other.

With d the weight of a state, e the sum of weighted scores so far on it and q a product of two such
sums,

.. math:: d' = \sum \alpha d, \quad e_i' = \sum \alpha (e_i + g_i d s), \quad
          q_{ij}' = \sum \alpha (q_{ij} + g_i e_j \cdot s + g_j e_i \cdot s + g_i g_j d |s|^2)

over the states and tokens that lead to the next one. The chance alpha is that of the policy that
samples; with pi^2/mu in its place the same sums are those of squared sequence ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.automaton import Automaton
from gradlab.sequences.tables import Tables

__all__ = ["Chain"]


@dataclass(frozen=True, eq=False)
class Chain:
    """The states of policies and of an automaton, and what leads from one to the next.

    Args:
        moves: The state after each token in each state, [Z, V].
        scores: The score of each token in each state, [Z, V, P].
        automaton: The verifier.
        horizon: T.
        end: The token that ends a sequence, or None.

    Example:
        >>> even = Automaton(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 0.0]))
        >>> chain = Chain(torch.zeros(1, 2).long(), torch.eye(2)[None].double(), even, 2, None)
        >>> ones = torch.ones(1, 1, 2, dtype=torch.float64)
        >>> found = chain.sums(torch.full((1, 2), 0.5).double(), ones, [(0, 0)])
        >>> found.mass.tolist()  # of length 1 and 2, rewards 0 and 1
        [0.0, 0.0, 0.5, 0.5]
    """

    moves: Int[Tensor, "Z V"]
    scores: Float[Tensor, "Z V P"]
    automaton: Automaton
    horizon: int
    end: int | None

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """The different rewards, and the place of that of each state of the automaton."""
        levels, level = self.automaton.rewards.unique(return_inverse=True)
        return levels, level

    @property
    def goes_on(self) -> Float[Tensor, " V"]:
        """1 for each token after which a sequence goes on, 0 for the end token."""
        found = torch.ones(self.moves.shape[1], dtype=torch.float64)
        if self.end is not None:
            found[self.end] = 0.0
        return found

    def sums(
        self,
        alpha: Float[Tensor, "Z V"],
        weights: Float[Tensor, "K Z V"],
        pairs: Sequence[tuple[int, int]],
    ) -> Tables:
        """Return sums of scores that are weighted token by token, by class (length, reward).

        Args:
            alpha: What each token in each state multiplies the weight of a sequence with.
            weights: K weights of the score of each token in each state.
            pairs: Pairs of them, whose products are wanted.
        """
        s2 = self.scores.square().sum(-1)

        def step(v: int, d: Tensor, e: Tensor, q: Tensor) -> tuple[Tensor, ...]:
            chance, s, g = alpha[:, v, None], self.scores[:, v], weights[:, :, v, None]
            product = (e @ s[:, :, None]).squeeze(-1)
            more_e = chance[..., None] * (e + (g * d)[..., None] * s[:, None])
            more_q = [
                q[n] + g[i] * product[j] + g[j] * product[i] + g[i] * g[j] * d * s2[:, v, None]
                for n, (i, j) in enumerate(pairs)
            ]
            return chance * d, more_e, chance * torch.stack(more_q) if pairs else q

        shape = (len(self.moves), len(self.automaton.rewards))
        d, e = self._start(*shape), self._zeros(len(weights), *shape, self.scores.shape[-1])
        mass, means, products = self._run(step, d, e, self._zeros(len(pairs), *shape))
        return Tables(mass, means, products)

    def prefix_sums(self, pi: Float[Tensor, "Z V"], mu: Float[Tensor, "Z V"]) -> Tables:
        """Return the same of h = sum_t r_{1:t} s_t, where mu samples.

        Args:
            pi: The probability of each token in each state.
            mu: That of the policy that samples.
        """
        s2, squared = self.scores.square().sum(-1), _over(pi.square(), mu)

        # d, d1, d2: E r^k 1[state]; e: E h 1[state]; f: E r h 1[state]; q: E |h|^2 1[state].
        def step(v: int, d: Tensor, d12: Tensor, ef: Tensor, q: Tensor) -> tuple[Tensor, ...]:
            m, p, two, s = mu[:, v, None], pi[:, v, None], squared[:, v, None], self.scores[:, v]
            product = (ef[1] @ s[:, :, None]).squeeze(-1)
            e = m[..., None] * ef[0] + (p * d12[0])[..., None] * s[:, None]
            f = p[..., None] * ef[1] + (two * d12[1])[..., None] * s[:, None]
            more_q = m * q[0] + 2 * p * product + two * d12[1] * s2[:, v, None]
            more_d = torch.stack([p * d12[0], two * d12[1]])
            return m * d, more_d, torch.stack([e, f]), more_q[None]

        shape = (len(self.moves), len(self.automaton.rewards))
        d, none = self._start(*shape), self._zeros(1, *shape)
        ef = self._zeros(2, *shape, self.scores.shape[-1])
        mass, _, means, products = self._run(step, d, torch.stack([d, d]), ef, none)
        return Tables(mass, means[:1], products)

    def _start(self, states: int, entries: int) -> Tensor:
        found = self._zeros(states, entries)
        found[0, 0] = 1.0
        return found

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64)

    def _run(self, step, *carried: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
        """Carry sums [*, Z, U, *] through all steps; return them by class, [*, C, *]."""
        levels, level = self.levels
        entries, after = len(level), self.automaton.transitions
        # The axis of states: behind the number of sums, for all but the first.
        axes = [0, *(1 for _ in carried[1:])]
        done = []
        for one, axis in zip(carried, axes, strict=True):
            shape = (*one.shape[:axis], self.horizon, len(levels), *one.shape[axis + 2 :])
            done.append(self._zeros(*shape))
        for t in range(self.horizon):
            following = [torch.zeros_like(one) for one in carried]
            for v in range(self.moves.shape[1]):
                added = step(v, *carried)
                ends = t == self.horizon - 1 or v == self.end
                place = (self.moves[:, v, None] * entries + after[:, v]).flatten()
                for one, into, to, axis in zip(added, following, done, axes, strict=True):
                    if ends:
                        to.select(axis, t).index_add_(axis, level[after[:, v]], one.sum(axis))
                    else:
                        flat = into.view(*into.shape[:axis], len(place), *into.shape[axis + 2 :])
                        flat.index_add_(axis, place, one.flatten(axis, axis + 1))
            carried = tuple(following)
        return [one.flatten(axis, axis + 1) for one, axis in zip(done, axes, strict=True)]


def _over(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, 0 where a is 0."""
    return torch.where(a > 0, a / b, 0.0)

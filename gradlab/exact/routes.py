r"""The second route to the true gradient: the enumerated sum, differentiated.

.. math:: \sum_c p_{ic} (E[f \mid x_i = c] - E f)\,e_c
          = \frac{\partial}{\partial\,logits_i} \sum_x p(x)\,(f(x) - E f)

f meets each x again in another batch, so that values which depend on their company show.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import log_probabilities
from gradlab.exact.all_cores import on_all_cores, swept
from gradlab.exact.enumeration import Space, ValueMoments
from gradlab.loss import Loss, evaluate
from gradlab.loss.diagnosis import BATCH_ULPS
from gradlab.loss.gate import Objective, checked
from gradlab.reproducible import single_thread

__all__ = ["SecondRoute", "TruthError", "second_route"]

# States that f is asked alone, and few together, in each block.
_FEW = (1, 9)


class TruthError(ArithmeticError):
    """The two routes to the true gradient disagree: f is not the same function on both."""


@dataclass(frozen=True)
class SecondRoute:
    """How far the second route is from the first, in units of f.

    Args:
        gradient: The distance of the two gradients.
        values: E |f' - f| |s| for the values f' of this sweep and f of the first.
        most: The largest |f' - f|.
        largest: The largest |f|.
        sums: What the sums may be off.
    """

    gradient: float
    values: float
    most: float
    largest: float
    sums: float

    def check(self, unit: float) -> None:
        """Raise TruthError unless rounding explains the distance, in this unit of f."""
        # The gate, and the first sweep at its start and end, allow f as much.
        if self.most > BATCH_ULPS * unit * self.largest:
            raise TruthError(
                f"values of f at the same x differ by {self.most:.1e} between two enumerations in "
                f"other batches, more than rounding ({BATCH_ULPS * unit * self.largest:.1e}): does "
                "f give the same value for the same x, whatever else is in the batch?"
            )
        allowed = self.sums + self.values
        if self.gradient > allowed:
            raise TruthError(
                "the true gradient by conditional means and by differentiating the enumerated sum "
                f"differ by {self.gradient:.1e}, more than rounding ({allowed:.1e})"
            )


@single_thread()
def second_route(first: ValueMoments, f: Loss, logits: Float[Tensor, "N C"]) -> SecondRoute:
    """Return how far the derivative of sum_x p(x) f(x) is from the gradient of the first sweep.

    Args:
        first: The moments by the first sweep.
        f: The loss, which has passed the gate.
        logits: The parameters [N, C], float64.

    Returns:
        The distances of gradients and values.
    """
    objective = checked(f, logits)
    return on_all_cores(lambda threads: _second_route(first, objective, logits, threads))


def _second_route(
    first: ValueMoments, f: Objective, logits: Float[Tensor, "N C"], threads: int
) -> SecondRoute:
    space = Space(logits)
    leaf, possible = logits.clone().requires_grad_(), space.p > 0
    seen, most = 0.0, 0.0
    length = len(space.block)
    cuts = [cut for cut in (*_FEW, (_FEW[-1] + length) // 2) if cut < length]

    def parts(block: Tensor) -> Tensor:
        return torch.cat([evaluate(f, part).detach() for part in block.tensor_split(cuts)])

    sweep = swept(space, f, parts, threads, written=True)
    for index, (prefix_p, prefix, of_block) in enumerate(sweep):
        score = space.score_norms(prefix)
        rows = zip(
            space.block.tensor_split(cuts),
            of_block.to(torch.float64).tensor_split(cuts),
            first.table[index].tensor_split(cuts),
            (prefix_p * space.block_p * score).tensor_split(cuts),
            strict=True,
        )
        for block, values, before, weight in rows:
            apart = (values - before).abs()
            seen += float(weight @ apart)
            most = max(most, float(apart.max()))
            with torch.enable_grad():
                # Masked classes turn up in no configuration: their -inf must not meet the 0 there.
                log_p = torch.where(possible, log_probabilities(leaf), 0.0)
                # Centred: an offset would cost digits.
                ((values - first.mean) @ torch.einsum("bnc,nc->b", block, log_p).exp()).backward()
    assert leaf.grad is not None
    sums = first.sizes.sums(first.table.numel(), logits.shape)
    distance = float(torch.linalg.vector_norm(first.gradient - leaf.grad))
    return SecondRoute(distance, seen, most, float(first.table.abs().max()), sums)

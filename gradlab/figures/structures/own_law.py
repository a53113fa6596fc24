r"""The gradient that belongs to perturb-and-MAP: its law is not that of the exponential family.

.. math:: \nabla_\theta E f(MAP(\theta + \epsilon)) = E\,(f(z) - b)\,(1 - e^{-\epsilon})

The score of Gumbel noise that is shifted by theta is 1 - exp(-eps). It is measured from draws.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab.moments import Groups, Moments
from gradlab.reproducible import block_generator
from gradlab.samples import draw_exponentials

__all__ = ["OwnLaw"]

_BLOCK = 2**14


class OwnLaw:
    """Samples z of perturb-and-MAP with the scores of their noise, drawn once for all losses.

    Args:
        structure: What is maximized, with its natural parameters.
        draws: The number of samples.
        seed: Of the noise.
        row: Names the random numbers.
    """

    def __init__(self, structure: Any, draws: int, seed: int, row: str) -> None:
        self.blocks: list[tuple[Tensor, Tensor]] = []
        for start in range(0, draws, _BLOCK):
            n = min(_BLOCK, draws - start)
            generator = block_generator(seed, row, start // _BLOCK)
            natural = [t.expand(n, *t.shape) for t in structure.natural]
            noise = [draw_exponentials(t, generator) for t in natural]
            moved = [t - e.log() for t, e in zip(natural, noise, strict=True)]
            score = torch.cat([(1 - e).flatten(1) for e in noise], 1)
            self.blocks.append((structure.maximizer(*moved), score))

    def gradient(
        self, f: Callable[[Tensor], Tensor], baseline: float, shape: Sequence[int]
    ) -> Moments:
        """Return the gradient of E f(z), measured from the draws.

        Args:
            f: The loss.
            baseline: A number near E f, which lowers the variance.
            shape: That of the parameters.
        """
        total: Groups | None = None
        for z, score in self.blocks:
            weighted = (f(z) - baseline).unsqueeze(-1) * score
            found = Groups.from_draws(weighted.reshape(len(z), *shape))
            total = found if total is None else total.merge(found)
        assert total is not None
        return Moments.from_groups(total)

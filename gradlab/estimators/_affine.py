r"""Estimators that are affine in coefficients which do not change their mean, and the best ones.

.. math:: \hat g = G_0 + \sum_j c_j G_j, \quad E\,G_j = 0, \qquad
          E \langle G_j, G_l \rangle\,c = -E \langle G_j, G_0 \rangle
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.checks import check_int
from gradlab.estimators.base import Own
from gradlab.estimators.values import ValueEstimator
from gradlab.loss import Loss

__all__ = ["AffineEstimator"]


class AffineEstimator(ValueEstimator):
    """A frozen dataclass of which the `fitted_fields` enter the estimate affinely."""

    def fit(
        self: Own,
        f: Loss,
        logits: Float[Tensor, "N C"],
        draws: int = 4096,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
    ) -> Own:
        """Return this estimator with the coefficients of least variance, from so many draws.

        Each part G_j comes from the same noise. Raises ValueError for `draws` below 2 and what
        `draw` raises.
        """
        check_int("draws", draws, 2)
        source = generator
        if source is None:
            source = Generator(logits.device)
            source.manual_seed(int(torch.randint(2**62, (1,))))
        state = source.get_state()
        zero = dict.fromkeys(self.fitted_fields, 0.0)
        parts = []
        for unit in ({}, *({name: 1.0} for name in self.fitted_fields)):
            same = Generator(source.device)
            same.set_state(state)
            part = self.with_(**(zero | unit)).draw(f, logits, draws, same)
            parts.append(part.to(torch.float64).flatten())
        source.set_state(same.get_state())
        with_none, *others = parts
        g = torch.stack([part - with_none for part in others])
        best = torch.linalg.pinv(g @ g.T, hermitian=True) @ -(g @ with_none)
        found = dict(zip(self.fitted_fields, best.tolist(), strict=True))
        return self.with_(**found)

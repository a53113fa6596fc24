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

# Numbers of one part that are held at once.
_NUMBERS = 2**24


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
        k = len(self.fitted_fields)
        gram, cross = torch.zeros(k, k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
        at_once = max(1, _NUMBERS // logits.numel())
        for first in range(0, draws, at_once):
            with_none, g = _parts(self, f, logits, min(at_once, draws - first), source)  # type: ignore[arg-type]
            gram += (g @ g.T).cpu()
            cross += (g @ with_none).cpu()
        best = torch.linalg.pinv(gram, hermitian=True) @ -cross
        found = dict(zip(self.fitted_fields, best.tolist(), strict=True))
        return self.with_(**found)


def _parts(
    estimator: AffineEstimator, f: Loss, logits: Tensor, n: int, source: Generator
) -> tuple[Tensor, Tensor]:
    """Return G_0 [m] and all G_j [k, m] of n draws, from the same noise; m = n N C."""
    state = source.get_state()
    zero = dict.fromkeys(estimator.fitted_fields, 0.0)
    parts = []
    for unit in ({}, *({name: 1.0} for name in estimator.fitted_fields)):
        source.set_state(state)
        part = estimator.with_(**(zero | unit)).draw(f, logits, n, source)
        parts.append(part.to(torch.float64).flatten())
    return parts[0], torch.stack([part - parts[0] for part in parts[1:]])

"""Straight-through with a temperature in the backward pass only."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_tau, tempered
from gradlab.estimators.pathwise import SampleOnlyEstimator
from gradlab.estimators.straight_through import StraightThrough

__all__ = ["TemperedStraightThrough"]


@dataclass(frozen=True, repr=False)
class TemperedStraightThrough(SampleOnlyEstimator):
    r"""ST-T(tau), straight-through with a temperature: x follows softmax(logits) all the same.

    .. math:: \hat g = V(q)\,v / \tau, \quad q = softmax(logits / \tau), \quad
              V(q)\,v = q \circ (v - q \cdot v)

    tau = 1 is ST. At every other tau it is biased even for linear f, whose gradient is V(p) v; the
    factor 1 / tau is what automatic differentiation yields. One evaluation. Bengio, Leonard &
    Courville 2013 (1308.3432), at tau = 1.
    """

    tau: float = 0.5

    name: ClassVar[str] = "ST-T"
    reference: ClassVar[str] = "Bengio et al. 2013, arXiv 1308.3432"

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 1 at tau = 1, else 0."""
        return 1 if self.tau == 1 else 0

    def pullback(
        self,
        p: Float[Tensor, "*#batch C"],
        x: Float[Tensor, "*#batch C"],
        v: Float[Tensor, "*#batch C"],
    ) -> Float[Tensor, "*batch C"]:
        """Return V(q) v / tau, whatever x."""
        return StraightThrough().pullback(tempered(p, self.tau), x, v) / self.tau

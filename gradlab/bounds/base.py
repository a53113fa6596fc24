r"""The contract of an estimator of the gradient of a bound of K samples.

.. math:: L_K = E\,Z, \quad Z = \log \tfrac1K \sum_k w_k, \quad
          w_k = \frac{p(x, z_k)}{q(z_k)}, \quad v_k = \frac{w_k}{\sum_l w_l}, \quad
          h_k = \nabla \log q(z_k)

z_1 ... z_K are independent samples of q = Categorical(softmax(logits)). An estimator is a frozen
dataclass whose formula, `estimate`, is written once: it serves draws, training and enumeration.
"""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.bounds.log_sums import log_mean
from gradlab.bounds.samples import Samples, draw_samples
from gradlab.categorical import check_logits
from gradlab.checks import check_int
from gradlab.estimators.pathwise import with_product
from gradlab.loss import Loss

__all__ = ["FAMILIES", "BoundEstimator"]

# typing.Self, for a checker of types that decorates methods one by one.
Own = TypeVar("Own", bound="BoundEstimator")

FAMILIES = ("score function", "sums over classes or states", "straight-through")
"""What `BoundEstimator.family` may be: families of `gradlab.estimators`."""


class BoundEstimator(ABC):
    r"""An estimator of d/dlogits E log (1/K) sum_k w_k.

    Subclasses are frozen dataclasses whose fields are hyperparameters. K is not one of them: one
    estimator serves every K.

    Declares:
        name: The short name of the text form, such as `OVIS`.
        aliases: Other names that `gradlab.bounds.parse` reads.
        family: One of `FAMILIES`.
        reference: The paper that introduced it.
        needs_gradient: Whether it needs the gradient of log p(x, z) in z.
        least: The smallest K for which it is defined.

    Example:
        >>> from gradlab.bounds import OVIS
        >>> OVIS().unbiased, OVIS(gamma=1).unbiased
        (True, False)
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = "score function"
    reference: ClassVar[str]
    needs_gradient: ClassVar[bool] = False
    least: ClassVar[int] = 1

    @property
    def unbiased(self) -> bool:
        """Whether it declares to have no bias, at every K and for every log p(x, z)."""
        return True

    @property
    def fresh(self) -> int | None:
        """Samples that one draw takes beside the K; None stands for all states with their q.

        The estimate is the mean, over the fresh samples, of what it is with one of them.
        """
        return 0

    def calls(self, k: int, variables: int, classes: int) -> int:
        """Return the evaluations of log p(x, z) of one draw with K samples of [N, C]."""
        return k

    @abstractmethod
    def estimate(self, on: Samples) -> Float[Tensor, "n *batch N C"]:
        """Return the n estimates from n tuples of K samples."""

    def refusal(self, k: int, variables: int, classes: int) -> str | None:
        """Return why it cannot be used with K samples of [N, C], or None if it can."""
        if k < self.least:
            return f"{self} compares a sample with the others: it needs k >= {self.least}, not {k}"
        return None

    def accepted(self, logits: Tensor, k: int) -> Tensor:
        """Return the logits, or raise ValueError with the `refusal`."""
        check_int("k", k, 1)
        reason = self.refusal(k, logits.shape[-2], logits.shape[-1])
        if reason is not None:
            raise ValueError(reason)
        return logits

    def draw(
        self,
        log_joint: Loss,
        logits: Float[Tensor, "N C"],
        k: int,
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent replicates of the estimate, in the dtype of the logits.

        Args:
            log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...].
            logits: Of q, [N, C].
            k: K, the number of samples in the bound.
            n: The number of replicates.
            generator: The source of random numbers; by default the global one.
        """
        logits = self.accepted(check_logits(logits, ndim=2), k).detach()
        with torch.no_grad():
            on = draw_samples(log_joint, logits, k, n, self.fresh, generator)
            return self.estimate(on).to(logits.dtype)

    def surrogate(
        self,
        log_joint: Loss,
        logits: Float[Tensor, "*batch N C"],
        k: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Return values of the bound; their backward is one estimate for the logits.

        For the parameters of log_joint it is the gradient of the same values: sum_k v_k times that
        of log p(x, z_k), whose mean is the true gradient. The bound is raised, so a training
        minimizes minus these values.

        Args:
            log_joint: log p(x, z) of one-hot z, [..., *batch, N, C] -> [..., *batch].
            logits: Of q, with any batch axes in front.
            k: K, the number of samples in the bound.
            generator: The source of random numbers; by default the global one.
        """
        logits = self.accepted(check_logits(logits), k)
        on = draw_samples(log_joint, logits, k, 1, self.fresh, generator)
        value = log_mean(on.log_w)[0]
        with torch.no_grad():
            estimate = self.estimate(on.detached())[0]
        return value.to(logits.dtype) + _carrier(logits, estimate)

    def with_(self: Own, **values: object) -> Own:
        """Return this estimator with other values of some fields."""
        return replace(self, **values)  # type: ignore[type-var]

    @classmethod
    def written_fields(cls) -> tuple[str, ...]:
        """Return the names of the fields, in their order: the arguments of the text form."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    @property
    def series(self) -> str:
        """The text form: no estimator of bounds has a temperature."""
        return str(self)

    def __str__(self) -> str:
        shown = [f"{name}={_text(getattr(self, name))}" for name in self.written_fields()]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def __repr__(self) -> str:
        return str(self)


def _text(value: float | None) -> str:
    return "inf" if value is None else f"{value:.12g}"


def _carrier(logits: Tensor, estimate: Tensor) -> Tensor:
    """Return zeros [*batch] whose backward sends the estimate to the logits."""
    zeros = torch.zeros_like(logits)
    return with_product(zeros, logits, torch.mul, estimate).sum((-2, -1))

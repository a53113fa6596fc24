"""A loss of x drawn from a distribution with more states than can be enumerated: draws decide."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.packed import packed
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.reproducible import block_generator

__all__ = ["SampledStructure", "structured_or_sampled"]

# States at which f is asked whether it keeps its contract.
_ASKED = 12


@dataclass(frozen=True)
class SampledStructure(Structured):
    """A `Structured` of which no state is enumerated: what asks for all states raises.

    That the probabilities sum to 1 is not checked; that samples have a finite log-probability is.

    Args:
        f: The loss, x [..., *shape of x] -> [...].
        parameters: What the distribution depends on, any shape, floating-point.
        distribution: From parameters like these to a `torch.distributions.Distribution`.

    Raises:
        LossError: If f breaks its contract.
        TypeError: If the parameters are not floating-point, or no distribution comes back.
        ValueError: If the support is not finite, or log_prob is not differentiable or not finite.

    Example:
        >>> from gradlab import parse
        >>> from gradlab.distributions import KSubset
        >>> on = SampledStructure(lambda x: x[..., 0], torch.zeros(100), lambda p: KSubset(p, 50))
        >>> on.draws(parse("RF(m=4)"), 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 100])
    """

    def _some_states(self) -> Tensor:
        return self.sample(_ASKED, block_generator(0, "states of a distribution"))

    def _check(self) -> None:
        x = self._some_states()
        with torch.enable_grad():
            found = self._log_prob(self.parameters.detach().requires_grad_(), x)
        if not found.requires_grad:
            raise ValueError(
                "log_prob is not differentiable in the parameters: does the distribution detach "
                "them, or not use them?"
            )
        if not bool(found.isfinite().all()):
            raise ValueError("log_prob is not finite at samples of the distribution itself")


def structured_or_sampled(
    f: Any,
    parameters: Tensor | tuple[Tensor, ...] | None = None,
    distribution: DistributionOf | None = None,
) -> tuple[Structured, str]:
    """Return what is enumerated, or, where states are too many, what is sampled, and why.

    Args:
        f: The loss, x [..., *shape of x] -> [...]; or a `Structured` in place of all arguments.
        parameters: What the distribution depends on.
        distribution: From parameters like these to the distribution.

    Returns:
        A `Structured` and "", or a `SampledStructure` and the reason in words.

    Raises:
        LossError, ValueError: As `Structured`.
        TypeError: If there is too much or too little.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> structured_or_sampled(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))[1]
        ''
    """
    if isinstance(f, Structured):
        if parameters is not None or distribution is not None:
            raise TypeError("a Structured has its own parameters and distribution: give it alone")
        return f, ""
    if parameters is None or distribution is None or not callable(f):
        raise TypeError("with distribution= give a loss f and the parameters")
    held: dict[str, Any] = {}
    if isinstance(parameters, tuple):
        held["held"] = parameters
        f, parameters, distribution = packed(f, parameters, distribution)
    try:
        return Structured(f, parameters, distribution, **held), ""
    except TooLargeError as error:
        return SampledStructure(f, parameters, distribution, **held), str(error)

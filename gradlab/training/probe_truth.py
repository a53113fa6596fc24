"""A batch of losses on few latent states, all tabulated at once: exact gradient, exact moments.

Every element of the batch is a problem of its own on the same states; f is evaluated for all
elements together, as a training does.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import one_hot
from gradlab.estimators import Estimator
from gradlab.exact.moments import Enumeration
from gradlab.loss import Loss, evaluate, gradient
from gradlab.moments import Moments

__all__ = ["LARGEST_STATES", "EnumeratedBatch"]

LARGEST_STATES = 4096
"""Up to so many latent states C^N of one element the truth is enumerated."""

# Numbers of x that f is shown at once, and that the table of gradients may hold.
_BLOCK = 2**20
_TABLE = 2**25


class EnumeratedBatch:
    """f: x [..., B, N, C] -> [..., B] at all states of each element, with logits [B, N, C].

    Values, and for pathwise estimators gradients, are tabulated in the dtype of the logits and then
    used in float64, by the same exact engine as everywhere else.
    """

    def __init__(self, f: Loss, logits: Float[Tensor, "B N C"]) -> None:
        self.f = f
        self.logits = logits.detach()

    @staticmethod
    def of(f: Loss, logits: Float[Tensor, "B N C"]) -> "EnumeratedBatch | None":
        """Return the batch, or None if its states are too many to enumerate."""
        variables, classes = logits.shape[1:]
        states = classes**variables
        if states > LARGEST_STATES or states * logits.numel() > _TABLE:
            return None
        return EnumeratedBatch(f, logits)

    @cached_property
    def gradient(self) -> Float[Tensor, "V C"]:
        """The true gradient of all variables of the batch, [B N, C], float64."""
        return torch.cat([element.values.gradient for element in self._elements])

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of the estimate for all variables of the batch, [B N, C].

        Raises NotExactError where they are not known, NotDifferentiableError for an f without the
        gradient that is needed.
        """
        found = [element.moments(estimator) for element in self._elements]
        return Moments(
            torch.cat([moments.mean for moments in found]),
            torch.cat([moments.variance_per_variable for moments in found]),
        )

    @cached_property
    def _elements(self) -> list[Enumeration]:
        logits = self.logits.to("cpu", torch.float64)
        return [Enumeration(self._element(b), logits[b]) for b in range(len(logits))]

    def _element(self, b: int) -> Loss:
        """Return f of element b alone, read from the tables: x [..., N, C] -> [...]."""

        def f(x: Tensor) -> Tensor:
            return _Lookup.apply(x, self._values[:, b], lambda: self._gradients[:, b])

        return f

    @cached_property
    def _values(self) -> Float[Tensor, "S B"]:
        with torch.no_grad():
            return torch.cat([evaluate(self.f, x).cpu().double() for x in self._states()])

    @cached_property
    def _gradients(self) -> Float[Tensor, "S B N C"]:
        return torch.cat([gradient(self.f, x).cpu().double() for x in self._states()])

    def _states(self) -> list[Float[Tensor, "s B N C"]]:
        batch, variables, classes = self.logits.shape
        index = torch.arange(classes**variables, device=self.logits.device)
        powers = _powers(variables, classes).to(index)
        x = one_hot(index[:, None] // powers % classes, self.logits[0])
        x = x.unsqueeze(1).expand(-1, batch, -1, -1)
        return list(x.split(max(1, _BLOCK // self.logits.numel())))


def _powers(variables: int, classes: int) -> Tensor:
    """Return what a class of each variable counts in the number of a state, [N]."""
    return classes ** torch.arange(variables - 1, -1, -1)


class _Lookup(torch.autograd.Function):
    """Tabulated values at one-hot x, with tabulated gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, gradients: Callable[[], Tensor]) -> Tensor:
        state = (x.argmax(-1) * _powers(*x.shape[-2:])).sum(-1)
        ctx.save_for_backward(state)
        ctx.gradients = gradients
        return values[state]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (state,) = ctx.saved_tensors
        return grad[..., None, None] * ctx.gradients()[state], None, None

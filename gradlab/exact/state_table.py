"""A loss at all states of x: f is evaluated at each of them once, whoever asks how often."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.categorical import one_hot
from gradlab.exact.interruption import is_own
from gradlab.loss import Loss, TabledLoss, evaluate, gradient
from gradlab.loss.diagnosis import agree
from gradlab.loss.gate import Objective

__all__ = ["Made", "StateTable", "places"]

Made = tuple[Callable[[], Tensor | None], Callable[[], Tensor | None]]
"""Functions that return tables of values and of gradients, or None where there are none."""

# A state of probability 0 has a number below all others: no sum of places brings it to one.
_IMPOSSIBLE = -(2**40)
# States at which f is asked again after the last one.
_FEW = 8


def places(
    allowed: list[Tensor], classes: int, *, first_fastest: bool = False
) -> Int[Tensor, "N C"]:
    """Return what each class counts in the number of a state; a sum below 0 is none of them.

    Args:
        allowed: For each of the N variables the classes that it may have.
        classes: C.
        first_fastest: Whether the first variable runs fastest, else the last.

    Returns:
        The places [N, C], int64.

    Example:
        >>> places([torch.tensor([0, 2]), torch.arange(3)], 3)[1].tolist()
        [0, 1, 2]
    """
    found = torch.full((len(allowed), classes), _IMPOSSIBLE)
    count = 1
    variables = range(len(allowed))
    for i in variables if first_fastest else reversed(variables):
        found[i, allowed[i]] = count * torch.arange(len(allowed[i]))
        count *= len(allowed[i])
    return found


class StateTable(TabledLoss):
    """f with its values, and its gradients, at all states; elsewhere, as at a relaxed x, f itself.

    Both are evaluated at each state once, when they are first asked for, and kept in float64. The
    values are those that f gives in the batches of `blocks`: where f rounds otherwise in batches of
    another size, as products of matrices do, they differ from other calls in the last bits.

    Args:
        f: The loss, x [..., N, C] -> [...], or [..., B, N, C] -> [..., B].
        place: What each class counts in the number of a state, from `places`.
        blocks: Yields x at all states in the order of their numbers, float64. A block is used
            before the next is asked for.
        batch: B, or None.
        with_gradients: Whether gradients are kept too.
        spare: Whether an f that cannot be asked at all states, or does not hold still meanwhile, is
            called itself, so that it is judged at the states that it is asked about.
        made: Returns the values, and the gradients, where a sweep of the same blocks has found
            them already; else None.

    Example:
        >>> x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).double()
        >>> table = StateTable(lambda x: x[..., 0, 1], places([torch.arange(2)], 2), lambda: [x])
        >>> table(x).tolist(), table.at(torch.tensor([[1]])).tolist()
        ([0.0, 1.0], [1.0])
    """

    def __init__(
        self,
        f: Loss,
        place: Int[Tensor, "N C"],
        blocks: Callable[[], Iterable[Tensor]],
        *,
        batch: int | None = None,
        with_gradients: bool = True,
        spare: bool = False,
        made: Made = (lambda: None, lambda: None),
    ) -> None:
        self.f = f
        self.batch = batch
        self.with_gradients = with_gradients
        self._blocks, self._spare, self._made = blocks, spare, made
        # Elements of a batch stand beside each other in a row of the table.
        self._place = place * (batch or 1)
        self._weight = self._place.to(torch.float64)
        self._element = 0 if batch is None else torch.arange(batch)
        self._variables = torch.arange(len(place))
        # Where no class is masked, what one class more counts for each variable.
        self._steps = (
            None if bool((place < 0).any()) else self._place[:, min(1, place.shape[1] - 1)]
        )
        self._states = int(place.amax(-1).sum()) + 1
        self._lock = Lock()
        self._tables: dict[str, Tensor | None] = {}

    def __len__(self) -> int:
        """Return the number of states."""
        return self._states

    def __call__(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        """Return f(x), from the table where x is one-hot."""
        differentiated = x.requires_grad and torch.is_grad_enabled()
        number = self._number(x) if self.with_gradients or not differentiated else None
        values = None if number is None else self.values
        if values is None or number is None or (differentiated and self.gradients is None):
            return self.f(x)
        if not differentiated:
            return values.take(number)
        return _LookUp.apply(x, number, values, self.gradients)

    def at(self, classes: Int[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """Return f at the configurations of these classes."""
        if self._steps is None:
            number = self._place[self._variables, classes].sum(-1)
        else:
            number = (classes * self._steps).sum(-1)
        number = number + self._element
        values = self.values if self._is_state(number) else None
        return self.f(one_hot(classes, self._weight)) if values is None else values.take(number)

    def gradient_at(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"] | None:
        """Return grad f(x) at one-hot x; None at others, or where f itself is to be asked."""
        number = self._number(x) if self.with_gradients else None
        found = None if number is None else self.gradients
        return None if found is None or number is None else _rows(found, number)

    @property
    def values(self) -> Float[Tensor, " S_B"] | None:
        """f at every state, of every element, in one row; None where f itself is to be asked."""
        return self._once("values", torch.no_grad()(evaluate))

    @property
    def gradients(self) -> Float[Tensor, "S_B N C"] | None:
        """grad f at every state of every element; None where f itself is to be asked."""
        return self._once("gradients", gradient)

    def peek(self, what: str) -> Tensor | None:
        """Return "values" or "gradients" where they have been made already, else None."""
        return self._tables.get(what)

    def element(self, b: int, alone: Loss) -> "StateTable":
        """Return the table of element b of a batch, which is read from this one.

        Args:
            b: Which element.
            alone: f of this element, for what is not in the table.
        """

        def part(whole: Tensor | None) -> Tensor | None:
            return None if whole is None else whole[b :: self.batch]

        return StateTable(
            alone,
            self._place // (self.batch or 1),
            self._blocks,
            with_gradients=self.with_gradients,
            made=(lambda: part(self.values), lambda: part(self.gradients)),
        )

    def _number(self, x: Tensor) -> Tensor | None:
        """Return which rows of the table x are, or None unless all of them are states."""
        if x.dtype != torch.float64 or x.numel() == 0:
            return None
        x = x.detach()
        # The first x shows a block of relaxed ones at once.
        for some in (x[(0,) * (x.ndim - 2)], x):
            if bool((some * some).sub_(some).count_nonzero()):
                return None
        number = (x.flatten(-2) @ self._weight.flatten()).long() + self._element
        return number if self._is_state(number) else None

    def _is_state(self, number: Tensor) -> bool:
        return self._steps is not None or (number.numel() > 0 and int(number.min()) >= 0)

    def _once(self, what: str, of: Callable[[Loss, Tensor], Tensor]) -> Tensor | None:
        """Return a table, which is made by the first thread that asks for it."""
        with self._lock:
            if what not in self._tables:
                known = self._made[what == "gradients"]()
                self._tables[what] = self._evaluated(of) if known is None else known
            return self._tables[what]

    def _evaluated(self, of: Callable[[Loss, Tensor], Tensor]) -> Tensor | None:
        try:
            return self._swept(of)
        except Exception:
            if not self._spare:
                raise
            return None

    def _swept(self, of: Callable[[Loss, Tensor], Tensor]) -> Tensor | None:
        parts: list[Tensor] = []
        few = None
        for x in self._blocks():
            few = x[:_FEW].clone() if few is None else few
            # Copied: f may hand out the same memory at each call.
            parts.append(of(self.f, x).detach().to("cpu", torch.float64, copy=True))
        found = torch.cat(parts)
        if self._spare and few is not None and isinstance(self.f, Objective) and not is_own(self.f):
            again = of(self.f, few).detach().to(found)
            whole = found.clone()
            whole[: len(again)] = again
            if not agree(whole, found, self.f.eps):
                return None
        return found.flatten(0, 1) if self.batch is not None else found


def _rows(table: Tensor, number: Tensor) -> Tensor:
    """Return rows of a table [S, ...]; a fresh tensor."""
    return table.index_select(0, number.flatten()).unflatten(0, number.shape)


class _LookUp(torch.autograd.Function):
    """Tabulated values at one-hot x, by the number of its state, with tabulated gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, number: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        """Return the values at these states."""
        ctx.save_for_backward(number, gradients)
        return values.take(number)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients at the states, weighted."""
        number, gradients = ctx.saved_tensors
        return grad[..., None, None] * _rows(gradients, number), None, None, None

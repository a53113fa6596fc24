"""A loss for draws: where its states are fewer than the evaluations, they are read from a table."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.exact.enumeration import Space
from gradlab.exact.moments import Enumerated, Enumeration
from gradlab.exact.state_table import Made, StateTable, places
from gradlab.exact.tabulated import allowed_classes, batch_blocks
from gradlab.loss.gate import Objective

__all__ = ["for_draws", "tabled"]

# Numbers that a table of draws may hold: reading a larger one costs more than a cheap f.
_DRAWN = 2**20
_KEPT = "_for_draws"


def for_draws(on: Enumerated, evaluations: float) -> StateTable | Objective:
    """Return f of an enumeration for draws that evaluate it so often; see `tabled`.

    One table serves all draws. It takes over what exact moments have found already.

    Args:
        on: The enumeration.
        evaluations: At how many x f will be asked for.

    Returns:
        A loss with the values of f.

    Example:
        >>> on = Enumeration(lambda x: x[..., 0, 1], torch.zeros(2, 3))
        >>> for_draws(on, 9) is for_draws(on, 10), for_draws(on, 8) is on.objective
        (True, True)
    """
    if _KEPT not in vars(on):
        # As cached_property does it, which passes by the frozen dataclass.
        vars(on)[_KEPT] = tabled(on.objective, on.logits, math.inf, _made_by(on))
    kept: StateTable | Objective = vars(on)[_KEPT]
    enough = isinstance(kept, StateTable) and len(kept) <= evaluations
    return kept if enough else on.objective


def _made_by(on: Enumerated) -> Made:
    """Return what finds the values and gradients that an enumeration has made by now."""

    def values() -> Tensor | None:
        if isinstance(on, Enumeration):
            return on.values.table.flatten() if "values" in vars(on) else None
        return None if on.tabulated.table is None else on.tabulated.table.peek("values")

    def gradients() -> Tensor | None:
        if isinstance(on, Enumeration):
            return on.gradients.table if "gradients" in vars(on) else None
        return None if on.tabulated.table is None else on.tabulated.table.peek("gradients")

    return values, gradients


def tabled(
    f: Objective,
    logits: Float[Tensor, "*batch N C"],
    evaluations: float,
    made: Made = (lambda: None, lambda: None),
) -> StateTable | Objective:
    """Return f from a table of its states where they are at most so many; else f.

    Whether there is a table depends on sizes alone, and so do the bits of what is drawn from it. A
    loss that sees the logits has none: its draws need a graph at each x.

    Args:
        f: The loss, which has passed the gate.
        logits: The parameters [N, C] or [B, N, C].
        evaluations: At how many x it will be asked for.
        made: Returns the values, and the gradients, where a sweep of the same blocks has found
            them already; else None.

    Returns:
        A loss with the values of f.

    Example:
        >>> from gradlab.loss.gate import checked
        >>> logits = torch.zeros(2, 3)
        >>> f = checked(lambda x: x[..., 0, 1], logits)
        >>> [type(tabled(f, logits, most)).__name__ for most in (8, 9)]
        ['Objective', 'StateTable']
    """
    if f.second is not None or logits.numel() == 0:
        return f
    allowed = allowed_classes(logits)
    states = math.prod(map(len, allowed))
    batch = None if logits.ndim == 2 else len(logits)
    if states > evaluations or states * (batch or 1) > _DRAWN:
        return f
    at = logits.detach().to("cpu", torch.float64)
    return StateTable(
        f,
        places(allowed, logits.shape[-1]),
        partial(_of_space if batch is None else batch_blocks, at),
        batch=batch,
        with_gradients=states * (logits.numel() + (batch or 1)) <= _DRAWN,
        spare=True,
        made=made,
    )


def _of_space(logits: Float[Tensor, "N C"]) -> Iterator[Float[Tensor, "s N C"]]:
    space = Space(logits)
    for _ in space.prefixes():
        yield space.block

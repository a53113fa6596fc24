"""How many gradients a training averages, from its batch and its momentum."""

from gradlab.checks import check_int
from gradlab.comparison.rows import AVERAGED
from gradlab.moments import check_averaged

__all__ = ["averaged_gradients", "number_of_averaged"]


def averaged_gradients(batch: int = 1, momentum: float = 0.0) -> float:
    r"""Return the number of equally weighted gradients that average as much noise away.

    .. math:: B \, \frac{1 + m}{1 - m}

    A momentum m weights the gradient of k steps ago by (1 - m) m^k. For independent gradients of
    variance V this mean has the variance V (1 - m) / (1 + m), that of the plain mean of
    (1 + m) / (1 - m) gradients: 1 without momentum, 19 at 0.9, 199 at 0.99. This is the most that
    momentum can do, since the true gradient changes over the steps.

    A batch multiplies the number only if its B elements draw at the same logits, as where the
    logits are parameters of the model. Where an encoder makes other logits for each element, the
    elements are the axis B of logits [B, N, C], and each has a gradient of its own: leave `batch`
    out.

    Args:
        batch: How many draws at these logits one step averages.
        momentum: The momentum m of the optimizer, for Adam its beta1, in [0, 1).

    Returns:
        The number, at least 1.

    Raises:
        ValueError: If the batch is below 1, or the momentum is not in [0, 1).

    Example:
        >>> [round(averaged_gradients(momentum=m), 6) for m in (0.0, 0.5, 0.9)]
        [1.0, 3.0, 19.0]
        >>> averaged_gradients(batch=64)
        64.0
    """
    check_int("batch", batch, 1)
    if not isinstance(momentum, int | float) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be a number of at least 0 and below 1, not {momentum!r}")
    return batch * (1 + momentum) / (1 - momentum)


def number_of_averaged(
    averaged: float | None, batch: int | None, momentum: float | None, *, elements: bool
) -> float:
    """Return how many gradients are averaged, by what was given of the three.

    Args:
        averaged: The number itself.
        batch: A batch that draws at the same logits.
        momentum: The momentum of the optimizer.
        elements: Whether the logits have an axis of the elements of a batch.

    Returns:
        The number; by default `AVERAGED`.

    Raises:
        ValueError: If both the number and what it is derived from are given, if the logits hold
            the batch already, or if a number is out of range.

    Example:
        >>> number_of_averaged(None, None, None, elements=False)
        10.0
        >>> round(number_of_averaged(None, None, 0.9, elements=True))
        19
    """
    if batch is None and momentum is None:
        averaged = AVERAGED if averaged is None else averaged
        check_averaged(averaged)
        return float(averaged)
    if averaged is not None:
        raise ValueError(
            "give either averaged, or the batch and the momentum that it is derived from, not both"
        )
    if batch is not None and elements:
        raise ValueError(
            "logits [B, N, C] hold the batch already, and each of its elements has a gradient of "
            "its own: leave batch out; for many draws at the same logits give logits [N, C]"
        )
    return averaged_gradients(1 if batch is None else batch, momentum or 0.0)

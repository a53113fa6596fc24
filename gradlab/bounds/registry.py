"""All estimators of bounds by their names, and the reading of their text forms."""

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.local_expectation import BoundLocalExpectation
from gradlab.bounds.score_function import OVIS, VIMCO, OVISMonteCarlo, Plain, VIMCOArithmetic
from gradlab.bounds.straight_through import BoundDARN, BoundStraightThrough, BoundZGR
from gradlab.text_forms import Known, read_form

__all__ = ["ESTIMATORS", "bound_estimator", "parse"]

_CLASSES: tuple[type[BoundEstimator], ...] = (
    *(Plain, VIMCO, VIMCOArithmetic, OVIS, OVISMonteCarlo, BoundLocalExpectation),
    *(BoundStraightThrough, BoundDARN, BoundZGR),
)

ESTIMATORS: dict[str, type[BoundEstimator]] = {cls.name: cls for cls in _CLASSES}
"""Every estimator of bounds by its short name."""

_KNOWN = [
    Known(cls.name, cls.__name__, tuple(cls.aliases), cls.written_fields()) for cls in _CLASSES
]


def parse(text: str) -> BoundEstimator:
    """Return the estimator of bounds that a text names.

    Args:
        text: Such as `VIMCO`, `OVIS(gamma=1)` or `OVIS-MC(s=inf)`; read as
            `gradlab.parse` reads other estimators.

    Returns:
        The estimator. `str(estimator)` is its text form, which `parse` reads back.

    Raises:
        ValueError: The name is unknown (the message names the nearest one), or an argument or its
            value is not allowed.

    Example:
        >>> parse("vimco"), parse("OVIS-MC(s=inf)"), parse("LE")
        (VIMCO, OVIS-MC(s=inf), LE)
    """
    name, arguments = read_form(text, _KNOWN)
    return ESTIMATORS[name](**arguments)


def bound_estimator(given: BoundEstimator | str) -> BoundEstimator:
    """Return an estimator of bounds, given itself or its text.

    Args:
        given: The estimator or its text.

    Returns:
        The estimator.

    Raises:
        TypeError: It is something else.
        ValueError: The text names no estimator of bounds.

    Example:
        >>> bound_estimator("VIMCO")
        VIMCO
    """
    if isinstance(given, str):
        return parse(given)
    if not isinstance(given, BoundEstimator):
        raise TypeError(
            f"an estimator of gradlab.bounds or its text is wanted, not {type(given).__name__}"
        )
    return given

"""The contract of a loss f, and the gate that every public call passes."""

from gradlab.loss.adapted import as_loss
from gradlab.loss.contract import (
    BatchDependentError,
    ChangesInputError,
    GradientModeError,
    HoldsLogitsError,
    Loss,
    LossDtypeError,
    LossError,
    LossShapeError,
    LossTypeError,
    NotDifferentiableError,
    NotFiniteError,
    RandomLossError,
    StatefulLossError,
    evaluate,
    gradient,
    value_and_gradient,
    why_no_gradient,
)
from gradlab.loss.gate import Objective, checked, name_of

__all__ = [
    "BatchDependentError",
    "ChangesInputError",
    "GradientModeError",
    "HoldsLogitsError",
    "Loss",
    "LossDtypeError",
    "LossError",
    "LossShapeError",
    "LossTypeError",
    "NotDifferentiableError",
    "NotFiniteError",
    "Objective",
    "RandomLossError",
    "StatefulLossError",
    "as_loss",
    "checked",
    "evaluate",
    "gradient",
    "name_of",
    "value_and_gradient",
    "why_no_gradient",
]

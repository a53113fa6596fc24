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
    SecondArgumentError,
    StatefulLossError,
    evaluate,
    gradient,
    value_and_gradient,
    why_no_gradient,
)
from gradlab.loss.gate import checked
from gradlab.loss.objective import Objective, bound, name_of, sees_parameters
from gradlab.loss.tabled import TabledLoss
from gradlab.loss.two_arguments import BoundLoss, ParameterLoss, with_parameters

__all__ = [
    "BatchDependentError",
    "BoundLoss",
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
    "ParameterLoss",
    "RandomLossError",
    "SecondArgumentError",
    "StatefulLossError",
    "TabledLoss",
    "as_loss",
    "bound",
    "checked",
    "evaluate",
    "gradient",
    "name_of",
    "sees_parameters",
    "value_and_gradient",
    "why_no_gradient",
    "with_parameters",
]

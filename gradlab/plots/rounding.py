"""What pictures take for zero: values that are nothing but rounding errors of float64."""

__all__ = ["ROUNDING", "SHARE_ROUNDING", "SQUARE_ROUNDING"]

ROUNDING = 1e-9
"""Values relative to the length of the true gradient below this are zero up to rounding."""

SQUARE_ROUNDING = ROUNDING**2
"""The same for squares, relative to the squared length of the true gradient."""

SHARE_ROUNDING = 1e-24
"""Squares below this share of the largest mean squared error on the same problem are zero.

Cold temperatures have the largest ones, far above the gradient, and the smallest biases.
"""

"""Squared bias against variance of one draw: one curve a family, and whose curve is the better."""

from gradlab.figures.trade_off.rows import plot, rows

__all__ = ["plot", "rows"]

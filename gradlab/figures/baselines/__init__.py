"""The variance of unbiased estimators on two toy problems, against the logit of their bits."""

from gradlab.figures.baselines.rows import plot, rows

__all__ = ["plot", "rows"]

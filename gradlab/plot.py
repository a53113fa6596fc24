"""Figures for papers, from rows: of a column's or a page's width, or on axes of your own.

Each function takes rows of a verb and returns the figure. It keeps to the settings of matplotlib
that you have made, and gives each estimator the same colour and marker in every figure.
"""

from gradlab.plots.bounds import bounds
from gradlab.plots.budget import budget
from gradlab.plots.comparison import plane
from gradlab.plots.probe import probe
from gradlab.plots.temperature import temperature
from gradlab.plots.training import training
from gradlab.plots.verdicts import verdicts

__all__ = ["bounds", "budget", "plane", "probe", "temperature", "training", "verdicts"]

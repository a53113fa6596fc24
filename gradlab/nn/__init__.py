"""Estimators inside a torch model: layers, quantization, schedules, the probe, timing."""

from gradlab.nn.layer import CategoricalLayer
from gradlab.nn.probe import GradientProbe

__all__ = ["CategoricalLayer", "GradientProbe"]

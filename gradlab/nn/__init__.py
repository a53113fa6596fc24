"""Estimators inside a torch model: layers, quantization, schedules, the probe, timing.

The probe loads on first use: a model that only has the layer does without its tables.
"""

from typing import TYPE_CHECKING, Any

import gradlab
from gradlab.nn.layer import CategoricalLayer

if TYPE_CHECKING:
    from gradlab.nn.probe import GradientProbe

__all__ = ["CategoricalLayer", "GradientProbe"]


def __getattr__(name: str) -> Any:
    if name != "GradientProbe":
        return gradlab._submodule(__name__, name)
    from gradlab.nn.probe import GradientProbe

    return GradientProbe

"""Estimators in every form in which users write them; each says whose mean it has.

A file of its own: the command line names them as FILE.py:NAME.
"""

import functools

import torch
from torch import nn

import gradlab
from gradlab.nn.layer import CategoricalLayer

__all__ = ["CODES"]


def draw(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator)


def surrogate(f, logits, generator):
    return f(gradlab.zgr(logits, generator=generator))


def sample(logits, generator=None):
    return gradlab.zgr(logits, generator=generator)


def from_the_global_generator(logits):
    return gradlab.straight_through(logits)


def by_a_rule(logits, generator, rule):
    return rule(logits, generator=generator)


class Model(nn.Module):
    """A layer with what is around it, in float32."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.layer = CategoricalLayer("ZGR")

    def forward(self, z):
        return self.layer(self.scale * z)

    def drawn(self, logits, generator):
        return gradlab.zgr(logits, generator=generator)


class Called:
    """An object that is called with logits, and is not a module."""

    def __call__(self, logits):
        return gradlab.zgr(logits)


class Mine(gradlab.ZGR):
    """A class of Estimator."""

    name = "MINE"


class Linear32(nn.Module):
    """A float32 matrix before the sample: float64 logits do not fit it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.linear.weight)
        self.layer = CategoricalLayer("ZGR")

    def forward(self, logits):
        return self.layer(self.linear(logits))


layer = CategoricalLayer("ZGR")
layer_of_st = CategoricalLayer("ST")
layer_of_darn = CategoricalLayer("DARN")
with_schedule = CategoricalLayer("GS-ST(tau=1)", schedule=lambda steps: 0.5)
with_generator = CategoricalLayer("ST-ZGR(alpha=1)", generator=torch.Generator().manual_seed(3))
sequential = nn.Sequential(CategoricalLayer("ZGR"))
model = Model()
bound = Model().drawn
called = Called()
partial = functools.partial(by_a_rule, rule=gradlab.zgr)
short = lambda logits: gradlab.zgr(logits)  # noqa: E731
estimator = Mine()
text = "ZGR"
linear32 = Linear32()

# What is named, by whose mean it has.
CODES = {
    "draw": "ZGR",
    "surrogate": "ZGR",
    "sample": "ZGR",
    "from_the_global_generator": "ST",
    "layer": "ZGR",
    "layer_of_st": "ST",
    "layer_of_darn": "DARN",
    "with_schedule": "GS-ST(tau=0.5)",
    "with_generator": "ZGR",
    "sequential": "ZGR",
    "model": "ZGR",
    "bound": "ZGR",
    "called": "ZGR",
    "partial": "ZGR",
    "short": "ZGR",
    "Mine": "ZGR",
    "estimator": "ZGR",
    "text": "ZGR",
}

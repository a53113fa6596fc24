"""All planted mutants: one small error of the package each, and the tests that must see it."""

from .answers import ANSWERS
from .formulas import FORMULAS
from .mutant import Mutant
from .pictures import PICTURES
from .several_samples import SEVERAL_SAMPLES
from .structures import STRUCTURES

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Mutant] = FORMULAS | STRUCTURES | SEVERAL_SAMPLES | ANSWERS | PICTURES

"""All planted mutants: one small error of the package each, and the tests that must see it."""

from .answers import ANSWERS
from .formulas import FORMULAS
from .mutant import Mutant
from .pictures import PICTURES
from .structures import STRUCTURES

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Mutant] = FORMULAS | STRUCTURES | ANSWERS | PICTURES

"""What a planted mutant is."""

from typing import NamedTuple

__all__ = ["Mutant"]


class Mutant(NamedTuple):
    """In `file` of the package, `old` becomes `new`; `breaks` says what is wrong then.

    `old` occurs exactly once in the file. `tests` are the arguments of pytest that must fail.
    """

    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

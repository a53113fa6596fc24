"""Every example in a docstring of the package runs and prints what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

import gradlab

pytestmark = pytest.mark.usefixtures("unchecked", "kept_processes")

PACKAGE = Path(gradlab.__file__).parent


def name_of(file: Path) -> str:
    """Return the full name of the module in `file`."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(name_of(file) for file in PACKAGE.rglob("*.py") if ">>> " in file.read_text())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.few(12)
def test_examples_of_a_module_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried > 0

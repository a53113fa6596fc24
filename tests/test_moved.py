"""Old paths of moved modules: each is the new module, and warns at the line that used it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab
from gradlab._moved import MOVED


@pytest.fixture(params=MOVED)
def old(request: pytest.FixtureRequest) -> str:
    """Return an old path, as if nothing had used it yet."""
    name = f"gradlab.{request.param}"
    package, _, module = name.rpartition(".")
    vars(importlib.import_module(package)).pop(module, None)
    sys.modules.pop(name, None)
    return name


@pytest.mark.few(31)
def test_an_old_path_is_the_new_module(old: str) -> None:
    first, *rest = [f"gradlab.{name}" for name in MOVED[old.removeprefix("gradlab.")].split()]
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {first}") as caught:
        found = importlib.import_module(old)
    assert [warning.filename for warning in caught] == [__file__]
    new = importlib.import_module(first)
    assert new.__spec__ is not None
    assert new.__spec__.name == first
    assert rest or found is new
    for name in (first, *rest):
        module = importlib.import_module(name)
        assert all(getattr(found, public) is getattr(module, public) for public in module.__all__)


def test_no_old_path_hides_a_module_that_exists() -> None:
    paths = [Path(gradlab.__file__).parent / old.replace(".", "/") for old in MOVED]
    assert [p for p in paths if p.with_suffix(".py").exists() or (p / "__init__.py").exists()] == []


STATEMENTS = [
    "import gradlab.nn; import gradlab.training.layer; gradlab.training.layer.CategoricalLayer",
    "from gradlab.ladder import verify_order",
    "import gradlab; gradlab.ladder.verify_order; gradlab.ladder",
    "import gradlab; gradlab.training.probe.GradientProbe",
    "from gradlab.training import datasets; datasets.load_images",
    "from gradlab.tables import aligned, estimator_rows",
]
# Torch is loaded once; then each statement finds the package as if nothing had used it.
EACH = """
import json, sys, warnings
import torch
def warned(statement):
    for name in [n for n in sys.modules if n.partition(".")[0] == "gradlab"]:
        del sys.modules[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(statement, "<statement>", "exec"), {})
    of_ours = [w for w in caught if str(w.message).startswith("gradlab.")]
    return [[w.category.__name__, w.filename, w.lineno] for w in of_ours]
print(json.dumps([warned(statement) for statement in json.loads(sys.argv[1])]))
"""


@pytest.mark.thorough  # test_an_old_path_is_the_new_module
def test_each_way_to_use_an_old_path_warns_once() -> None:
    command = [sys.executable, "-c", EACH, json.dumps(STATEMENTS)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    once = [["DeprecationWarning", "<statement>", 1]]
    warned = zip(STATEMENTS, json.loads(run.stdout), strict=True)
    assert [statement for statement, found in warned if found != once] == []


def test_old_paths_are_not_listed() -> None:
    assert not {"_moved", "ladder", "tables"} & set(dir(gradlab))

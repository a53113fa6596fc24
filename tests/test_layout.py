"""The shape of the code: imports point one way and are cheap, files are short and described."""

import ast
import functools
import importlib
import inspect
import itertools
import operator
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab

PACKAGE = Path(gradlab.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FAMILIES = [
    f for f in (PACKAGE / "estimators").glob("[a-z]*.py") if f.stem not in ("base", "registry")
]

# A room may import from earlier lines, and from itself; rooms of one line do not know each other.
ORDER = [
    {"version"},
    {"text", "text_forms", "checks", "files", "passes", "_moved"},
    {"samples"},
    {"categorical", "draw_sums", "parallel", "progress", "reproducible"},
    {"loss", "data"},
    {"problems", "estimators"},
    {"moments", "distributions"},
    {"exact"},
    {"user_code"},
    {"montecarlo"},
    {"comparison"},
    {"verification"},
    {"sequences", "bounds"},
    {"testing", "catalogue"},
    {"citations"},
    {"plots"},
    {"plot", "nn"},
    {"training"},
    {"sweep"},
    {"report"},
    {"figures"},
    {"cli"},
    {"__main__"},
]
LAYER = {part: i for i, parts in enumerate(ORDER) for part in parts}

# Plots read rows: of everything that is installed they may use these.
FOR_PLOTS = {"matplotlib", "numpy", "pandas", "seaborn"}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imports_of(file: Path) -> set[str]:
    """Return the full names of all that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: import by the full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(name: str) -> str | None:
    """Return the part of the package that a module belongs to, None for the package itself."""
    top, _, rest = name.partition(".")
    part = rest.partition(".")[0]
    return part if top == "gradlab" and part not in ("", "__version__") else None


def test_every_part_has_a_place_in_the_order_of_imports():
    parts = {part_of(module_name(f)) for f in FILES} - {None}
    assert parts == set(LAYER)


def test_imports_point_one_way():
    wrong = [
        f"{module_name(file)} imports {name}"
        for file in FILES
        for name in imports_of(file)
        if (own := part_of(module_name(file))) and (part := part_of(name)) and part != own
        # A name that the package itself loads has no layer.
        if LAYER.get(part, len(ORDER)) >= LAYER[own]
    ]
    assert wrong == []


def test_plots_know_rows_only():
    plots = [*(PACKAGE / "plots").glob("*.py"), *(PACKAGE / "figures").glob("*/pl*.py")]
    drawing = {module_name(file) for file in plots}
    foreign = [
        f"{module_name(file)} imports {name}"
        for file in plots
        for name in imports_of(file)
        if name.partition(".")[0] not in FOR_PLOTS | sys.stdlib_module_names
        and part_of(name) not in ("plots", "files")
        and name.rpartition(".")[0] not in drawing
    ]
    assert foreign == []


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import gradlab", "import gradlab; gradlab.__version__; dir(gradlab)"]
)
def test_importing_the_package_is_cheap(statement):
    heavy = {"torch", "numpy", "pandas", "scipy", "matplotlib", "seaborn"}
    assert not loaded_by(statement) & heavy


def test_plots_and_a_report_of_rows_do_not_load_torch(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("estimator,bias2,variance,truth2\nZGR,0.1,2,4\n")
    names = [module_name(f) for f in (PACKAGE / "plots").glob("*.py")]
    report = f"import gradlab; gradlab.report.html([{str(rows)!r}])"
    assert "torch" not in loaded_by(f"import {', '.join(names)}; {report}")


@pytest.mark.thorough  # test_docstrings.py imports every module
def test_every_module_loads_after_a_bare_import_and_changes_nothing_in_torch():
    names = sorted({module_name(f) for f in FILES} - {"gradlab", "gradlab.__main__"})
    walked = {found.name for found in pkgutil.walk_packages(gradlab.__path__, "gradlab.")}
    assert walked == {*names, "gradlab.__main__"}
    # A function of this name is public; the module is found by its full name.
    names.remove("gradlab.estimators.straight_through")
    # verify loads some modules of exact, which must not hide the others.
    code = f"""
import sys, types
import torch
def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist())
before = state()
import gradlab
gradlab.verify
for name in reversed({names}):
    assert isinstance(eval(name), types.ModuleType), name
    assert eval(name) is sys.modules[name], name
for name in gradlab.__all__:
    assert not isinstance(getattr(gradlab, name), types.ModuleType), name
assert callable(gradlab.estimators.straight_through)
assert state() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["nope", "plots.nope", "exact.nope", "_nope", "plots._nope"])
def test_a_module_that_is_not_there_is_an_attribute_error(name):
    package = f"gradlab.{name}".rpartition(".")[0]
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute"):
        operator.attrgetter(name)(gradlab)


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), ([], 2)])
def test_the_package_runs_as_a_program(arguments, status):
    command = [sys.executable, "-m", "gradlab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert "gradlab" in (done.stdout or done.stderr)


def test_public_names_load_and_are_what_their_home_calls_them():
    assert set(gradlab.__all__) <= set(dir(gradlab))
    values = {name: getattr(gradlab, name) for name in gradlab.__all__}
    named = {n: v for n, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)}
    assert {name for name, value in named.items() if value.__name__ != name} == set()


def test_every_estimator_and_drop_in_function_is_public():
    from gradlab import estimators

    classes = (estimators.ESTIMATORS | estimators.OF_STRUCTURES).values()
    assert {cls.__name__ for cls in classes} <= set(gradlab.__all__)
    functions = {n for n in estimators.__all__ if inspect.isfunction(getattr(estimators, n))}
    assert functions <= set(gradlab.__all__)


def test_type_checkers_see_the_names_that_load_on_first_use():
    tree = tree_of(PACKAGE / "__init__.py")
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("gradlab")
        and node.module not in ("gradlab", "gradlab.version")
        for alias in node.names
    }
    if "*" in imported:
        imported = imported - {"*"} | set(gradlab.estimators.__all__)
    assert imported == set(gradlab.__all__) - {"__version__"}


def test_type_checkers_see_every_file_of_estimators():
    from gradlab.estimators import registry

    files = {cls.__module__ for cls in (registry.ESTIMATORS | registry.OF_STRUCTURES).values()}
    tree = tree_of(PACKAGE / "estimators" / "__init__.py")
    starred = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    }
    assert starred == files


def test_files_are_short_and_families_of_estimators_shorter():
    lengths = {file: len(file.read_text().splitlines()) for file in FILES}
    assert {file for file, length in lengths.items() if length >= 400} == set()
    assert {file for file in FAMILIES if lengths[file] >= 200} == set()


def test_folders_are_at_most_two_deep_and_three_under_figures():
    depths = {f: len(f.relative_to(PACKAGE).parts) for f in FILES}
    assert {f for f, n in depths.items() if n > 2 + ("figures" in f.parts)} == set()


def lists_its_names(tree: ast.Module) -> bool:
    assigned = [target for n in tree.body if isinstance(n, ast.Assign) for target in n.targets]
    return "__all__" in {target.id for target in assigned if isinstance(target, ast.Name)}


def test_modules_are_described_and_list_their_public_names():
    trees = {module_name(file): tree_of(file) for file in FILES}
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []
    with_things = {
        name: tree
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    }
    assert [name for name, tree in with_things.items() if not lists_its_names(tree)] == []


@pytest.mark.parametrize("file", [f for f in FILES if f.stem == "__init__"], ids=module_name)
def test_a_door_names_what_exists_and_each_name_once(file):
    door = importlib.import_module(module_name(file))
    names = list(getattr(door, "__all__", ()))
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(door, name)] == []


def public_things(file: Path) -> list[tuple[str, object]]:
    module = importlib.import_module(module_name(file))
    named = [(n, getattr(module, n)) for n in getattr(module, "__all__", ())]
    return [(n, thing) for n, thing in named if inspect.isclass(thing) or inspect.isfunction(thing)]


def test_public_names_exist_and_are_described():
    things = list(itertools.chain.from_iterable(map(public_things, FILES)))
    # A dataclass without a docstring gets its signature.
    bare = [n for n, thing in things if not thing.__doc__ or thing.__doc__.startswith(f"{n}(")]
    assert bare == []
    methods = [
        (f"{name}.{method}", value)
        for name, thing in things
        if inspect.isclass(thing)
        for method, value in vars(thing).items()
        if not method.startswith("_") and inspect.isfunction(value)
    ]
    assert [name for name, value in methods if not value.__doc__] == []


def test_public_functions_are_annotated():
    empty = inspect.Parameter.empty
    bare = set()
    for name, thing in itertools.chain.from_iterable(map(public_things, FILES)):
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            bare |= {(name, p.name) for p in signature.parameters.values() if p.annotation is empty}
            bare |= {(name, "return")} if signature.return_annotation is empty else set()
    assert bare == set()

"""The reference: every public name of every module, one page per room of the package."""

import ast
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path

import gradlab
from _generate.docstrings import escaped
from _generate.pages import write_folder
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES

__all__ = ["public_names", "write"]

PACKAGE = Path(gradlab.__file__).parent
# What has pages of another kind: the command line, and the modules of single figures.
ELSEWHERE = ("gradlab.cli", "gradlab.figures.", "gradlab.__main__")


_INTRODUCTION = """Every public name, one page per room of the package. A name that ``gradlab``
itself has is shown with that path. The classes of estimators stand on :doc:`their cards
</estimators>`, and the :ref:`index <genindex>` lists all names. The tests run the examples."""


@dataclass(frozen=True)
class Public:
    """A public name: the module that defines it, its shortest path, and its kind for autodoc."""

    home: str
    path: str
    kind: str


def _modules() -> list[str]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in parts[1:-1] + parts[-1:]) or (
            parts[-1] == "__init__"
        ):
            found.append(name)
    return [name for name in found if not name.startswith(ELSEWHERE)]


def _assigned(module: str) -> set[str]:
    """Return the names that a module assigns at its top level."""
    source = Path(inspect.getfile(importlib.import_module(module))).read_text(encoding="utf-8")
    names: set[str] = set()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def public_names() -> list[Public]:
    """Return every public name of the package once, with its shortest path.

    Returns:
        In the order of modules and of their `__all__`.
    """
    paths: dict[tuple[str, str], list[str]] = {}
    kinds: dict[tuple[str, str], str] = {}
    for door in _modules():
        module = importlib.import_module(door)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if name == "__version__" or inspect.ismodule(thing):
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                home = thing.__module__
                exception = inspect.isclass(thing) and issubclass(thing, BaseException)
                is_class = "exception" if exception else "class"
                kind = is_class if inspect.isclass(thing) else "function"
            elif name in _assigned(door):
                home, kind = door, "data"
            else:
                continue
            paths.setdefault((home, name), []).append(f"{door}.{name}")
            kinds[home, name] = kind
    return [
        Public(home, _shortest(doors, f"{home}.{name}"), kinds[home, name])
        for (home, name), doors in paths.items()
    ]


def _shortest(paths: list[str], at_home: str) -> str:
    """Return the shortest path; of equally short ones that of the module that defines the name."""
    return min(paths, key=lambda path: (path.count("."), path != at_home))


def _directive(public: Public) -> str:
    lines = [f".. auto{public.kind}:: {public.path}"]
    if public.kind == "class":
        lines.append("   :members:")
    return "\n".join(lines)


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _room(public: Public) -> str:
    """Return the room that a name is read from: that of its path, else that of its home."""
    parts = public.path.split(".")
    return parts[1] if len(parts) > 2 else public.home.split(".")[1]


def _page(room: str, names: list[Public]) -> str:
    door = f"gradlab.{room}"
    modules = [module for module in _modules() if module.startswith(f"{door}.")]
    at_door = [
        name for name in names if name.home not in modules or name.path.rpartition(".")[0] == door
    ]
    parts = [_title(door, "="), f".. automodule:: {door}", *map(_directive, at_door)]
    for module in modules:
        parts += [_title(module.removeprefix("gradlab."), "-"), f".. automodule:: {module}"]
        inside = [name for name in names if name.home == module and name not in at_door]
        parts += map(_directive, inside)
    return "\n\n".join(parts) + "\n"


def _about(room: str) -> str:
    module = importlib.import_module(f"gradlab.{room}")
    return (inspect.getdoc(module) or "").partition("\n")[0]


def write(folder: Path) -> None:
    """Write the pages of the reference.

    Args:
        folder: The folder of pages.
    """
    rooms: dict[str, list[Public]] = {}
    cards = {cls.__name__ for cls in (ESTIMATORS | OF_STRUCTURES).values()}
    for public in public_names():
        if public.path.rpartition(".")[2] not in cards or public.kind != "class":
            rooms.setdefault(_room(public), []).append(public)
    files: dict[str, str | bytes] = {
        f"{room}.rst": _page(room, names) for room, names in rooms.items()
    }
    listed = "\n".join(f"   {room}" for room in sorted(rooms))
    lines = [f"   * - :doc:`{room}`\n     - {escaped([_about(room)])[0]}" for room in sorted(rooms)]
    table = ".. list-table::\n   :widths: 30 70\n\n" + "\n".join(lines)
    toctree = f".. toctree::\n   :hidden:\n\n{listed}"
    index = "\n\n".join((_title("API", "="), _INTRODUCTION, table, toctree)) + "\n"
    write_folder(folder, {**files, "index.rst": index})

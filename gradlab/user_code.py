"""What a user names on the command line: an object in a Python file, logits in a data file.

A fault in the file is told in one line that names it.
"""

import difflib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits

__all__ = ["load_logits", "load_object"]


def load_object(text: str) -> Any:
    """Return the object that `FILE.py:NAME` names; the file is run, its folder importable.

    Raises ValueError if the text has no such form, the file is missing or fails when run (with the
    line), or the name is not in it (with the nearest one).
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name:
        raise ValueError(f"write FILE.py:NAME, such as my.py:MyEstimator, not {text!r}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file {file}")
    # A name of its own: the file may be called like a module that it imports.
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{file} cannot be run: {_told(error, path)}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in vars(module) if n[0] != "_"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{file} defines no {name!r}{hint}")
    return getattr(module, name)


def _told(error: Exception, path: Path) -> str:
    """Return the error with its line in the file."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path:
            line = frame.lineno
    where = "" if line is None else f" (line {line})"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}{where}"


def load_logits(file: str | Path) -> Float[Tensor, "N C"]:
    """Return logits [N, C], float64, from a .npy, .pt or .csv file (no header, -inf for masked).

    Raises ValueError that names the file if it is missing, of another kind, unreadable, or holds no
    logits.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if path.suffix == ".npy":
            content = np.load(path, allow_pickle=False)
        elif path.suffix == ".pt":
            content = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix == ".csv":
            content = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            raise ValueError("logits are read from .npy, .pt or .csv")
        logits = torch.as_tensor(content).detach().to(torch.float64)
        return check_logits(logits, ndim=2)
    except Exception as error:
        told = str(error).partition("\n")[0]
        raise ValueError(f"{path} holds no logits: {told or type(error).__name__}") from error

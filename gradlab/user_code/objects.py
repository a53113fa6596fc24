"""What a user names on the command line: an object in a Python file, and logits in a data file.

An error is one line that names the file and what is wrong with it.
"""

import hashlib
import importlib.util
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits
from gradlab.checks import did_you_mean

__all__ = ["line_of", "load_logits", "load_object"]

# Bytes that a file of logits, and the logits themselves as float64, may have.
_LARGEST = 2**27


def load_object(text: str) -> Any:
    """Return the object that `FILE.py:NAME` names, after running the file.

    The file is executed as a module with a private name. While it runs, its folder is importable.
    Nothing is written beside it.

    Args:
        text: the path of a Python file, a colon, and a name that the file defines.

    Returns:
        The object of that name.

    Raises:
        ValueError: the colon, the file or the name is missing (the message suggests the
            nearest one), or the file is not valid Python or raises (the message has the type, the
            text and the line).

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "my.py"
        ...     _ = file.write_text("def loss(x): return x[..., 0].sum(-1)")
        ...     load_object(f"{file}:loss").__name__
        'loss'
    """
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise ValueError(f"{text!r} names no object; write FILE.py:NAME, such as my.py:loss")
    module = _run(Path(file))
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"{file} has no {name!r}{did_you_mean(name, public)}")
    return getattr(module, name)


def _run(file: Path) -> ModuleType:
    """Return the module that running `file` makes."""
    with _reading(file):
        source = file.read_bytes()
    try:
        code = compile(importlib.util.decode_source(source), str(file), "exec")
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        raise ValueError(f"{file} is not valid Python: {error.msg}{where}") from None
    except ValueError as error:  # not text
        raise ValueError(f"{file} is not valid Python: {error}") from None
    folder = str(file.resolve().parent)
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    module = ModuleType(f"_gradlab_user_{digest}")
    module.__file__ = str(file)
    # Dataclasses and pickles look their module up.
    sys.modules[module.__name__] = module
    sys.path.insert(0, folder)
    try:
        exec(code, vars(module))
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{file} raised {type(error).__name__}: {_one_line(error)}{line_of(error)}"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def line_of(error: BaseException) -> str:
    """Return where in your own files an error arose, such as ` (my.py, line 3)`.

    Args:
        error: The error.

    Returns:
        The place in brackets, or "" if it arose in no file of yours.

    Example:
        >>> line_of(ValueError("nowhere"))
        ''
    """
    others = (
        Path(__file__).parents[1],
        Path(sysconfig.get_path("stdlib")),
        Path(torch.__file__).parents[1],
    )
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.exists() and not any(folder in file.resolve().parents for folder in others):
            return f" ({file.name}, line {frame.lineno})"
    return ""


def load_logits(file: str | Path, *, any_shape: bool = False) -> Float[Tensor, "*shape"]:
    """Return the logits [N, C] that a .npy, .pt or .csv file holds.

    float32 stays float32, and half precision becomes float32. All other numbers become float64. No
    file can run code.

    Args:
        file: the path. A .pt file holds one tensor, a .csv file one line per variable; -inf masks a
            class.
        any_shape: whether it may hold parameters of another shape than [N, C], and NaN and +inf,
            which the distribution refuses. A .csv file of one line holds a vector.

    Returns:
        The logits [N, C], float32 or float64.

    Raises:
        ValueError: the file cannot be read, or does not hold valid logits; the message names it.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "logits.npy"
        ...     np.save(file, np.zeros((4, 3)))
        ...     load_logits(file).shape
        torch.Size([4, 3])
    """
    file = Path(file)
    read = _READERS.get(file.suffix)
    if read is None:
        raise ValueError(f"{file} is not a file of logits; known are {', '.join(_READERS)}")
    with _reading(file):
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"{file} is larger than {_LARGEST} bytes")
        file.open("rb").close()  # a file that may not be read is named so, not as a wrong format
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is an error
            table = read(file)
        if 8 * table.numel() > _LARGEST:  # a small file can hold a large view of few numbers
            raise ValueError(f"{list(table.shape)} are more than {_LARGEST // 8} numbers")
    except Exception as error:
        message = _one_line(error).partition(". ")[0]
        raise ValueError(f"{file} holds no table of numbers: {message}") from None
    single = table.dtype in (torch.float32, torch.float16, torch.bfloat16)
    table = table.to(torch.float32 if single else torch.float64)
    if any_shape:
        return table[0] if file.suffix == ".csv" and len(table) == 1 else table
    try:
        logits = check_logits(table, ndim=2)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if len(logits) == 0:
        raise ValueError(f"{file} is empty: it must hold a row of logits for each variable")
    return logits


def _npy(file: Path) -> Tensor:
    # Mapped: a header that promises more than the file holds would fill the memory.
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"its numbers are of type {array.dtype}")
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return torch.from_numpy(array.astype(np.float32 if single else np.float64))


def _pt(file: Path) -> Tensor:
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Tensor):
        raise TypeError(f"it holds a {type(loaded).__name__}; save one tensor")
    if loaded.is_complex() or loaded.dtype == torch.bool:
        raise TypeError(f"its numbers are of type {loaded.dtype}")
    return loaded.detach()


def _csv(file: Path) -> Tensor:
    return torch.from_numpy(np.loadtxt(file, delimiter=",", ndmin=2))


_READERS: dict[str, Callable[[Path], Tensor]] = {".npy": _npy, ".pt": _pt, ".csv": _csv}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn a failure to read inside the block into a ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

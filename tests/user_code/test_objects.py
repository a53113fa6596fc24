"""What users name on the command line: loaded, or refused in one line that names the fault."""

import math
import os
import pickle
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab.user_code.objects import line_of, load_logits, load_object


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(code: str, name: str = "my.py") -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(textwrap.dedent(code))


# ---- objects ----------------------------------------------------------------------------------


def test_an_object_is_loaded_from_its_file():
    write("def loss(x): return 2 * x.sum((-2, -1))")
    assert load_object("my.py:loss")(torch.ones(3, 2, 2)).tolist() == [8, 8, 8]
    assert load_object(f"{Path('my.py').resolve()}:loss").__name__ == "loss"


def test_each_load_reads_the_file_anew_and_writes_nothing():
    write("A = 1")
    assert load_object("my.py:A") == 1
    write("A = 2")
    assert load_object("my.py:A") == 2
    assert os.listdir() == ["my.py"]


def test_the_folder_is_importable_only_during_the_load():
    write("NUMBER = 7", "other/beside_the_users_file.py")
    write("from beside_the_users_file import NUMBER", "other/my.py")
    before = [*sys.path]
    assert load_object("other/my.py:NUMBER") == 7
    assert sys.path == before
    write("import beside_no_file")
    with pytest.raises(ValueError, match="raised ModuleNotFoundError"):
        load_object("my.py:x")
    assert sys.path == before


def test_dataclasses_and_pickles_find_their_module():
    write(
        """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class Mine:
            alpha: float = 0.5
        """
    )
    mine = load_object("my.py:Mine")(0.25)
    assert pickle.loads(pickle.dumps(mine)) == mine


FAULTY = {
    "my.py": ("A = 1", "'my.py' names no object; write FILE.py:NAME"),
    "my.py:": ("A = 1", "names no object"),
    ":loss": ("A = 1", "names no object"),
    "you.py:loss": ("A = 1", "there is no file you.py"),
    ".:loss": ("A = 1", "cannot read .: Is a directory"),
    "my.py:los": ("loss = 1", "my.py has no 'los'; did you mean 'loss'?"),
    "my.py:zebra": ("loss = 1", "my.py has no 'zebra'"),
    "my.py:a": ("A = 1\ndef f(:\n", r"my.py is not valid Python: .* \(line 2\)"),
    "my.py:b": (
        "A = '\0'",
        "my.py is not valid Python: source code string cannot contain null bytes",
    ),
    "my.py:c": (
        "A = 1\n1 / 0",
        r"my.py raised ZeroDivisionError: division by zero \(my.py, line",
    ),
    "my.py:d": ("import sys\nsys.exit('no')", r"my.py raised SystemExit: no \(my.py, line 2\)"),
    "my.py:e": ("raise ValueError('a\\nb')", r"my.py raised ValueError: a b \(my.py, line 1\)"),
}


@pytest.mark.parametrize("text", FAULTY)
def test_a_faulty_file_is_told_in_one_line(text):
    code, message = FAULTY[text]
    Path("my.py").write_text(code)
    with pytest.raises(ValueError, match=message) as told:
        load_object(text)
    assert "\n" not in str(told.value)


def test_bytes_that_are_no_text_are_no_python():
    Path("my.py").write_bytes(b"\x80\x81\xff")
    with pytest.raises(ValueError, match=r"my\.py is not valid Python: "):
        load_object("my.py:loss")


def test_the_line_of_the_user_is_told_also_through_torch():
    write("import torch\n\ndef loss(x):\n    return torch.linalg.vecdot(x, x[..., 1:])\n")
    with pytest.raises(RuntimeError) as told:
        load_object("my.py:loss")(torch.ones(1, 2, 3))
    assert line_of(told.value) == " (my.py, line 4)"
    assert line_of(ValueError()) == ""


# ---- logits -----------------------------------------------------------------------------------

LOGITS = [[0.1, -2.0, -math.inf], [1e-3, 3.0, 5.0]]


def save(name: str, table: object = LOGITS) -> str:
    tensor = torch.as_tensor(table, dtype=torch.float64)
    if name.endswith(".npy"):
        np.save(name, tensor.numpy())
    elif name.endswith(".pt"):
        torch.save(tensor, name)
    else:
        np.savetxt(name, tensor.numpy(), delimiter=",", fmt="%.17g")
    return name


@pytest.mark.parametrize("name", ["logits.npy", "logits.pt", "logits.csv"])
def test_logits_are_read_as_float64(name):
    logits = load_logits(save(name))
    assert logits.dtype == torch.float64
    assert logits.tolist() == LOGITS


def test_whole_numbers_become_float64_and_half_precision_float32():
    np.save("whole.npy", np.array([[1, 2]]))
    np.save("half.npy", np.array([[1, 2]], dtype=np.float16))
    torch.save(torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16)), "half.pt")
    assert load_logits("whole.npy").equal(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    assert load_logits("half.npy").equal(torch.tensor([[1.0, 2.0]], dtype=torch.float32))
    assert load_logits("half.pt").equal(torch.ones(2, 3, dtype=torch.float32))
    assert not load_logits("half.pt").requires_grad


@pytest.mark.parametrize("name", ["single.npy", "single.pt"])
def test_float32_stays_float32(name):
    single = torch.tensor([[0.1, 0.2]])
    if name.endswith(".pt"):
        torch.save(single, name)
    else:
        np.save(name, single.numpy())
    assert load_logits(name).equal(single)


def test_one_variable_in_a_csv_is_one_line():
    Path("one.csv").write_text("0.5,-inf,1\n")
    assert load_logits("one.csv").tolist() == [[0.5, -math.inf, 1.0]]


@pytest.mark.parametrize("name", ["logits.npy", "logits.pt"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1.0, 2.0], r"must have shape \[N, C\] .* not \[2\]"),
        ([[[1.0]]], r"not \[1, 1, 1\]"),
        ([[math.nan, 1.0]], "logits contain NaN"),
        ([[math.inf, 1.0]], r"logits contain \+inf"),
        ([[-math.inf, -math.inf]], "masks every class"),
        (torch.zeros(0, 3), "is empty"),
        (torch.zeros(3, 0), "C >= 1"),
    ],
)
def test_bad_logits_are_refused_by_file_and_fault(name, table, message):
    with pytest.raises(ValueError, match=rf"^{name}.*{message}"):
        load_logits(save(name, table))


def bad_file(name: str) -> None:
    """Write the faulty file called `name`."""
    if name == "pickled.npy":
        np.save(name, np.array([{}], dtype=object), allow_pickle=True)
    elif name == "huge.npy":
        with open(name, "wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
            np.lib.format.write_array_header_1_0(file, header)
    elif name == "words.npy":
        np.save(name, np.array([["a", "b"]]))
    elif name == "complex.pt":
        torch.save(torch.ones(1, 2, dtype=torch.complex64), name)
    elif name == "view.pt":
        torch.save(torch.ones(1, 1).expand(10**6, 10**6), name)
    elif name == "dict.pt":
        torch.save({"logits": torch.ones(1, 2)}, name)
    elif name == "pickled.pt":
        Path(name).write_bytes(pickle.dumps(os.getcwd))
    elif name != "missing.npy":
        Path(name).write_text(TEXTS.get(name, ""))


TEXTS = {"header.csv": "a,b\n1,2\n", "ragged.csv": "1,2\n1\n", "text.npy": "1,2", "text.pt": "1"}
BAD_FILES = {
    "missing.npy": "there is no file missing.npy",
    "logits.txt": r"logits.txt is not a file of logits; known are \.npy, \.pt, \.csv",
    "empty.npy": "empty.npy holds no table of numbers",
    "text.npy": "text.npy holds no table of numbers",
    "pickled.npy": "pickled.npy holds no table of numbers",
    "huge.npy": "huge.npy holds no table of numbers: mmap length is greater than file size",
    "words.npy": "words.npy holds no table of numbers: its numbers are of type <U1",
    "empty.pt": "empty.pt holds no table of numbers",
    "text.pt": "text.pt holds no table of numbers",
    "pickled.pt": "pickled.pt holds no table of numbers",
    "dict.pt": "dict.pt holds no table of numbers: it holds a dict; save one tensor",
    "view.pt": r"view.pt holds no table of numbers: \[1000000, 1000000\] are more than",
    "complex.pt": "complex.pt holds no table of numbers: its numbers are of type torch.complex64",
    "empty.csv": "empty.csv is empty",
    "header.csv": "header.csv holds no table of numbers: could not convert string 'a'",
    "ragged.csv": "ragged.csv holds no table of numbers: the number of columns changed",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_told_in_one_line(name):
    bad_file(name)
    with pytest.raises(ValueError, match=BAD_FILES[name]) as told:
        load_logits(name)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300

"""The notebooks run, and what is stored in them is what they give.

Fresh text is compared with stored text number by number, so that another rounding of the last
digit, or of a zero, is no difference.
"""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
STEMS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
ROUNDING = Decimal("1e-12")

# What takes longest: `make test-all` runs these too.
SLOW = {
    "01_truth_and_first_estimator",
    "02_ladder_of_exactness",
    "03_temperature",
    "04_your_own_loss_and_estimator",
    "05_is_my_gradient_right",
    "06_the_zoo",
    "07_a_vae_under_the_probe",
}

notebooks = pytest.mark.parametrize("stem", STEMS)
executed = pytest.mark.parametrize(
    "stem", [pytest.param(s, marks=pytest.mark.slow) if s in SLOW else s for s in STEMS]
)


def read(stem: str) -> Any:
    import nbformat

    return nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> tuple[str, int]:
    """Return the text that a cell shows, and its number of pictures."""
    text = [output.text for output in cell.outputs if output.get("name") == "stdout"]
    bundles = [output.data for output in cell.outputs if "data" in output]
    pictures = sum("image/png" in bundle for bundle in bundles)
    text += [bundle["text/plain"] for bundle in bundles if "image/png" not in bundle]
    return "\n".join(text), pictures


def same(text: str, other: str) -> bool:
    """Return whether words are the same, and numbers equal to one unit of the last digit."""
    return NUMBER.sub("#", text).split() == NUMBER.sub("#", other).split() and all(
        map(close, NUMBER.findall(text), NUMBER.findall(other))
    )


def close(number: str, other: str) -> bool:
    if number.lstrip("+-").isdigit():
        return number == other
    a, b = Decimal(number), Decimal(other)
    unit = Decimal(1).scaleb(min(int(n.as_tuple().exponent) for n in (a, b)))
    return max(abs(a), abs(b)) < ROUNDING or abs(a - b) <= unit


def test_notebooks_are_numbered() -> None:
    assert len(STEMS) >= 6
    numbers = [int(stem[:2]) for stem in STEMS]
    assert numbers == list(range(1, len(numbers) + 1))


@notebooks
def test_every_code_cell_is_stored_with_a_clean_output(stem: str) -> None:
    cells = code_cells(read(stem))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.id for cell in cells if not cell.outputs] == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@executed
def test_fresh_outputs_are_the_stored_ones(
    stem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nbclient import NotebookClient

    stored, fresh = read(stem), read(stem)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # else no picture is shown
    # The kernel of this environment, without a user's own kernels and startup files.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    client = NotebookClient(
        fresh,
        kernel_name="python3",
        timeout=120,
        startup_timeout=120,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    different = {}
    for old, new in zip(code_cells(stored), code_cells(fresh), strict=True):
        (before, pictures), (after, new_pictures) = shown(old), shown(new)
        if not same(before, after) or pictures != new_pictures:
            different[old.id] = f"\nstored: {before}\nfresh: {after}"
    assert different == {}


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("bias 0.1234", "bias  0.1235", True),
        ("bias 0.1234", "bias 0.1236", False),
        ("bias 0.1234", "variance 0.1234", False),
        ("rest 3.1e-17", "rest 0.0e+00", True),
        ("rest 3.1e-07", "rest 0.0e+00", False),
        ("x 1.2e+03 y", "x 1.3e+03 y", True),
        ("draws 300", "draws 301", False),
        ("2 numbers 2", "1 number", False),
    ],
)
def test_texts_are_compared_to_the_last_digit(text: str, other: str, expected: bool) -> None:
    assert same(text, other) is expected

"""The notebooks run alone, what is stored in them is what they give, and their prose agrees.

Fresh text is compared with stored text number by number, so that another rounding of the last
digit, or of a zero, is no difference.
"""

import base64
import io
import itertools
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from notebook_claims import CLAIMS

FOLDER = Path(__file__).parents[2] / "notebooks"
STEMS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
ROUNDING = Decimal("1e-12")
TOGETHER = 1_000_000  # bytes of all notebooks: a site embeds them
LONGEST = 90  # seconds of one core
RUNNING_TIME = re.compile(r"^\*Running time: about (\d+) s on one core\.\*$", re.MULTILINE)

# Numbers of prose that a claim must cover: decimals and percentages.
NAMED = re.compile(r"\d+\.\d+|\d+ ?%")
# What says nothing of a result: code, formulas, and the names of estimators.
FORMAL = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|[A-Z][\w-]*\([^()]*\)", re.DOTALL)

# Runs where a notebook has ended: the seconds that it took, and whether each claim holds.
CHECK = """
import json, time
seconds, held = time.process_time(), []
for claim in [{checks}]:
    try:
        held.append(str(bool(claim())))
    except Exception as fault:
        held.append(repr(fault))
print(json.dumps([seconds, held]))
"""

notebooks = pytest.mark.parametrize("stem", STEMS)


def read(stem: str) -> Any:
    import nbformat

    return nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> list[str]:
    """Return the markdown cells, each on one line."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [" ".join(source.split()) for source in cells]


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


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


# ---- stored -------------------------------------------------------------------------------------


def test_notebooks_are_numbered() -> None:
    numbers = [int(stem[:2]) for stem in STEMS]
    assert numbers == list(range(1, len(STEMS) + 1))


def test_notebooks_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < TOGETHER


@notebooks
def test_pictures_have_a_palette(stem: str) -> None:
    """Otherwise: make notebooks, or notebooks/smaller.py alone."""
    from PIL import Image

    outputs = [output for cell in code_cells(read(stem)) for output in cell.outputs]
    stored = [
        output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    modes = {Image.open(io.BytesIO(base64.b64decode(png))).mode for png in stored}
    assert modes == {"P"}


@notebooks
def test_every_code_cell_is_stored_with_a_clean_output(stem: str) -> None:
    cells = code_cells(read(stem))
    outputs = [output for cell in cells for output in cell.outputs]
    silent = [cell.id for cell in cells if not cell.outputs]
    assert silent == [cell.id for cell in cells if "install" in tags(cell)]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@notebooks
def test_a_notebook_has_one_title_and_the_sections_of_a_lesson(stem: str) -> None:
    cells = [cell.source for cell in read(stem).cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^(#+) (.*)$", "\n\n".join(cells), re.MULTILINE)
    assert [text for level, text in headings if level == "#"] == [headings[0][1]]
    assert headings[0][1].startswith(stem[:2])
    deep = [len(level) for level, _ in headings]
    assert all(after <= before + 1 for before, after in itertools.pairwise(deep))
    sections = [text for level, text in headings if level == "##"]
    assert sections[-3:] == ["Exercises", "What you can do now", "Answers"]


@notebooks
def test_every_exercise_has_an_answer_that_runs(stem: str) -> None:
    cells = read(stem).cells
    (asked,) = [cell.source for cell in cells if cell.source.startswith("## Exercises")]
    questions = re.findall(r"^(\d)\. ", asked, re.MULTILINE)
    after = cells[[cell.id for cell in cells].index("answers") :]
    answered = [
        found[1]
        for cell in after
        if cell.cell_type == "markdown" and (found := re.search(r"\*\*(\d)\.\*\*", cell.source))
    ]
    code = [cell for cell in after if cell.cell_type == "code"]
    assert questions == answered
    assert len(questions) == len(code) >= 2
    assert all("hide-cell" in tags(cell) for cell in code)
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in code)


@notebooks
def test_prose_names_no_file_or_address_beside_the_notebook(stem: str) -> None:
    """So that a notebook is whole wherever it lies."""
    cells = [cell.source for cell in read(stem).cells if cell.cell_type == "markdown"]
    assert re.findall(r"\]\((?!https://)[^)]*\)", "\n".join(cells)) == []


# ---- the first cell -----------------------------------------------------------------------------


def install_cell(stem: str) -> str:
    (first, *_) = code_cells(read(stem))
    assert tags(first) == ["install"]
    return first.source


def test_all_notebooks_begin_with_the_same_cell() -> None:
    assert len({install_cell(stem) for stem in STEMS}) == 1


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the first cell, here or where gradlab is missing."""
    from IPython.core.inputtransformer2 import TransformerManager

    code = TransformerManager().transform_cell(install_cell(STEMS[0]))
    lines: list[str] = []

    class Shell:
        def run_line_magic(self, name: str, line: str, *_: Any) -> None:
            lines.append(f"{name} {line}")

    def run(source: str, *, there: bool) -> list[str]:
        found = object() if there else None
        monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
        assert 'SOURCE = ""' in code
        exec(code.replace('SOURCE = ""', f'SOURCE = "{source}"'), {"get_ipython": Shell})
        return lines

    return run


def test_the_first_cell_does_nothing_where_gradlab_is_there(install) -> None:
    assert install("", there=True) == []


def test_the_first_cell_installs_from_the_source_that_is_named(install) -> None:
    assert install("folder/gradlab", there=False) == ['pip install --quiet "{SOURCE}"']


def test_the_first_cell_asks_for_the_source(install) -> None:
    with pytest.raises(AssertionError, match="set SOURCE to the folder, wheel or URL of gradlab"):
        install("", there=False)


# ---- claims -------------------------------------------------------------------------------------


@notebooks
def test_claims_stand_in_the_prose(stem: str) -> None:
    text = " ".join(prose(read(stem)))
    assert [sentence for sentence, _ in CLAIMS[stem] if sentence not in text] == []


@notebooks
def test_every_number_of_prose_is_claimed(stem: str) -> None:
    unclaimed = []
    for text in prose(read(stem)):
        for sentence, _ in CLAIMS[stem]:
            text = text.replace(sentence, "")
        unclaimed += NAMED.findall(FORMAL.sub("", text))
    assert unclaimed == []


@pytest.mark.slow  # seconds to a minute each
@notebooks
def test_a_notebook_runs_alone_and_gives_what_is_stored_and_said(
    stem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import nbformat
    from nbclient import NotebookClient

    stored, fresh = read(stem), read(stem)
    checks = ", ".join(f"lambda: {expression}" for _, expression in CLAIMS[stem])
    fresh.cells.append(nbformat.v4.new_code_cell(CHECK.format(checks=checks)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # else no picture is shown
    # The kernel of this environment, without a user's own kernels and startup files.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    client = NotebookClient(
        fresh,
        kernel_name="python3",
        timeout=300,
        startup_timeout=120,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(empty)}},
    )
    client.execute()
    assert list(empty.iterdir()) == []

    seconds, held = json.loads(fresh.cells.pop().outputs[0].text)
    claims = zip(CLAIMS[stem], held, strict=True)
    assert {sentence: found for (sentence, _), found in claims if found != "True"} == {}

    different = {}
    for old, new in zip(code_cells(stored), code_cells(fresh), strict=True):
        (before, pictures), (after, new_pictures) = shown(old), shown(new)
        if not same(before, after) or pictures != new_pictures:
            different[old.id] = f"\nstored: {before}\nfresh: {after}"
    assert different == {}

    stated = int(RUNNING_TIME.findall(stored.cells[0].source)[0])
    assert stated <= LONGEST
    assert stated / 3 < seconds < 3 * stated


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

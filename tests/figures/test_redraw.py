"""Every figure is drawn again from its committed rows, in a process that never imports torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.figures import FIGURES, draw, views

ROOT = Path(__file__).parents[2]
REDRAW = """
import json, sys
import pandas as pd
from gradlab.figures import FIGURES, function, views
from gradlab.plots.style import styled
drawn = {}
for name in [*FIGURES, "atlas"]:
    rows = pd.read_csv(f"figures/{name}.csv", low_memory=False)
    with styled():
        drawn[name] = len(function(name, "plot")(rows).axes)
        for added, view in views(name).items():
            drawn[f"{name}-{added}"] = len(view(rows).axes)
print(json.dumps({"drawn": drawn, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def redrawn() -> dict:
    """Return how many panels each figure has, and whether torch was imported to draw them."""
    command = [sys.executable, "-c", REDRAW]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout)


def test_drawing_again_imports_no_torch(redrawn) -> None:
    assert not redrawn["torch"]


@pytest.mark.parametrize("name", [*FIGURES, "atlas"])
def test_every_figure_is_drawn_from_its_committed_rows(redrawn, name: str) -> None:
    pictures = [name, *(f"{name}-{added}" for added in views(name))]
    assert [redrawn["drawn"][picture] > 0 for picture in pictures] == [True] * len(pictures)
    for picture in pictures:
        assert (ROOT / "figures" / f"{picture}.png").exists()


def test_drawing_again_leaves_the_rows_as_they_are(tmp_path) -> None:
    # Its whole numbers stand in columns that are partly empty.
    text = (ROOT / "figures" / "verdicts.csv").read_bytes()
    (tmp_path / "verdicts.csv").write_bytes(text)
    (done,) = draw(["verdicts"], tmp_path, redraw=True, workers=1)
    assert done.error is None
    assert (tmp_path / "verdicts.csv").read_bytes() == text
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["verdicts.csv", "verdicts.pdf", "verdicts.png"]

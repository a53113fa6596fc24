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
more = sys.argv[1:] == ["views"]
from gradlab.figures import FIGURES, function, views
from gradlab.plots.style import styled
drawn = {}
for name in [*FIGURES, "atlas"]:
    rows = pd.read_csv(f"figures/{name}.csv", low_memory=False)
    with styled():
        if more:
            for added, view in views(name).items():
                drawn[f"{name}-{added}"] = len(view(rows).axes)
        else:
            drawn[name] = len(function(name, "plot")(rows).axes)
print(json.dumps({"drawn": drawn, "torch": "torch" in sys.modules}))
"""


VIEWS = [f"{name}-{added}" for name in FIGURES for added in views(name)]


def redrawn(*what: str) -> dict[str, int]:
    """Return how many panels each picture has that is drawn in a process without torch."""
    command = [sys.executable, "-c", REDRAW, *what]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    assert not found["torch"]
    return found["drawn"]


def test_every_figure_is_drawn_from_its_committed_rows_without_torch() -> None:
    found = redrawn()
    assert [name for name, panels in found.items() if not panels] == []
    assert set(found) == {*FIGURES, "atlas"}


@pytest.mark.thorough  # as long as all figures; the tests of a figure draw its other views
def test_every_other_view_is_drawn_from_the_committed_rows_without_torch() -> None:
    found = redrawn("views")
    assert [name for name, panels in found.items() if not panels] == []
    assert set(found) == set(VIEWS)


@pytest.mark.parametrize("name", [*FIGURES, "atlas", *VIEWS])
def test_every_picture_is_committed(name: str) -> None:
    assert (ROOT / "figures" / f"{name}.png").exists()


@pytest.mark.thorough  # test_redraw_computes_nothing
def test_drawing_again_leaves_the_rows_as_they_are(tmp_path) -> None:
    # Its whole numbers stand in columns that are partly empty.
    text = (ROOT / "figures" / "verdicts.csv").read_bytes()
    (tmp_path / "verdicts.csv").write_bytes(text)
    (done,) = draw(["verdicts"], tmp_path, redraw=True, workers=1)
    assert done.error is None
    assert (tmp_path / "verdicts.csv").read_bytes() == text
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["verdicts.csv", "verdicts.pdf", "verdicts.png"]

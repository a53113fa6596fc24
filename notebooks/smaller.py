"""Store the pictures of all notebooks with a palette of 256 colours, a third of the bytes.

`make notebooks` runs this after the notebooks. A picture that has a palette stays as it is.
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

COLOURS = 256


def smaller(png: str) -> str:
    """Return a PNG with a palette, both in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    written = io.BytesIO()
    # This method keeps rare colours, such as those of markers.
    palette = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    palette.save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii") + "\n"


for path in sorted(Path(__file__).parent.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    nbformat.write(notebook, path)

"""The gallery: committed figures as pictures that lead to the full ones, with their rows."""

import ast
import shutil
from io import BytesIO
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import gradlab.figures
from _generate.pages import write_folder

__all__ = ["CommittedFigure", "about_figure", "figure_names", "other_pictures", "setup", "write"]

WIDTHS = {"": 900, "-small": 420}
"""Widths in pixels of the pictures of a section and of the cards on top."""


def figure_names(folder: Path) -> list[str]:
    """Return the names of the committed figures.

    Args:
        folder: The folder of figures.

    Returns:
        The names of the files of rows, sorted. Other pictures are drawn from one of these.
    """
    return sorted(file.stem for file in folder.glob("*.csv"))


def other_pictures(folder: Path, name: str) -> list[str]:
    """Return the names of further pictures that are drawn from the rows of a figure.

    Args:
        folder: The folder of figures.
        name: The figure, such as `zoo`.

    Returns:
        Such as `zoo-plane`, sorted.
    """
    drawn = {file.stem for file in folder.glob(f"{name}-*.png")}
    return sorted(drawn - set(figure_names(folder)))


def about_figure(name: str) -> str:
    """Return the first line of the module that draws a figure, or nothing if it has no module.

    Args:
        name: Such as `temperature`.

    Returns:
        One sentence, or an empty text.
    """
    if name in gradlab.figures.FIGURES:
        return gradlab.figures.about(name)
    base = Path(gradlab.figures.__file__).parent / name.replace("-", "_")
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.exists():
            doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            return doc.partition("\n")[0]
    return ""


class CommittedFigure(SphinxDirective):
    """A committed figure: its picture, its rows and its command, which may be the content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture and what belongs to it."""
        (name,) = self.arguments
        commands = "\n".join(self.content) or f"gradlab figures {name}"
        alt = about_figure(name) or f"The figure {name}"
        picture = nodes.image(uri=f"/pictures/{name}.png", alt=alt, classes=["committed-figure"])
        linked = nodes.reference("", "", picture, refuri=f"figures/{name}.png")
        files = nodes.paragraph(classes=["figure-files"])
        for kind in ("png", "pdf", "csv"):
            words = "rows (CSV)" if kind == "csv" else kind.upper()
            link = nodes.reference("", words, refuri=f"figures/{name}.{kind}", internal=False)
            files += [link, nodes.Text("  ")]
        for other in other_pictures(Path(self.env.srcdir).parent / "figures", name):
            link = nodes.reference("", other, refuri=f"figures/{other}.png", internal=False)
            files += [link, nodes.Text("  ")]
        about = nodes.paragraph("", about_figure(name)) if about_figure(name) else None
        code = nodes.literal_block(commands, commands, language="sh")
        return [node for node in (about, nodes.paragraph("", "", linked), files, code) if node]


class Thumbnails(SphinxDirective):
    """All committed figures as small cards that lead to their sections."""

    def run(self) -> list[nodes.Node]:
        """Return a grid of cards."""
        cards = [
            f':::{{grid-item-card}} {name}\n:link: "#{name}"\n:link-type: url\n'
            f":img-top: /pictures/{name}-small.png\n:img-alt: {name}\n:::"
            for name in figure_names(Path(self.env.srcdir).parent / "figures")
        ]
        text = "::::{grid} 2 2 3 4\n:gutter: 2\n:class-container: thumbnails\n\n"
        return self.parse_text_to_nodes(text + "\n\n".join(cards) + "\n::::")


def write(figures: Path, folder: Path) -> None:
    """Write small pictures of the committed figures.

    Args:
        figures: The folder of figures.
        folder: The folder of small pictures, which git ignores.
    """
    files: dict[str, str | bytes] = {}
    for name in figure_names(figures):
        source = figures / f"{name}.png"
        for suffix, width in WIDTHS.items():
            old = folder / f"{name}{suffix}.png"
            if old.exists() and old.stat().st_mtime > source.stat().st_mtime:
                files[old.name] = old.read_bytes()
            else:
                files[old.name] = _scaled(source, width, crop=bool(suffix))
    write_folder(folder, files)


def _scaled(file: Path, width: int, *, crop: bool) -> bytes:
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
        if crop:  # cards are of one shape
            picture = picture.crop(
                (0, 0, picture.width, min(picture.height, picture.width * 2 // 3))
            )
        height = round(picture.height * width / picture.width)
        if width < picture.width:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    out = BytesIO()
    picture.save(out, "PNG", optimize=False)
    return out.getvalue()


def _copy_files(app: Sphinx, error: Exception | None) -> None:
    """Put the full pictures and the rows beside the gallery."""
    if error is None and app.builder.format == "html":
        figures = Path(app.srcdir).parent / "figures"
        shutil.copytree(figures, Path(app.outdir) / "figures", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("committed-figure", CommittedFigure)
    app.add_directive("figure-thumbnails", Thumbnails)
    app.connect("build-finished", _copy_files)

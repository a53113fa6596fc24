"""The site: every page and public name has its place, and after a build every link leads there."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from sphinx.util.inventory import InventoryFile

import gradlab
from _generate.api import public_names
from _generate.directives import help_texts
from _generate.docstrings import escaped
from _generate.gallery import about_figure, figure_names, other_pictures
from _generate.inventories import inventories
from _generate.links import on_site
from _generate.pages import write_folder
from gradlab.cli import app
from gradlab.figures import FIGURES, about
from test_docstrings import DOORS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("_build", "api", "estimators", "notebooks", "pictures")
PAGES = [
    path.as_posix().removesuffix(".md")
    for file in sorted(DOCS.rglob("*.md"))
    if (path := file.relative_to(DOCS)).parts[0] not in GENERATED
]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index"])
def test_every_page_stands_in_the_table_of_contents(page: str) -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = re.findall(r"^[\w/*-]+$", index, re.M)
    assert any(Path(page).match(entry) for entry in entries)


def test_git_ignores_the_generated_folders() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"docs/{folder}/" for folder in GENERATED} <= set(ignored)


@pytest.mark.thorough  # the test below counts them once
def test_every_public_name_is_in_the_reference() -> None:
    shown = {public.path for public in public_names()}
    of_package = {f"gradlab.{name}" for name in gradlab.__all__}
    # Data stand where they are assigned, with what is written below them.
    assert of_package - shown == {
        "gradlab.__version__",
        "gradlab.ESTIMATORS",
        "gradlab.OF_STRUCTURES",
    }
    assert "gradlab.estimators.registry.ESTIMATORS" in shown
    names = {path.rpartition(".")[2] for path in shown}
    for door in DOORS:
        assert set(__import__(door, fromlist=["__all__"]).__all__) - {"__version__"} <= names


def test_every_public_name_is_in_the_reference_once() -> None:
    paths = [public.path for public in public_names()]
    assert len(paths) == len(set(paths))


def test_every_command_shows_its_help() -> None:
    found = dict(help_texts())
    commands = typer.main.get_command(app).commands
    assert {words[0] for words in found} == set(commands)
    assert ("sweep", "run") in found
    for words, text in found.items():
        assert text.startswith(f"Usage: gradlab {' '.join(words)}")


@pytest.mark.parametrize("name", FIGURES)
def test_the_gallery_says_of_a_figure_what_the_list_says(name: str) -> None:
    assert about_figure(name) == about(name)


def test_every_committed_picture_is_in_the_gallery() -> None:
    figures = ROOT / "figures"
    names = figure_names(figures)
    others = [other for name in names for other in other_pictures(figures, name)]
    assert {file.stem for file in figures.glob("*.png")} == {*names, *others}
    assert len(others) == len(set(others))


@pytest.mark.parametrize(
    ("plain", "markup"),
    [
        ("The root of |g|^2 / C * C.", r"The root of \|g\|^2 / C \* C."),
        ("As `|x|` has it, *after* x_ is made.", r"As `|x|` has it, *after* x\_ is made."),
        ("    logits: |g| of each.", r"    logits: \|g\| of each."),
        ("- |a| and *args", r"- \|a\| and \*args"),
        (".. math:: |g|_2 * 3", ".. math:: |g|_2 * 3"),
        (">>> x * y", ">>> x * y"),
    ],
)
def test_plain_text_of_docstrings_is_no_markup(plain: str, markup: str) -> None:
    assert escaped([plain]) == [markup]


def test_a_table_of_a_docstring_becomes_one() -> None:
    lines = escaped(["| a | b |", "|---|---|", "| 1 | |x| |", "", "after |y|"])
    assert lines[:5] == [".. list-table::", "   :header-rows: 1", "", "   * - a", "     - b"]
    assert lines[-1] == r"after \|y\|"


def test_inventories_are_read_by_sphinx(tmp_path: Path) -> None:
    mapping = inventories(DOCS / "inventories", tmp_path)
    assert {"python", "torch", "pandas", "numpy", "matplotlib"} == set(mapping)
    address, file = mapping["torch"]
    with Path(file).open("rb") as opened:
        found = InventoryFile.load(opened, address, lambda base, page: f"{base}/{page}")
    assert "py:class" in found
    item = found["py:class"]["torch.Tensor"]
    assert item.uri == "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"


def test_a_generated_folder_holds_what_it_is_given_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    write_folder(folder, {"a.md": "a", "b.svg": b"b"})
    before = (folder / "a.md").stat().st_mtime_ns
    write_folder(folder, {"a.md": "a"})
    assert [file.name for file in folder.iterdir()] == ["a.md"]
    assert (folder / "a.md").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("page", "link", "led"),
    [
        ("a", "../notebooks/03_temperature.ipynb", "notebooks/03_temperature.ipynb"),
        ("how-to/a", "../../notebooks/03_temperature.ipynb", "../notebooks/03_temperature.ipynb"),
        ("how-to/a", "../../CONTRIBUTING.md", "../contributing.md"),
        ("how-to/a", "../rows.md", "../rows.md"),
        ("a", "../figures/atlas.png", "../figures/atlas.png"),
        ("a", "../gradlab/data/DIGITS.md", "../gradlab/data/DIGITS.md"),
    ],
)
def test_links_to_files_lead_to_their_pages(page: str, link: str, led: str) -> None:
    assert on_site(f"[x]({link}#y) ({link})", page, DOCS) == f"[x]({led}#y) ({link})"


class Links(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.append(value)
            elif key in ("id", "name") and value:
                self.anchors.add(value)


def broken(folder: Path) -> list[str]:
    """Return the links inside a built site that lead nowhere, each with its page."""
    pages = {file: Links(file.read_text(encoding="utf-8")) for file in folder.rglob("*.html")}
    found = []
    for page, parsed in pages.items():
        for link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = pages[target].anchors if target in pages else None
            if not target.exists() or (anchors and unquote(parts.fragment) not in anchors):
                found.append(f"{page.relative_to(folder)}: {link}")
    return found


def test_a_link_that_leads_nowhere_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a id="x" href="a.html#x"></a><a href="a.html#y"></a>')
    (tmp_path / "b.html").write_text('<img src="c.png"><a href="a.html#x"></a>')
    assert sorted(broken(tmp_path)) == ["a.html: a.html#y", "b.html: c.png"]


@pytest.mark.slow  # builds all pages; `make docs` does so too, in .ci/run
def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    from sphinx.cmd.build import main

    arguments = ["-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path / "html")]
    assert main(arguments) == 0
    assert broken(tmp_path / "html") == []
    assert not re.search(
        r'(src|href)="https?://[^"]*\.(js|css|woff2?)"',
        (tmp_path / "html" / "index.html").read_text(encoding="utf-8"),
    )

"""Directives of the hand-written pages: what they show comes from the project's own files."""

import ast
import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from _generate.cards import about, slug
from benchmarks.ratios import time_text
from gradlab.cli import app, main
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES
from gradlab.estimators.base import FAMILIES
from gradlab.version import __version__

__all__ = ["benchmark_table", "help_texts", "measured_on", "setup"]


class PageCards(SphinxDirective):
    """Cards that lead to pages: one line for each, its name and a sentence."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a grid of cards, each with the title of its page."""
        cards = []
        for line in self.content:
            page, _, sentence = line.partition(": ")
            head = f":::{{grid-item-card}} {_title(Path(self.env.srcdir), page)}"
            cards.append(f"{head}\n:link: {page}\n:link-type: doc\n\n{sentence}\n:::")
        text = "::::{grid} 1 2 3 3\n:gutter: 3\n\n" + "\n\n".join(cards) + "\n::::"
        return self.parse_text_to_nodes(text)


class EstimatorCards(SphinxDirective):
    """All estimators by family, each with its first sentence and a link to its card."""

    def run(self) -> list[nodes.Node]:
        """Return one grid per family, and the table of contents of the cards."""
        blocks = []
        every = ESTIMATORS | OF_STRUCTURES
        for family in FAMILIES:
            of_family = [cls for cls in every.values() if cls.family == family]
            cards = [
                f":::{{grid-item-card}} {cls.name}\n:link: estimators/{slug(cls.name)}\n"
                f":link-type: doc\n\n{_plain(about(cls))}\n:::"
                for cls in of_family
            ]
            grid = "::::{grid} 1 2 2 3\n:gutter: 2\n\n" + "\n\n".join(cards) + "\n::::"
            blocks.append(f":::{{rubric}} {family.capitalize()}\n:::\n\n{grid}")
        listed = "\n".join(f"estimators/{slug(name)}" for name in every)
        blocks.append(f"```{{toctree}}\n:hidden:\n\n{listed}\n```")
        return self.parse_text_to_nodes("\n\n".join(blocks))


class CommandHelp(SphinxDirective):
    """The `--help` of every command, each in its own section."""

    def run(self) -> list[nodes.Node]:
        """Return one section per command, in the order of the command line."""
        found: list[nodes.Node] = []
        for words, text in help_texts():
            name = " ".join(("gradlab", *words))
            section = nodes.section(ids=[nodes.make_id(f"help {name}")])
            section += nodes.title("", "", nodes.literal("", name))
            section += nodes.literal_block(text, text, language="text")
            found.append(section)
        return found


def help_texts() -> list[tuple[tuple[str, ...], str]]:
    """Return the words of every command after `gradlab`, with its help.

    Returns:
        A group, such as `sweep`, stands before its commands.
    """
    found = []
    for words in _commands(get_command(app), ()):
        shown = io.StringIO()
        with redirect_stdout(shown):
            main([*words, "--help"])
        found.append((words, shown.getvalue().strip()))
    return found


def _commands(command: Any, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = [words] if words else []
    for name, below in getattr(command, "commands", {}).items():
        found += _commands(below, (*words, name))
    return found


class Citation(SphinxDirective):
    """The BibTeX entry of gradlab, from CITATION.cff and its version."""

    def run(self) -> list[nodes.Node]:
        """Return the entry."""
        file = Path(self.env.srcdir).parent / "CITATION.cff"
        citation = yaml.safe_load(file.read_text(encoding="utf-8"))
        authors = " and ".join(f"{{{author['name']}}}" for author in citation["authors"])
        fields = {
            "title": f"{{{citation['title']}}}",
            "author": authors,
            "version": __version__,
            "license": citation["license"],
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        entry = "\n".join(["@software{gradlab,", *lines, "}"])
        return [nodes.literal_block(entry, entry, language="bibtex")]


class BenchmarkParts(SphinxDirective):
    """What `make bench` measured: the committed rows, one table for each module in benchmarks/."""

    def run(self) -> list[nodes.Node]:
        """Return where the rows were measured and their tables, in the order of the file."""
        folder = Path(self.env.srcdir).parent / "benchmarks"
        rows = pd.read_csv(folder / "results.csv", keep_default_na=False, dtype=str)
        self.env.note_dependency(str(folder / "results.csv"))
        lines = []
        for name, part in rows.groupby("part", sort=False):
            source = (folder / f"{name}.py").read_text(encoding="utf-8")
            doc = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
            lines += [f"**{_plain(doc.rstrip('.'))}** (`benchmarks/{name}.py`)", ""]
            lines += [*benchmark_table(part), "", f"*{_plain(measured_on(part))}*", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def benchmark_table(part: pd.DataFrame) -> list[str]:
    """Return the lines of the table of one part.

    Args:
        part: Its rows, all cells as texts.

    Returns:
        The table in Markdown, with the two times where rows have them.
    """
    both = bool((part["ours"] != "").any())
    times = ["theirs", "gradlab"] if both else []
    lines = ["| " + " | ".join(["what", *times, "measured", "target", ""]) + " |"]
    lines.append("|---|" + "---:|" * (len(times) + 1) + "---|---|")
    for row in part.to_dict("records"):
        met = {"True": "ok", "False": "missed"}.get(row["met"], "")
        cells = [row["what"]]
        if both:
            cells += [time_text(float(row[key])) if row[key] else "" for key in ("theirs", "ours")]
        cells += [f"{row['value']} {row['unit']}" if row["value"] else "", row["target"]]
        cells.append("; ".join(filter(None, (met, row["note"]))))
        lines.append("| " + " | ".join(map(_plain, cells)) + " |")
    return lines


def measured_on(part: pd.DataFrame) -> str:
    """Return where and when the rows of a part were measured.

    Args:
        part: Its rows, all cells as texts.

    Returns:
        A sentence without a full stop.
    """
    last = part.iloc[-1]
    loads = part["load"][part["load"] != ""].astype(float)
    load = f", load {loads.min():g} to {loads.max():g}" if len(loads) else ""
    few = ", few repeats" if (part["run"] == "quick").any() else ""
    return (
        f"Measured on {last['date']}: {last['machine']}, {last['cores']} cores{load}, torch "
        f"{last['torch']}{few}"
    )


def _plain(text: str) -> str:
    """Return a sentence with the signs escaped that Markdown reads."""
    return re.sub(r"([*_|$`])", r"\\\1", text)


def _link_names(sphinx: Sphinx, docname: str, source: list[str]) -> None:
    """Link the names in the table of estimators to their cards."""
    if docname == "estimators":
        for name in ESTIMATORS | OF_STRUCTURES:
            linked = f"| [{name}](estimators/{slug(name)}.rst) |"
            source[0] = source[0].replace(f"\n| {name} |", f"\n{linked}")


def _title(docs: Path, page: str) -> str:
    """Return the first heading of a page."""
    for file in (docs / f"{page}.md", docs / f"{page}.rst"):
        if file.exists():
            text = file.read_text(encoding="utf-8")
            found = re.search(r"^# (.*)$|^(.+)\n={3,}$", text, re.M)
            return (found[1] or found[2]) if found else page
    raise FileNotFoundError(f"docs/{page}.md does not exist")


def setup(sphinx: Sphinx) -> None:
    """Register the directives."""
    sphinx.add_directive("estimator-cards", EstimatorCards)
    sphinx.connect("source-read", _link_names)
    sphinx.add_directive("command-help", CommandHelp)
    sphinx.add_directive("citation", Citation)
    sphinx.add_directive("benchmark-parts", BenchmarkParts)
    sphinx.add_directive("page-cards", PageCards)

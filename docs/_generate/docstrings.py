r"""Docstrings as Sphinx reads them: what plain text writes as |g|, C * C or x_ is not markup.

A name in single backticks links to its page where there is one, and is code where there is none.
"""

import inspect
import re
import sys

from docutils import nodes
from numpy.typing import ArrayLike
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util.typing import stringify_annotation

import gradlab
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES

__all__ = ["SECTION", "escaped", "setup"]

_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")
SECTION = re.compile(r"^(Args|Raises|Example):$", re.M)
"""Where the prose of an estimator's docstring ends."""

_PLAIN = ("data", "attribute", "property")
_COLON = "\ue000"  # stands for a colon that napoleon shall not read
_EMPHASIS = re.compile(r"(?<![\w*])\*(\w[^*]*?)\*(?![\w*])")


def escaped(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with signs escaped that reStructuredText would read.

    Args:
        lines: A docstring without indentation.

    Returns:
        As many lines. Displayed formulas, literal blocks and examples are as they were.
    """
    lines = _tables(lines)
    out: list[str] = []
    block: int | None = None  # the indent of the directive or literal block that a line is in
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and line.lstrip().startswith((">>> ", ".. ")):
            block = indent - (line.lstrip().startswith(">>> "))
        out.append(line if block is not None else _escaped_line(line))
        if block is None and line.rstrip().endswith("::"):
            block = indent
    return out


def _tables(lines: list[str]) -> list[str]:
    """Return the lines with tables of Markdown as tables of reStructuredText."""
    out: list[str] = []
    for line in lines:
        if not re.fullmatch(r"\|.*\|", line):
            out.append(line)
        elif not re.fullmatch(r"[|:-]+", line):
            if not out or not out[-1].startswith(" "):
                out += [".. list-table::", "   :header-rows: 1", ""]
            for number, cell in enumerate(line.strip("|").split("|")):
                out.append(f"   {'  - ' if number else '* - '}{_escaped_line(cell.strip())}")
    return out


def _escaped_line(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(p if p.startswith("`") else _escaped_text(p) for p in parts)


def _escaped_text(text: str) -> str:
    head = re.match(r"\s*\*{0,2}\w*(?=:)|\s*[-*] |", text)  # an argument's name, an item
    start = head.end() if head else 0
    rest = _EMPHASIS.sub("\0\\1\0", text[start:])
    rest = re.sub(r"([|*])", r"\\\1", rest).replace("\0", "*")
    return text[:start] + re.sub(r"(?<=\w)_(?!\w)", r"\\_", rest)


def _process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    if what in _PLAIN and getattr(obj, "__doc__", None) == type(obj).__doc__ and what == "data":
        lines.clear()  # the docstring of dict, say, and not of this one
    if obj in (ESTIMATORS | OF_STRUCTURES).values():  # the prose stands at the top of the card
        prose = next((n for n, line in enumerate(lines) if SECTION.match(line)), len(lines))
        del lines[:prose]
    lines[:] = escaped(lines)
    if what in _PLAIN:  # "The sites: where ..." does not declare a type
        end = lines.index("") if "" in lines else len(lines)
        lines[:end] = [line.replace(": ", f"{_COLON} ") for line in lines[:end]]


def _restore(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _qualified(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Name classes of annotations by their full names, where a string names them."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if not signature or module is None:
        return None

    source = inspect.getsource(module)

    def full(match: re.Match[str]) -> str:
        home = getattr(vars(module).get(match[2]), "__module__", "")
        if not home:  # a name that only a checker of types imports
            imported = re.search(rf"from (gradlab[\w.]*) import [^\n]*\b{match[2]}\b", source)
            home = imported[1] if imported else ""
        return f"{match[1]}~{home}.{match[2]}" if home.startswith("gradlab") else match[0]

    signature, returns = (
        text.replace(_ARRAY_LIKE, "ArrayLike") for text in (signature, returns or "")
    )
    bare = re.compile(r"(^|: |-> |\[|, |\| )([A-Z]\w+)(?![\w.=('])")
    return bare.sub(full, signature), bare.sub(full, returns)


def _skipped(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leave out members that another library puts into a class, such as `set` of an Artist."""
    home = getattr(obj, "__module__", None)
    return True if home and not home.startswith("gradlab") else None


class _Gentle(XRefRole):
    """A name in single backticks: a link where the name has a page."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: nodes.Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        refnode["refdomain"], refnode["reftype"], refnode["gentle"] = "py", "obj", True
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        return title, target.removesuffix("()")


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve a name by its end, where one page only has it; leave a gentle name as code.

    A gentle name that begins with `gradlab.` must lead somewhere, as every other reference.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not re.fullmatch(r"[\w.]+", target):
        return contnode if node.get("gentle") else None
    objects = env.domains.python_domain.objects
    # A plain word, such as `reason`, is the name of a column or an argument more often than not.
    ends = [] if _is_plain_word(target) else [n for n in objects if n.endswith(f".{target}")]
    pages = {(objects[name].docname, objects[name].node_id) for name in ends}
    if len(pages) == 1:
        docname, anchor = pages.pop()
        uri = app.builder.get_relative_uri(node["refdoc"], docname)
        return nodes.reference("", "", contnode, internal=True, refuri=f"{uri}#{anchor}")
    return contnode if node.get("gentle") and not target.startswith("gradlab.") else None


def _is_plain_word(name: str) -> bool:
    return re.fullmatch(r"[a-z]+", name) is not None and name not in gradlab.__all__


def setup(app: Sphinx) -> None:
    """Register the role of single backticks and what is done to docstrings."""
    app.add_role("name", _Gentle())
    app.config.default_role = "name"
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-docstring", _restore, priority=900)
    app.connect("autodoc-process-signature", _qualified)
    app.connect("autodoc-skip-member", _skipped)
    app.connect("missing-reference", _resolve)

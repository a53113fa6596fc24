"""One card per estimator: what its class declares, its docstring, its curve and its paper."""

import inspect
import math
import re
from pathlib import Path

import torch

from _generate.curves import DRAWS, about_problem, curve_rows, law_of, picture
from _generate.docstrings import SECTION, escaped
from _generate.pages import write_folder
from gradlab.catalogue import CLASSES, estimator_rows
from gradlab.citations import bibtex
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES, Estimator
from gradlab.verification.planted_errors import PLANTED

__all__ = ["about", "card", "parts", "slug", "write"]

_FAULT = re.compile(r"\b[Pp]ublished (code|form|method)\b")


def slug(name: str) -> str:
    """Return the name of an estimator's page.

    Args:
        name: A short name, such as `GR`.

    Returns:
        Such as `gr`.
    """
    return name.lower()


def about(cls: type[Estimator]) -> str:
    """Return the first sentence of an estimator's docstring.

    Args:
        cls: The class.

    Returns:
        One line.
    """
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def parts(cls: type[Estimator]) -> tuple[str, list[str]]:
    """Return the prose of an estimator's docstring, and apart from it what it says of other code.

    Args:
        cls: The class.

    Returns:
        The formula and the prose in reStructuredText, and sentences on published code.
    """
    doc = inspect.getdoc(cls) or ""
    body = SECTION.split(doc, maxsplit=1)[0].partition("\n")[2].strip()
    kept, faults = [], []
    for block in body.split("\n\n"):
        if block.startswith(".."):
            kept.append(block)
            continue
        sentences = re.split(r"(?<=[.)])\s+(?=[A-Z])", " ".join(block.split()))
        found = [sentence for sentence in sentences if _FAULT.search(sentence)]
        faults += found
        kept.append(" ".join(s for s in sentences if s not in found))
    return "\n\n".join(part for part in kept if part), faults


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _exact_for(estimator: Estimator) -> str:
    if math.isinf(estimator.order):
        return "every f: it is unbiased"
    if estimator.order == 0:
        return "constants only"
    return f"f of degree {estimator.order:g} in each variable"


def _facts(estimator: Estimator, moments: str) -> str:
    cls = type(estimator)
    shown = ", ".join(f"{f}={getattr(estimator, f)!r}" for f in cls.written_fields())
    counts = (estimator.calls(CLASSES), estimator.calls(2), estimator.calls(CLASSES, 4))
    cost = f"{counts[0]} for one variable of {CLASSES} classes"
    if len(set(counts)) == 1:
        cost = str(counts[0])
    elif counts[2] != counts[0]:
        cost += f", {counts[2]} for four of them"
    facts = {
        "Exact for": _exact_for(estimator),
        "Evaluations of f": f"{cost} (default arguments)",
        "Gradient of f": "needed" if estimator.needs_gradient else "not needed",
        "Family": cls.family,
        "Class": f"``gradlab.{cls.__name__}({shown})``",
        "Text form": f"``{estimator}``",
        "Other names": ", ".join(f"``{name}``" for name in cls.aliases),
        "Temperature": f"``{cls.temperature_field}``" if cls.temperature_field else "none",
        "Fitted by ``fit``": ", ".join(f"``{name}``" for name in cls.fitted_fields),
        "Moments": {
            "exact": "known exactly, for small models",
            "draws": "measured from draws",
        }[moments],
        "Source": estimator.reference + _cited(estimator),
    }
    rows = [f"   * - {name}\n     - {value}" for name, value in facts.items() if value]
    head = ".. list-table::\n   :stub-columns: 1\n   :widths: 28 72\n   :class: facts\n"
    return head + "\n" + "\n".join(rows)


def _cited(estimator: Estimator) -> str:
    (key,) = re.findall(r"^@\w+{(\w+),", bibtex([estimator]), re.M)
    return f" :cite:p:`{key}`"


def _warnings(estimator: Estimator, faults: list[str]) -> list[str]:
    found = []
    if faults:
        found.append(".. admonition:: Published code differs\n   :class: warning\n\n   ")
        found[0] += " ".join(escaped(faults))
    planted = [one for one in PLANTED if one.right.partition("(")[0] == estimator.name]
    if planted:
        found.append(_title("Errors to look for", "-"))
        found.append(
            "These errors occur in published code. `verify` finds each of them in code that is "
            f"meant to be {estimator.name}, as :doc:`../is-my-gradient-right` shows."
        )
        found.append("\n".join(f"- *{one.name}*: {escaped([one.error])[0]}" for one in planted))
    return found


def _try(estimator: Estimator) -> str:
    law = law_of(estimator)
    if law is not None:
        code = [
            "import gradlab, torch",
            f"from gradlab.distributions import {law.__name__}",
            "",
            "f = lambda x: x.cumsum(-1).square().sum(-1)",
            f"law = lambda p: {law.__name__}(p, k=3)",
            f'gradlab.compare(f, torch.randn(6), ["{estimator}", "ZGR"], distribution=law)',
        ]
        block = ".. code-block:: python\n\n" + "\n".join(f"   {line}".rstrip() for line in code)
        lines = ["gradlab list estimators", f'gradlab cite "{estimator}"']
        return f"{block}\n\n.. code-block:: sh\n\n" + "\n".join(f"   {line}" for line in lines)
    text = f'"{estimator}"' if "(" in str(estimator) else str(estimator)
    taus = " --tau 0.1,0.3,1" if estimator.temperature_field else ""
    two = "2" if estimator.refusal(torch.zeros(1, CLASSES)) else str(CLASSES)
    rival = "ZGR" if estimator.name == "ST" else "ST"
    loss = "" if estimator.name == "MVE-INT" else f" --problem mlp --size 3x{two}"
    lines = [
        f"gradlab compare {text} {rival} --problem mlp --size 3x{two}{taus}",
        f"gradlab verify {text}{loss}",
        f"gradlab cite {text}",
    ]
    if not loss:
        lines = lines[1:]
    return ".. code-block:: sh\n\n" + "\n".join(f"   {line}" for line in lines)


def card(estimator: Estimator, moments: str, method: str) -> str:
    """Return the page of an estimator, in reStructuredText.

    Args:
        estimator: With its default arguments.
        moments: How its moments are known: `exact` or `draws`.
        method: How those of its curve are.

    Returns:
        The page. Its picture and rows lie beside it.
    """
    cls = type(estimator)
    body, faults = parts(cls)
    name = slug(estimator.name)
    caption = f"On {about_problem(estimator)}. "
    caption += {
        "exact": "The moments are exact.",
        "monte carlo": f"Each point is measured from {DRAWS:,} draws; "
        "the band is two standard errors.",
    }[method]
    entry = "\n".join(f"   {line}" for line in bibtex([estimator]).splitlines())
    blocks = [
        _title(estimator.name, "="),
        *escaped([about(cls)]),
        "\n".join(escaped(body.splitlines())),
        _facts(estimator, moments),
        f".. figure:: {name}.svg\n   :alt: Bias, standard deviation and progress\n\n   {caption} "
        f":download:`Rows <{name}.csv>`",
        *_warnings(estimator, faults),
        _title("Try it", "-"),
        _try(estimator),
        _title("Cite it", "-"),
        f".. code-block:: bibtex\n\n{entry}",
        _title("API", "-"),
        f".. autoclass:: gradlab.{cls.__name__}\n   :members:",
    ]
    return "\n\n".join(blocks) + "\n"


def write(folder: Path) -> None:
    """Write the card of every estimator, with its curve and the rows of that.

    A curve whose rows are those of the last build is not drawn again.

    Args:
        folder: The folder of pages.
    """
    known = estimator_rows()["moments"]
    code = Path(__file__).with_name("curves.py").stat().st_mtime
    files: dict[str, str | bytes] = {}
    for cls, moments in zip((ESTIMATORS | OF_STRUCTURES).values(), known, strict=True):
        estimator, name = cls(), slug(cls.name)
        rows = curve_rows(estimator)
        csv, svg = rows.to_csv(index=False), folder / f"{name}.svg"
        old = folder / f"{name}.csv"
        fresh = svg.exists() and svg.stat().st_mtime > code and old.read_text() == csv
        files[f"{name}.csv"] = csv
        files[f"{name}.svg"] = svg.read_bytes() if fresh else picture(rows)
        files[f"{name}.rst"] = card(estimator, moments, rows["method"].iloc[0])
    write_folder(folder, files)

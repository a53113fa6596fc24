"""`gradlab list`: what there is."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gradlab.cli.faults import make_folder
from gradlab.files import write_tables

__all__ = ["Kind", "list_"]


class Kind(StrEnum):
    """What there is."""

    estimators = "estimators"
    problems = "problems"
    regimes = "regimes"
    figures = "figures"
    policy_gradients = "policy-gradients"
    choices = "choices"
    tasks = "tasks"
    policies = "policies"


def list_(
    kinds: Annotated[
        list[Kind] | None,
        typer.Argument(
            help="What is listed: estimators, problems, regimes, figures; for `gradlab policy` "
            "policy-gradients, choices, tasks, policies.  [default: all]",
            metavar="KIND",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder where each list is also written, such as problems.csv."
        ),
    ] = None,
) -> None:
    """List the estimators and their properties, the problems, logits regimes and figures.

    Of policy gradients over sequences it lists the published names, the choices that they are
    composed of, as trainers write them, tasks and policies.

    \b
    Example:  gradlab list problems regimes
    Example:  gradlab list policy-gradients choices
    Example:  gradlab list estimators --out tables
    """
    from gradlab.catalogue import KEY, SHOWN, SHOWN_OF_POLICIES, entries
    from gradlab.text import aligned, filled

    make_folder(out)
    asked = [kind for kind in Kind if kind in (kinds or Kind)]
    tables = {kind: _figures() if kind == Kind.figures else entries()[kind] for kind in asked}
    parts = []
    for kind, rows in tables.items():
        if kind == Kind.estimators:
            tables[kind] = rows = [{column: row[column] for column in SHOWN} for row in rows]
            parts += [aligned([SHOWN, *(list(row.values()) for row in rows)]), aligned(KEY)]
        elif kind == Kind.policy_gradients:
            shown = [[row[column] for column in SHOWN_OF_POLICIES] for row in rows]
            parts.append(f"policy gradients\n{aligned([SHOWN_OF_POLICIES, *shown])}")
            tables[kind] = [{k: v for k, v in row.items() if k != "aliases"} for row in rows]
        elif kind == Kind.choices:
            for choice in dict.fromkeys(row["choice"] for row in rows):
                lines = [(r["name"], r["also"], r["about"]) for r in rows if r["choice"] == choice]
                parts.append(f"{choice}\n{aligned([('name', 'also', 'about'), *lines])}")
        elif kind == Kind.regimes:
            for of in dict.fromkeys(row["of"] for row in rows):
                names = ", ".join(row["regime"] for row in rows if row["of"] == of)
                parts.append(f"{of}\n{filled(names, indent='')}")
        else:
            parts.append(f"{kind}\n{aligned(list(row.values()) for row in rows)}")
    print("\n\n".join(parts))
    if out is not None:
        import pandas as pd

        named = {str(kind): pd.DataFrame(rows) for kind, rows in tables.items()}
        print("", *write_tables(named, out), sep="\n")


def _figures() -> list[dict[str, Any]]:
    from gradlab.figures import FIGURES, about

    return [{"figure": name, "about": about(name)} for name in FIGURES]

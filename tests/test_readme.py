"""The README's claims about code: its table of estimators, its example, its figures."""

import re
from pathlib import Path

import pytest

import gradlab

README = (Path(__file__).parent.parent / "README.md").read_text()
TABLE = {
    cells[0]: cells
    for line in README.splitlines()
    if line.startswith("| ") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 6
}


def test_table_lists_every_estimator() -> None:
    assert set(TABLE) - {"name"} == set(gradlab.ESTIMATORS)


@pytest.mark.parametrize("name", gradlab.ESTIMATORS)
def test_table_row_agrees_with_code(name: str) -> None:
    estimator = gradlab.ESTIMATORS[name]()
    _, constructor, exact, calls, needs_gradient, source = TABLE[name]
    built = eval(
        constructor.strip("`"), vars(gradlab) | {c.__name__: c for c in gradlab.ESTIMATORS.values()}
    )
    assert built == estimator
    order = {"constants": 0, "degree 1": 1, "degree 2": 2, "every f": float("inf")}[exact]
    assert estimator.order == order
    assert estimator.calls(3) == int(calls)
    assert estimator.needs_gradient == (needs_gradient == "yes")
    assert estimator.reference == source


def test_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\nimport torch(.*?)```", README, re.S)
    exec("import torch" + example, {})
    assert "ZGR" in capsys.readouterr().out


def test_own_estimator_example_is_zgr() -> None:
    (example,) = re.findall(r"```python\n(@dataclasses.*?)```", README, re.S)
    scope: dict[str, object] = {}
    exec("import dataclasses, gradlab\n" + example, scope)
    mine = scope["Mine"]()  # type: ignore[operator]
    from gradlab.problems import problem, regime

    f, logits = problem("cubic", 2, 3), regime("moderate", 2, 3)
    ours = gradlab.exact_moments(gradlab.ZGR(), f, logits)
    assert (gradlab.exact_moments(mine, f, logits).mean - ours.mean).abs().max() < 1e-14


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parent.parent / link).exists()

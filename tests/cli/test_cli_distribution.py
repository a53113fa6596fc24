"""`--distribution`: what the text forms stand for, and what is wrong, in a sentence."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gradlab
from gradlab.cli import main
from gradlab.cli.distributions import read_distribution
from gradlab.distributions import KSubset

pytestmark = pytest.mark.usefixtures("unchecked")

MINE = """
import torch
from gradlab.distributions import KSubset

def pairs(logits):
    return KSubset(logits, 2)

def normal(logits):
    return torch.distributions.Normal(logits, 1.0)

def fails(logits):
    return logits.reshape(7, 7)

def twice(logits):
    made = torch.distributions.OneHotCategorical(logits=logits)
    made.log_prob = lambda x: 2 * torch.distributions.OneHotCategorical(logits=logits).log_prob(x)
    return made

def loss(x):
    return x[..., 0] * x[..., 1]

def wrong(x):
    return x.sum(-1) / 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    np.save("scores.npy", np.array([0.0, 1.0, -1.0, 0.5]))
    np.save("infinite.npy", np.array([0.0, math.inf, -1.0, 0.5]))
    np.save("nan.npy", np.array([0.0, math.nan, -1.0, 0.5]))
    np.save("out.npy", np.array([0.0, -math.inf, -math.inf, -math.inf]))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "shape", "shown"),
    [
        ("KSubset(k=3)", (6,), "KSubset(logits: [6], k=3)"),
        ("KSubset( n=5 , k=2 )", (5,), "KSubset(logits: [5], k=2)"),
        ("Permutation", (4, 4), "Permutation(logits: [4, 4])"),
        ("Permutation(n=3)", (3, 3), "Permutation(logits: [3, 3])"),
        ("SpanningTree(vertices=5)", (10,), "SpanningTree(logits: [10], vertices=5)"),
        (
            "Chain(length=3, classes=2)",
            (14,),
            "Chain(unary: [3, 2], pairwise: [2, 2, 2])",
        ),
    ],
)
def test_a_text_stands_for_a_distribution(text: str, shape: tuple[int, ...], shown: str) -> None:
    given = read_distribution(text)
    assert given.shape == shape
    assert repr(given.of(torch.zeros(shape))) == shown


def test_numbers_are_those_of_python(folder: Path) -> None:
    asked = "compare ST ZGR --distribution mine.py:pairs --logits scores.npy --loss mine.py:loss"
    assert main([*asked.split(), "--workers", "1", "--out", "out"]) == 0
    rows = pd.read_csv("out/compare.csv").set_index("estimator")
    logits = torch.from_numpy(np.load("scores.npy"))
    wanted = gradlab.compare(
        lambda x: x[..., 0] * x[..., 1], logits, ["ST", "ZGR"], distribution=lambda p: KSubset(p, 2)
    ).set_index("estimator")
    for column in ("bias2", "variance", "truth2"):
        assert np.allclose(rows[column], wanted[column], rtol=1e-12, atol=1e-28)
    assert rows["problem"].unique() == ["mine.py:loss of KSubset(logits: [4], k=2)"]


@pytest.mark.thorough  # test_smoke.py and test_cli_verify.py have its parts
def test_verify_prints_the_ladder_and_fails_where_a_claim_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "ST", "ZGR", "--distribution", "KSubset(k=2)", "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert "x is drawn from KSubset(logits: [4], k=2)." in " ".join(out.split())
    rows = pd.read_csv("out/verify.csv")
    assert set(rows["kind"]) == {"constant", "linear", "quadratic", "cubic", "mlp", "table"}
    Path("own.py").write_text(
        "import gradlab\nclass Own(gradlab.ZGR):\n    name = 'OWN'\n    line_alpha = 0.8\n"
    )
    assert main(["verify", "--file", "own.py:Own", "--distribution", "KSubset(k=2)"]) == 1
    assert "not as declared: OWN is EXACT TO DEGREE 1" in capsys.readouterr().err


WRONG = {
    "compare ST --distribution mine.py:normal --size 4": "Normal has no finite support",
    "verify ST --distribution mine.py:fails --size 4": "raised RuntimeError: shape '[7, 7]'",
    "recommend ST --distribution mine.py:twice --size 4": "probabilities of all states sum to",
    "compare ST --distribution mine.py:pairs": "give --logits, or --size, the shape of the",
    "verify ST --distribution mine.py:pairs --logits infinite.npy": "the parameters hold +inf",
    "recommend ST --distribution mine.py:pairs --logits nan.npy": "the parameters hold NaN",
    "compare ST --distribution mine.py:pairs --logits out.npy": "only 1 elements have logits",
    "compare ST --distribution KSubset(k=30)": "states are too many to be enumerated",
    "compare ST --distribution KSubset(k=5) --logits scores.npy": "between 1 and the 4 elements",
    "compare ST --distribution KSubset(k=2) --loss mine.py:wrong": "it must be finite",
    "compare ST --distribution KSubset(j=2)": "'j=2' is no argument of KSubset",
    "compare ST --distribution Gibbs(n=2)": "'Gibbs(n=2)' is no distribution; write one of",
    "compare ST --distribution Chain(length=0,classes=2)": "must be at least 1",
    "compare ST --distribution KSubset(n=9999,k=1)": "9999 parameters are more than",
    "verify ST --distribution KSubset(k=2) --problem softplus": "it is one of constant, linear",
    "verify ST --distribution KSubset(k=2) --size 4 --logits scores.npy": "give either --logits or",
}


@pytest.mark.parametrize("usage", WRONG)
def test_what_is_wrong_is_one_line(
    usage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(usage.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("gradlab: ")
    assert WRONG[usage] in err

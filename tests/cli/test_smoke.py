"""Every command with every option, in combinations: it ends well and its files can be read.

Any two values of two options of a command meet in some case (`pairwise`). Wrong values are one line
on stderr that names the option. What the numbers mean is tested elsewhere.
"""

import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from command_tree import commands
from gradlab.cli import main
from gradlab.cli.listing import Kind
from pairwise import pairwise

pytestmark = pytest.mark.usefixtures("unchecked", "kept_processes")

FIGURES = Path(__file__).parents[2] / "figures"

MINE = '''
import dataclasses
import gradlab
import torch

def loss(x):
    return (x[..., 0].sum(-1) - 0.3).square()

@gradlab.with_parameters
def free(x, logits):
    log_p = torch.where(logits > -torch.inf, logits.log_softmax(-1), 0.0)
    return loss(x) + (logits.softmax(-1) * log_p).sum((-2, -1))

def two(x, logits):
    return loss(x) + logits.sum((-2, -1))

@gradlab.with_parameters
def all_rows(x, logits):
    return loss(x) + logits.square().sum()

@dataclasses.dataclass(frozen=True, repr=False)
class Mine(gradlab.ZGR):
    """An estimator of a user's own."""
    name = "MINE"

def sample(logits, generator):
    return gradlab.straight_through(logits, generator=generator)

def pairs(logits):
    return gradlab.distributions.KSubset(logits, 2)

def of_pair(x):
    return x[..., 0] * x[..., 1] + x[..., 2].square()

def of_rule(logits, distribution, generator):
    drawn = distribution(logits)
    x = drawn.sample((), generator)
    return x + drawn.mean - drawn.mean.detach()

def policy_loss(log_prob, old_log_prob, advantages, mask, config):
    ratio = (log_prob - old_log_prob).exp()
    bounded = ratio.clamp(1 - config.clip_ratio, 1 + config.clip_ratio)
    a = advantages.unsqueeze(-1)
    return -(torch.min(ratio * a, bounded * a) * mask).sum(-1).mean()

def per_token(log_prob, advantages, mask):
    return -log_prob * advantages.unsqueeze(-1) * mask

def not_a_loss(log_prob, something):
    return log_prob.sum()

def no_numbers(tokens, lengths):
    return tokens[:, 0] / 0.0 * 0

task = gradlab.sequences.Task(lambda tokens, lengths: 1.0 * (tokens[:, 0] == 1), 3, 3, end=2)
nan_task = gradlab.sequences.Task(no_numbers, 3, 3, end=2)
policy = gradlab.sequences.TinyGRU(3, 2)
rollout = gradlab.sequences.TinyGRU(3, 2, seed=1)

class LooksAhead(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.eye(3, dtype=torch.float64))

    def forward(self, tokens):
        return self.table[tokens]

looks_ahead = LooksAhead()
'''

GRID = """
problems = ["quadratic"]
sizes = ["2x3"]
regimes = ["moderate"]
seeds = 1
estimators = ["ST", "ZGR", "DARN", "GS-ST", "GR(k=inf)", "GS"]
temperatures = [0.1, 0.5, 1.0, 2.0]
draws = 64
"""

# A cell of these tables is what stands on the command line for one option; "" leaves it out.
TABLES: dict[str, dict[str, list[str]]] = {
    "list": {
        "KIND": ["", "estimators", "problems regimes", "figures", "policy-gradients choices tasks"],
        "out": ["", "--out out"],
    },
    "compare": {
        "ESTIMATOR": ["ST", "ZGR GS-ST RF(m=2)", "ARSM"],
        "file": ["", "--file mine.py:sample", "--file mine.py:Mine --file mine.py:sample"],
        "method": ["", "--method exact", "--method monte-carlo", "--method both"],
        "problem": [
            "",
            "--problem table",
            "--problem polynomial:3",
            "--loss mine.py:loss",
            "--loss mine.py:free",
        ],
        "regime": ["", "--regime peaked", "--regime masked"],
        "size": ["--size 1x2", "--size 2x3"],
        "tau": ["", "--tau 0.5", "--tau 1,0.1"],
        "draws": ["--draws 32", "--draws 100"],
        "averaged": ["", "--averaged 4"],
        "gradient-cost": ["", "--gradient-cost 1"],
        "seed": ["", "--seed 7"],
        "workers": ["--workers 1", "--workers 2"],
        "out": ["--out out", ""],
    },
    "bounds --draws 32": {
        "ESTIMATOR": ["VIMCO", "LE OVIS(gamma=1) ZGR", "OVIS-MC(s=2)"],
        "k": ["--k 2", "--k 1,3", ""],
        "f": [
            "",
            "--problem mlp --size 1x3",
            "--loss mine.py:loss --logits logits.npy",
            "--problem table --size 2x2 --regime peaked",
        ],
        "method": ["", "--method exact", "--method monte-carlo", "--method both"],
        "reference": ["", "--reference LE"],
        "averaged": ["", "--averaged 4"],
        "gradient-cost": ["", "--gradient-cost 1"],
        "seed": ["", "--seed 7"],
        "out": ["--out out", ""],
    },
    "train vae --epochs 1 --hidden 4 --bound-samples 2 --batch 700 --latent 2x2 --out out": {
        "estimator": ["VIMCO LE", "ZGR"],
        "objective": [
            "--objective iwae --k 2",
            "--objective iwae",
            "--objective elbo,iwae --k 3",
        ],
        "workers": ["--workers 1"],
    },
    "verify": {
        "ESTIMATOR": ["ZGR", "ZGR ST"],
        "file": ["", "--file mine.py:Mine"],
        "against": ["", "--against ST", "--against mine.py:sample"],
        "judge": ["", "--judge draw", "--judge training"],
        "tau": ["", "--tau 0.5"],
        "max-draws": ["--max-draws 256", "--max-draws 1024"],
        "delta": ["", "--delta 0.5"],
        "alpha": ["", "--alpha 0.01"],
        "seed": ["", "--seed 3"],
        "out": ["--out out", ""],
    },
    "verify --max-draws 512": {
        "ESTIMATOR": ["ZGR", "", "ST RF"],
        "file": ["--file mine.py:Mine"],
        "problem": ["--problem quadratic", "--problem table"],
        "size": ["", "--size 1x2"],
        "regime": ["", "--regime uniform"],
        "method": ["", "--method monte-carlo", "--method exact"],
        "delta": ["", "--delta 0.9"],
        "alpha": ["", "--alpha 0.1"],
        "seed": ["", "--seed 3"],
        "out": ["--out out", ""],
    },
    "verify --max-draws 512 --problem quadratic --file mine.py:sample": {
        "against": ["", "--against ST", "--against mine.py:Mine"],
        "judge": ["", "--judge training"],
        "batch": ["", "--batch 2"],
        "method": ["", "--method monte-carlo"],
        "out": ["--out out", ""],
    },
    "compare ST RF --draws 64 --workers 1": {
        "distribution": [
            "--distribution KSubset(k=2)",
            "--distribution SpanningTree(vertices=4) --problem mlp",
            "--distribution mine.py:pairs --size 5 --loss mine.py:of_pair",
            "--distribution mine.py:pairs --logits scores.npy",
        ],
        "file": ["", "--file mine.py:of_rule"],
        "method": ["", "--method both"],
        "out": ["", "--out out"],
    },
    "verify ZGR --max-draws 256": {
        "distribution": ["--distribution Permutation(n=3)", "--distribution KSubset(n=5,k=2)"],
        "problem": ["", "--problem quadratic", "--problem table"],
        "out": ["--out out", ""],
    },
    "recommend ST RF --draws 64 --evaluations 8": {
        "distribution": [
            "--distribution Chain(length=2,classes=2)",
            "--distribution mine.py:pairs --logits scores.npy --loss mine.py:of_pair",
        ],
        "unbiased": ["", "--unbiased"],
        "out": ["", "--out out"],
    },
    "compare ST --loss mine.py:loss": {"logits": ["--logits logits.npy"], "out": ["--out out"]},
    "verify ZGR --loss mine.py:loss": {"logits": ["--logits logits.npy"]},
    "verify ZGR RF --loss mine.py:free --max-draws 512": {
        "size": ["--size 2x3"],
        "method": ["--method exact", "--method monte-carlo"],
        "judge": ["", "--judge training"],
    },
    "recommend --draws 64": {
        "f": [
            "--problem mlp --size 2x3",
            "--loss mine.py:loss --logits logits.npy",
            "--loss mine.py:loss --regime peaked --size 2x2",
            "--loss mine.py:free --size 2x2",
            "--problem table --size 1x2 --regime uniform",
        ],
        "evaluations": ["", "--evaluations 4", "--evaluations 1000"],
        "averaged": ["", "--averaged 4", "--momentum 0.5", "--batch 2", "--momentum 0 --batch 3"],
        "gradient-cost": ["", "--gradient-cost 1", "--measure-cost"],
        "unbiased": ["", "--unbiased"],
        "estimator": ["RF ZGR", "RF GS-ST"],
        "file": ["", "--file mine.py:Mine", "--file mine.py:sample"],
        "tau": ["--tau 0.5", "--tau 1,0.1", ""],
        "reference": ["", "--reference RF(m=4)"],
        "seed": ["", "--seed 4"],
        "workers": ["--workers 1", "--workers 2"],
        "out": ["", "--out out"],
    },
    "time --seconds 0.01": {
        "estimator": ["ST", "ARM GR(k=2)"],
        "file": ["", "--file mine.py:Mine", "--file mine.py:sample"],
        "f": [
            "--size 2x2",
            "--size 2x2,3x2,2x3",
            "--problem quadratic --size 2x3 --regime peaked",
            "--loss mine.py:loss --logits logits.npy",
            "--loss mine.py:free --size 2x2",
        ],
        "tau": ["", "--tau 0.5,1"],
        "batch": ["--batch 1", "--batch 3"],
        "device": ["", "--device cpu"],
        "seed": ["", "--seed 1"],
        "out": ["", "--out out"],
    },
    "policy verify": {
        "ESTIMATOR": ["RLOO", "GRPO(kl=k3) IS"],
        "loss": ["", "--loss mine.py:policy_loss --set clip_ratio=0.3"],
        "advantage": ["--file mine.py:per_token --advantage loo --aggregation seq-mean-token-sum"],
        "setting": [
            "",
            "--task parity --size 2x3 --policy ngram:2",
            "--task mine.py:task --policy mine.py:policy",
        ],
        "reference": ["", "--reference 0.2"],
        "group": ["", "--group 3"],
        "method": ["", "--method exact", "--method monte-carlo"],
        "max-draws": ["--max-draws 256"],
        "delta": ["", "--delta 0.5"],
        "alpha": ["", "--alpha 0.01"],
        "seed": ["", "--seed 3"],
        "out": ["--out out", ""],
    },
    "policy verify IS": {
        "rollout": ["--rollout 0.2", "--rollout mine.py:rollout"],
        "target": ["", "--target J"],
        "factor": ["", "--factor 1"],
        "task": ["--task mine.py:task", "--task copy"],
    },
    "policy compare": {
        "ESTIMATOR": ["", "RLOO GRPO(kl=k3,g=3) IS"],
        "setting": [
            "",
            "--task brackets --size 3x? --policy transformer:4",
            "--task mine.py:task --policy mine.py:policy",
        ],
        "rollout": ["", "--rollout 0.2"],
        "reference": ["", "--reference 0.2"],
        "target": ["", "--target max@3", "--target J-KL(beta=0.1)"],
        "group": ["", "--group 3"],
        "method": ["", "--method monte-carlo"],
        "draws": ["--draws 64"],
        "averaged": ["", "--averaged 4"],
        "seed": ["", "--seed 3"],
        "out": ["--out out", ""],
    },
    "policy explain": {
        "ESTIMATOR": ["", "GRPO"],
        "advantage": ["", "--advantage group-std", "--advantage scale_rewards=none"],
        "aggregation": ["", "--aggregation token-mean"],
        "ratio": ["", "--ratio token --clip .2", "--ratio gspo --clip .2,.3", "--ratio sequence"],
        "kl": ["", "--kl k3", "--kl k1 --beta 0.1"],
        "group": ["", "--group 3"],
        "setting": [
            "--task rare --size 2x3 --policy gru:2",
            "--task parity",
            "--task mine.py:task --policy mine.py:policy --rollout mine.py:rollout",
        ],
        "reference": ["", "--reference 0.2"],
        "target": ["", "--target max@3"],
        "draws": ["--draws 64"],
        "averaged": ["", "--averaged 4"],
        "seed": ["", "--seed 3"],
        "out": ["--out out", ""],
    },
    "report": {
        "ROWS": ["sweep.db", "figures sweep.db"],
        "title": ["--title Mine", ""],
        "evaluations": ["", "--evaluations 12"],
        "averaged": ["--averaged 100", ""],
        "out": ["--out new/report.html", ""],
    },
    "cite": {"NAME": ["ZGR", "RF(m=4) GS ZGR"]},
    "train vae --epochs 1 --hidden 4 --bound-samples 2 --images digits --data data": {
        "estimator": ["ST", "ZGR RF(m=2)"],
        "seeds": ["", "--seeds 2"],
        "latent": ["--latent 2x2", "--latent 1x3"],
        "batch": ["--batch 700", "--batch 100000"],
        "lr": ["", "--lr 1e-2"],
        "seed": ["", "--seed 5"],
        "probe": [
            "",
            "--probe 1",
            "--probe 1 --probe-estimators ARM,GS",
            "--probe 1 --probe-estimators ARM --probe-seconds 0.001",
        ],
        "workers": ["--workers 1"],
        "device": ["", "--device cpu"],
        "threads": ["", "--threads 1"],
        "out": ["--out out"],
    },
    "train network --epochs 1 --batch 700 --images digits --data data": {
        "estimator": ["ST", "ZGR GS-ST"],
        "seeds": ["", "--seeds 2"],
        "levels": ["", "--levels 3"],
        "quantized": ["", "--weights", "--no-activations --weights", "--activations --no-weights"],
        "lr": ["", "--lr 1e-3,1e-2"],
        "samples": ["--samples 1", "--samples 2"],
        "model": ["--model mlp"],
        "seed": ["", "--seed 5"],
        "workers": ["--workers 1"],
        "device": ["", "--device cpu"],
        "threads": ["", "--threads 1"],
        "out": ["--out out"],
    },
    "sweep plan grid.toml": {"memory": ["", "--memory 1"]},
    "sweep status sweep.db": {"": [""]},
    "sweep export sweep.db": {
        "FILE": ["rows.csv", "rows.parquet"],
        "seconds": ["", "--seconds"],
        "report": ["", "--report"],
    },
    "sweep migrate sweep.db": {"NEW": ["new.db"]},
    "sweep plot sweep.db": {
        "x": ["", "--x estimator", "--x size"],
        "y": ["", "--y relative_mse", "--y cosine"],
        "hue": ["", "--hue tau"],
        "col": ["", "--col size"],
        "where": ["", "--where series=ZGR --where series=GS-ST", "--where N=2"],
        "name": ["--name sweep", "--name v1.2"],
        "out": ["--out out"],
    },
    "sweep atlas sweep.db": {"out": ["--out out"]},
}

# What needs more time, or processes of its own, in one combination each.
MORE = [
    "figures degree --redraw --workers 1 --seed 0 --out figures",
    "sweep run grid.toml sweep.db --workers 1 --limit 60 --memory 2 --extend",
    "sweep retry grid.toml sweep.db --workers 1 --limit 60 --memory 2",
]
SLOW = [
    "policy explain --draws 64",
    "policy verify RLOO --out out --report",
    "policy compare RLOO --out out --report",
    "policy explain --task parity --out out --report",
    # Their reports are looked at in test_cli_report.py.
    "compare ST --draws 32 --out out --report",
    "bounds VIMCO --out out --report",
    "time ST --size 2x2 --seconds 0.01 --out out --report",
    "verify ZGR --problem linear --out out --report",
    "recommend ST RF --draws 32 --out out --report",
    "train vae ST --epochs 1 --batch 700 --hidden 4 --bound-samples 2 --out out --report",
    "train network ST --epochs 1 --batch 700 --samples 1 --images digits --out out --report",
    "sweep plot sweep.db --out out --report",
    "compare --draws 32 --tau 0.5 --out out",
    "recommend --draws 32 --out out",
    f"recommend --probe {FIGURES}/vae-probed.csv --steps 2000: --evaluations 12 --out out",
    "train network --model conv --epochs 1 --batch 700 --samples 1 --images digits --out out",
    "train vae ST ZGR --epochs 1 --batch 700 --hidden 4 --workers 2 --out out",
    "sweep run grid.toml new.db --workers 2",
    "figures cold-limit --workers 1 --out out",
]


# Of each command one case is run by default. Of commands that take about a second or more so many
# run in the thorough tests, of the others all.
FEW = {
    "verify --max-draws 512": 4,
    "policy verify IS": 2,
    "policy verify": 4,
    "policy compare": 4,
    "policy explain": 4,
    "verify": 2,
    "compare": 6,
    "bounds": 4,
    "train vae": 2,
    "train network": 1,
    "time": 2,
    "report": 2,
    "sweep plot": 2,
    "recommend": 4,
}


def cases() -> Iterator[str]:
    """Yield the command lines, those that are run by default first."""
    slow = list(SLOW)
    for command, options in TABLES.items():
        lines = [
            " ".join([command, *filter(None, chosen.values())]) for chosen in pairwise(options)
        ]
        few = next((n for name, n in FEW.items() if command.startswith(name)), len(lines))
        yield pytest.param(lines[0], id=lines[0])
        thorough = pytest.mark.thorough
        yield from (pytest.param(line, marks=thorough, id=line) for line in lines[1:few])
        slow += lines[few:]
    yield from MORE
    yield from (pytest.param(line, marks=pytest.mark.slow, id=line) for line in slow)


@pytest.fixture(scope="module")
def store(tmp_path_factory, kept_processes) -> Path:
    """Return the file of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.toml").write_text(GRID)
    asked = ["sweep", "run", str(folder / "grid.toml"), str(folder / "sweep.db"), "--workers", "1"]
    assert main(asked) == 0
    return folder / "sweep.db"


@pytest.fixture
def folder(tmp_path, monkeypatch, request) -> Path:
    """Go to a folder that has what the command lines name."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("grid.toml").write_text(GRID)
    Path("FILE").write_text("not a folder")
    np.save("logits.npy", np.array([[0.0, 1.0, -1.0], [0.5, 0.0, 0.0]]))
    np.save("scores.npy", np.array([0.0, 1.0, -1.0, 0.5]))
    Path("data").mkdir()
    Path("figures").mkdir()
    shutil.copy(FIGURES / "degree.csv", "figures")
    return tmp_path


# The files that --out promises, beside any others; * stands for any name.
PROMISED = {
    "list": [f"{kind}.csv" for kind in Kind],
    "compare": ["compare.csv", "compare.png", "compare.pdf"],
    "bounds": ["bounds.csv", "bounds.png", "bounds.pdf"],
    "verify": ["verify.csv"],
    "policy verify": ["policy-verify.csv", "policy-verify.png", "policy-verify.pdf"],
    "policy compare": ["policy-compare.csv", "policy-compare.png", "policy-compare.pdf"],
    "policy explain": ["policy-explain.csv"],
    "recommend": ["recommend.csv", "recommend.png", "recommend-moments.csv"],
    "report": [],
    "time": ["timing.csv", "timing.png", "timing.pdf"],
    "train vae": ["vae.csv", "vae.png", "vae.pdf"],
    "train network": ["network.csv", "network.png", "network.pdf"],
    "sweep plot": ["*.csv", "*.png", "*.pdf"],
    "sweep atlas": ["atlas.csv", "atlas.png", "atlas.pdf"],
    "figures": ["*.csv", "*.png", "*.pdf"],
}


def check(usage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command line; it must end well, and what it wrote must be whole."""
    words = usage.split()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    # On a slow machine there may be progress.
    err = re.sub(r"(?m)^.*: [\d,]+(/[\d,]+)? \w+(, about .* left)?\n", "", err)
    # What will be done, and about how long it takes.
    err = re.sub(r"(?m)^\d+ estimators? .*to measure, .*: about .*\n", "", err)
    if "verify" in words[:2] and status == 1:
        # So few draws decide little, which is said.
        assert len(err.splitlines()) == 1
        assert err.startswith("gradlab: ")
        asked = "--against" in words or "mine.py:sample" in words
        assert "INCONCLUSIVE" in err or (asked and ("BIASED" in err or "DIFFERS" in err))
    else:
        assert (status, err if words[0] not in ("figures", "sweep") else "") == (0, "")
    assert out.strip()
    assert "None" not in out.split()
    command = " ".join(words[:2]) if words[0] in ("train", "sweep", "policy") else words[0]
    if "--out" in words:
        written = folder / words[words.index("--out") + 1]
        promised = (
            [f"{kind}.csv" for kind in words[1:] if kind in list(Kind)] if command == "list" else ()
        )
        for pattern in promised or PROMISED[command]:
            assert list(written.glob(pattern)), pattern
        for file in written.rglob("*"):
            check_file(file)
    if command == "sweep export":
        check_file(folder / words[3])


def check_file(file: Path) -> None:
    """Read the file as what its name says."""
    assert not file.name.startswith(".writing")
    if file.suffix in (".csv", ".parquet"):
        rows = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
        assert len(rows)
        assert not [name for name in rows if name.startswith("Unnamed")]
    elif file.suffix == ".png":
        assert matplotlib.image.imread(file).std() > 0
    elif file.suffix == ".pdf":
        assert file.read_bytes().startswith(b"%PDF")


@pytest.mark.few(12)
@pytest.mark.parametrize("usage", list(cases()))
def test_a_command_ends_well(usage, folder, store, capsys):
    shutil.copy(store, folder / "sweep.db")
    capsys.readouterr()
    check(usage, folder, capsys)


# ---- wrong values -----------------------------------------------------------------------------

WRONG: dict[str, dict[str, list[str]]] = {
    "list": {"KIND": ["nope"], "--out": ["FILE"]},
    "compare ST": {
        "ESTIMATOR": ["nope", "ST(", "GR(k=1.5)"],
        "--file": ["nope.py:x", "mine.py:loss"],
        "--problem": ["nope", "polynomial:x", "norm:-1"],
        "--size": ["0x3", "x", "2", "100000x4", "2x-1", "2x1.5"],
        "--loss": ["nope.py:x", "mine.py", "mine.py:two", "mine.py:all_rows"],
        "--logits": ["nope.npy"],
        "--regime": ["nope", ""],
        "--distribution": ["nope", "KSubset", "KSubset(k=0)", "KSubset(k=9,n=4)", "KSubset(k=x)"],
        "--tau": ["0", "x", "nan", "1,,2", ""],
        "--method": ["nope"],
        "--draws": ["31", "x"],
        "--averaged": ["0", "x"],
        "--gradient-cost": ["0", "x"],
        "--seed": ["-1", "x"],
        "--workers": ["0", "x"],
        "--out": ["FILE", "FILE/sub"],
    },
    "verify ZGR --problem quadratic": {
        "ESTIMATOR": ["nope"],
        "--file": ["nope.py:x", "mine.py:nope", "mine.py:loss", "mine.py"],
        "--against": ["nope", "mine.py:loss"],
        "--judge": ["nope"],
        "--batch": ["0", "x"],
        "--problem": ["nope"],
        "--size": ["0x1"],
        "--loss": ["nope.py:x"],
        "--logits": ["nope.npy"],
        "--regime": ["nope"],
        "--tau": ["0", "x", "1,,2"],
        "--method": ["both"],
        "--max-draws": ["255", "x"],
        "--delta": ["0", "1", "nan", "x"],
        "--alpha": ["0", "1", "nan", "-1"],
        "--seed": ["-1"],
        "--out": ["FILE"],
    },
    "bounds": {
        "ESTIMATOR": ["nope", "RF(m=4)", "VIMCO(s=2)"],
        "--k": ["0", "x", "2,,3"],
        "--loss": ["nope.py:x"],
        "--problem": ["nope"],
        "--logits": ["nope.npy"],
        "--regime": ["nope"],
        "--size": ["x", "40x40"],
        "--method": ["fast"],
        "--draws": ["31"],
        "--reference": ["nope", "ZGR"],
        "--averaged": ["0"],
        "--gradient-cost": ["0", "nan"],
        "--seed": ["-1"],
        "--out": ["FILE"],
    },
    "verify ZGR": {
        "--method": ["exact"],
        "--regime": ["peaked"],
        "--distribution": ["SpanningTree(vertices=1)", "nope.py:x", "mine.py:nope"],
    },
    "verify ZGR --distribution KSubset(k=2)": {
        "--problem": ["nope", "vae"],
        "--size": ["x", "0", "4x"],
        "--logits": ["nope.npy"],
    },
    "recommend": {"--probe": ["nope.csv", "FILE"]},
    f"recommend --probe {FIGURES}/vae-probed.csv": {"--steps": ["x", "5:1", "7"]},
    "recommend RF --draws 64": {
        "--loss": ["nope.py:x", "mine.py:nope", "mine.py", "mine.py:two"],
        "--problem": ["nope"],
        "--logits": ["nope.npy", "FILE"],
        "--regime": ["nope"],
        "--size": ["0x1"],
        "--evaluations": ["0", "x", "1"],
        "--averaged": ["0", "nan", "x"],
        "--momentum": ["1", "-0.1", "nan", "x"],
        "--batch": ["0", "x"],
        "--gradient-cost": ["0", "nan", "inf", "x"],
        "ESTIMATOR": ["nope"],
        "--file": ["nope.py:x", "mine.py:loss"],
        "--tau": ["0", "inf", "x"],
        "--draws": ["31"],
        "--reference": ["nope", "ZGR"],
        "--distribution": ["Chain(length=2)", "mine.py:pairs", "Permutation(n=20)"],
        "--seed": ["-1"],
        "--workers": ["0"],
        "--out": ["FILE"],
    },
    "time ST --batch 1 --problem quadratic": {
        "--problem": ["nope"],
        "--loss": ["nope.py:x"],
        "--logits": ["nope.npy"],
        "--regime": ["nope"],
        "--size": ["2x3,3x2"],
    },
    "time ST --size 2x2 --batch 1": {
        "ESTIMATOR": ["nope"],
        "--file": ["nope.py:x", "mine.py:loss"],
        "--logits": ["logits.npy"],
        "--size": ["0x1", "x", ",", "2x3,x"],
        "--tau": ["0", "x"],
        "--batch": ["0", "x"],
        "--device": ["tpu", ""],
        "--seconds": ["0", "nan", "inf", "x"],
        "--seed": ["-1"],
        "--out": ["FILE"],
    },
    "report sweep.db": {
        "ROWS": ["nope.csv", "mine.py", "data"],
        "--title": ["", " "],
        "--evaluations": ["0", "x"],
        "--averaged": ["0", "x"],
        "--out": ["FILE/report.html", "report.txt", "data"],
    },
    "cite": {"NAME": ["nope", "GR(kk=0)", "GRP0"]},
    "policy verify RLOO": {
        "ESTIMATOR": ["nope", "GRPO(kl=k9)", "GRPO("],
        "--task": ["nope", "mine.py:nan_task", "mine.py:loss", "nope.py:x"],
        "--policy": ["nope", "ngram:x", "tabular:3", "mine.py:LooksAhead", "nope.py:x"],
        "--size": ["0x3", "x", "3", "30x3", "12x9"],
        "--rollout": ["x", "-1", "nope.py:x", "nan"],
        "--reference": ["x", "inf"],
        "--target": ["nope", "pass@0"],
        "--factor": ["0", "x", "nan"],
        "--group": ["0", "1", "x"],
        "--method": ["both"],
        "--max-draws": ["255"],
        "--delta": ["0", "1", "nan"],
        "--alpha": ["0", "x"],
        "--seed": ["-1"],
        "--out": ["FILE"],
        "--advantage": ["loo"],
        "--aggregation": ["TOK"],
        "--set": ["a=1"],
    },
    "policy verify RLOO --policy gru": {"--size": ["30x3"]},
    "policy verify --task mine.py:task RLOO": {
        "--policy": ["mine.py:looks_ahead"],
        "--size": ["3x3"],
    },
    "policy verify": {
        "--loss": ["nope.py:x", "mine.py:nope", "mine.py", "mine.py:not_a_loss", "mine.py:task"]
    },
    "policy verify --loss mine.py:policy_loss": {
        "--advantage": ["nope"],
        "--aggregation": ["nope"],
        "--set": ["nope", "=1", "a b=1"],
    },
    "policy compare RLOO": {
        "ESTIMATOR": ["nope", "GRPO(kl=k9)"],
        "--task": ["nope", "mine.py:nan_task"],
        "--policy": ["nope"],
        "--size": ["0x3", "30x3"],
        "--rollout": ["x"],
        "--reference": ["x"],
        "--target": ["nope"],
        "--group": ["0", "1"],
        "--method": ["both"],
        "--draws": ["31"],
        "--averaged": ["0", "nan"],
        "--seed": ["-1"],
        "--out": ["FILE"],
    },
    "policy explain --task parity": {
        "ESTIMATOR": ["nope"],
        "--advantage": ["nope"],
        "--aggregation": ["nope"],
        "--ratio": ["nope", "PPO(x=1)"],
        "--clip": ["x", "-1", ".1,.2,.3", ".2"],
        "--kl": ["k9"],
        "--beta": ["0.1", "x"],
        "--group": ["0", "1"],
        "--policy": ["nope"],
        "--size": ["0x3", "30x3"],
        "--rollout": ["x"],
        "--reference": ["x"],
        "--target": ["nope"],
        "--draws": ["31"],
        "--averaged": ["0"],
        "--seed": ["-1"],
        "--out": ["FILE"],
    },
    "policy explain": {"--task": ["nope", "mine.py:nan_task"], "--size": ["3x3"]},
    "figures": {"NAME": ["nope"], "--seed": ["-1"], "--workers": ["0"], "--out": ["FILE"]},
    "train vae --epochs 1": {
        "ESTIMATOR": ["nope", "ST(tau=1)"],
        "--seeds": ["0", "x"],
        "--latent": ["x", "0x3", "2x1", "2x3x4"],
        "--images": ["nope"],
        "--epochs": ["0"],
        "--batch": ["0"],
        "--lr": ["0", "nan", "inf", "-1", "x"],
        "--hidden": ["0"],
        "--bound-samples": ["0"],
        "--objective": ["nope", ""],
        "--k": ["0", "5"],
        "--seed": ["-1"],
        "--probe": ["0", "x"],
        "--probe-seconds": ["0", "nan"],
        "--workers": ["0"],
        "--device": ["tpu"],
        "--threads": ["0"],
        "--out": ["FILE"],
    },
    "train vae --epochs 1 --probe 1": {"--probe-estimators": ["nope", ","]},
    "train network --epochs 1": {
        "ESTIMATOR": ["nope"],
        "--seeds": ["0"],
        "--model": ["nope"],
        "--levels": ["1"],
        "--images": ["nope"],
        "--epochs": ["0"],
        "--batch": ["0"],
        "--lr": ["0", "nan", "x", "1e-3,"],
        "--samples": ["0"],
        "--seed": ["-1"],
        "--workers": ["0"],
        "--device": ["tpu"],
        "--threads": ["0"],
        "--out": ["FILE"],
    },
    "sweep plan": {"GRID.toml": ["nope.toml", "mine.py"]},
    "sweep plan grid.toml": {"--memory": ["0", "nan", "x"]},
    "sweep run grid.toml new.db": {
        "--workers": ["0"],
        "--scheduler": ["nope"],
        "--limit": ["0", "nan", "x"],
        "--memory": ["0", "nan"],
    },
    "sweep retry grid.toml sweep.db": {
        "--workers": ["0"],
        "--scheduler": ["nope", "localhost"],
        "--limit": ["0"],
        "--memory": ["0"],
    },
    "sweep export sweep.db": {"FILE": ["rows.txt", "rows", "nope/rows.csv"]},
    "sweep migrate sweep.db": {"NEW": ["sweep.db", "nope/new.db"]},
    "sweep plot sweep.db": {
        "--x": ["nope"],
        "--y": ["nope", "reason", "problem"],
        "--hue": ["nope"],
        "--col": ["nope"],
        "--where": ["series", "nope=1", "series=nope"],
        "--out": ["FILE"],
        "--name": ["a/b", "../b", ""],
    },
    "sweep atlas sweep.db": {"--out": ["FILE"]},
}
BAD = [
    (f"{command} {option} = {value}", command, option, value)
    for command, options in WRONG.items()
    for option, values in options.items()
    for value in values
]


@pytest.mark.parametrize(
    ("command", "option", "value"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
@pytest.mark.few(30)
def test_a_wrong_value_is_one_line_that_names_the_option(
    command, option, value, folder, store, capsys
):
    shutil.copy(store, folder / "sweep.db")
    before = sorted(Path().iterdir())
    capsys.readouterr()
    # An argument has no name on the command line: of several it is named by its text.
    words = [value] if not option.startswith("--") else [option, value]
    assert main([*command.split(), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    fault = err.splitlines()[-1]
    assert fault.startswith("gradlab: ")
    assert option in fault
    # A new store says first how many cells there are.
    assert [line for line in err.splitlines() if line != "15 cells"] == [fault]
    assert sorted(Path().iterdir()) == before


# ---- the tables are complete ------------------------------------------------------------------


# Machines that are not there.
ELSEWHERE = {"sweep run": {"--scheduler"}, "sweep retry": {"--scheduler"}}


@pytest.mark.parametrize("name", dict(commands()))
def test_every_option_is_tried(name):
    command = dict(commands())[name]
    options = {text for p in command.params for text in [*p.opts, *p.secondary_opts] if "-" in text}
    lines = [case if isinstance(case, str) else str(case.values[0]) for case in cases()]
    tried = {
        word
        for usage in lines
        if usage.startswith(f"{name} ") or usage == name
        for word in usage.split()
    }
    assert options - {"--help", "-h"} - ELSEWHERE.get(name, set()) - tried == set()


@pytest.mark.parametrize("name", dict(commands()))
def test_every_option_with_a_value_has_a_wrong_one(name):
    command = dict(commands())[name]
    options = {
        p.opts[0] for p in command.params if p.opts[0].startswith("--") and not p.is_flag
    } - {"--help", "--data"}
    wrong = {
        option
        for usage, table in WRONG.items()
        if usage == name or usage.startswith(f"{name} ")
        for option in table
    }
    assert options - wrong == set()


def test_pairs_all_meet():
    options = {"a": ["1", "2", "3"], "b": ["x", "y"], "c": ["u", "v", "w"], "d": ["k"]}
    chosen = pairwise(options)
    met = {((a, c[a]), (b, c[b])) for c in chosen for a in options for b in options if a < b}
    assert len(met) == 6 + 9 + 3 + 6 + 2 + 3
    assert len(chosen) == 9

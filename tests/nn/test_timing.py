"""Timing: works in turns, live memory, the rows of `gradlab time` and their picture."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from cases import is_binary
from gradlab.cli import main
from gradlab.estimators import ESTIMATORS, PathwiseEstimator
from gradlab.loss import LossError
from gradlab.nn.clocks import captured, clock, in_turns, peak_bytes
from gradlab.nn.timing import REFERENCE, sweeps, time_layers
from gradlab.plots.timing import plot

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

CPU = torch.device("cpu")
NO_CUDA = not torch.cuda.is_available()
on_cuda = pytest.mark.skipif(NO_CUDA, reason="no CUDA device on this machine")


# The instrument.


class Clock:
    """A clock that works move on."""

    time = 0.0

    def now(self) -> float:
        return self.time

    def work(self, seconds: float):
        def move():
            self.time += seconds

        return move


def test_works_get_equal_shares_of_the_time_and_five_turns():
    fake = Clock()
    works = {"quick": fake.work(0.5), "slow": fake.work(2.0), "very slow": fake.work(100.0)}
    times = in_turns(works, 60.0, fake.now)
    assert {name: len(values) for name, values in times.items()} == {
        "quick": 40,
        "slow": 10,
        "very slow": 5,
    }
    assert set(times["slow"]) == {2.0}


def test_the_first_turns_hold_all_works():
    seen = []
    works = {name: lambda name=name: seen.append(name) for name in "abc"}
    in_turns(works, 1e-9, clock(CPU))
    turns = [seen[i : i + 3] for i in range(3, len(seen), 3)]  # after a first call of each
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_a_clock_that_stands_still_ends():
    assert len(in_turns({"nothing": lambda: None}, 1e-6, lambda: 0.0)["nothing"]) == 10


def chain():
    a = torch.zeros(1000)
    b = a + 1  # 8000 bytes alive
    del a
    return b * 2  # b and the product


def views():
    a = torch.zeros(1000)
    a.add_(1)
    return a.view(10, 100).transpose(0, 1)[3:]


def long_lived():
    kept = [torch.zeros(1000) for _ in range(7)]
    return torch.stack(kept)


def through_backward():
    x = torch.zeros(1000, requires_grad=True)
    y = x.exp().exp()  # x, both exponentials
    return torch.autograd.grad(y.sum(), x)


@pytest.mark.parametrize(
    ("work", "elements"),
    [(chain, 2000), (views, 1000), (long_lived, 14_000), (lambda: None, 0)],
    ids=["chain", "views", "long-lived", "nothing"],
)
def test_live_memory_is_exact(work, elements):
    assert peak_bytes(work, CPU) == 4 * elements


def test_live_memory_knows_the_backward_pass():
    # Three values of the forward pass are kept; a product for each exponential adds to them.
    assert 4 * 4000 <= peak_bytes(through_backward, CPU) <= 4 * 6100


def test_what_is_kept_from_the_first_call_is_not_counted():
    kept = []

    def work():
        if not kept:
            kept.append(torch.zeros(10_000))
        return kept[0][:5]

    assert peak_bytes(work, CPU) == 0


# The rows.


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return time_layers(None, [(2, 3), (2, 5)], batch=4, seconds=0.01)


@pytest.mark.thorough  # test_smoke.py runs the command
def test_there_is_a_row_for_every_estimator(rows):
    expected = [REFERENCE, *(str(cls()) for cls in ESTIMATORS.values()), "GR(tau=1, k=100)"]
    assert list(rows["estimator"]) == 2 * expected
    refused = rows.loc[rows["reason"].notna()]
    assert set(refused["estimator"]) == {str(c()) for c in ESTIMATORS.values() if is_binary(c)}
    assert refused["reason"].str.contains("is for variables of 2 classes").all()


def test_rows_say_what_was_timed(rows):
    layers = {REFERENCE, *(c.name for c in ESTIMATORS.values() if issubclass(c, PathwiseEstimator))}
    named = rows["estimator"].str.partition("(")[0].replace("F.gumbel_softmax", REFERENCE)
    assert (named.isin(layers) == (rows["timed"] == "layer")).all()
    assert set(rows["timed"]) == {"layer", "surrogate of a linear f"}


def test_rows_hold_positive_medians_between_quartiles(rows):
    rows = rows[rows["reason"].isna()]
    for name in ("ms", "ratio"):
        assert (rows[f"{name}_q25"] > 0).all()
        assert (rows[f"{name}_q25"] <= rows[name]).all()
        assert (rows[name] <= rows[f"{name}_q75"]).all()
    assert (rows["passes"] >= 5).all()
    reference = rows[rows["estimator"] == REFERENCE]
    assert (reference[["ratio", "ratio_q25", "ratio_q75", "peak_ratio"]] == 1).all(axis=None)


def test_rows_name_the_machine(rows):
    assert rows["machine"].iloc[0]
    assert set(rows["torch"]) == {torch.__version__}
    assert set(rows["threads"]) == {1}


def test_memory_is_the_same_every_time(rows):
    again = time_layers(None, [(2, 3), (2, 5)], batch=4, seconds=0.01)
    pd.testing.assert_series_equal(again["peak_bytes"], rows["peak_bytes"])


@pytest.mark.thorough  # test_memory_is_the_same_every_time
def test_memory_of_samples_grows_with_their_number():
    table = time_layers(["GR(k=10)", "GR(k=20)"], [(64, 64)], batch=32, seconds=0.01)
    ten, twenty = table["peak_bytes"].iloc[1:]
    one = 4 * 32 * 64 * 64
    assert 10 * one < ten < 20 * one < twenty


def test_what_does_not_fit_is_a_row_with_its_reason():
    table = time_layers(["ZGR", "ARSM", "GR(k=inf)"], [(2, 2000)], batch=4, seconds=0.01)
    assert list(table["reason"].notna()) == [False, False, True, True]
    assert table["reason"].iloc[2] == ("ARSM would hold 3.2e+10 numbers at once (allowed: 6.7e+07)")
    assert math.isnan(table["ms"].iloc[2])


def test_timing_leaves_the_global_generator_and_threads_as_they_were():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    time_layers(["ZGR"], [(2, 3)], batch=4, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_sweeps_go_through_the_middle():
    assert sweeps([1, 2, 3], [4, 5, 6]) == [(2, 4), (2, 5), (2, 6), (1, 5), (3, 5)]
    assert sweeps([7], [3]) == [(7, 3)]


BAD = [
    ({"device": "tpu9"}, "device must be 'cpu' or 'cuda', not 'tpu9'"),
    ({"device": "meta"}, "device must be 'cpu' or 'cuda', not 'meta'"),
    ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
    ({"seconds": 0.0}, "seconds must be positive"),
    ({"seconds": math.inf}, "seconds must be positive"),
    ({"batch": 0}, "at least 1"),
    ({"sizes": [(0, 3)]}, "at least 1"),
    ({"sizes": [(10**9, 10**9)]}, "numbers at once \\(allowed: 6.7e\\+07\\); take a smaller batch"),
    ({"estimators": ["ZGRR"]}, "unknown estimator 'ZGRR'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        time_layers(**arguments)


# On a GPU.


@on_cuda
def test_cuda_is_timed_with_and_without_graphs():
    table = time_layers(["ZGR", "GR(k=10)", "RF"], [(8, 4)], batch=16, device="cuda", seconds=0.1)
    assert list(table["mode"]) == ["eager"] * 4 + ["cuda graph"] * 4
    assert table["ms"].iloc[:5].notna().all()
    assert (table["ms"].notna() | table["reason"].notna()).all()


@on_cuda
def test_a_work_that_waits_for_the_device_is_refused_with_the_reason():
    data = torch.zeros(3, device="cuda")
    replays, reasons = captured({"plus": lambda: data + 1, "read": lambda: data.sum().item()})
    assert list(replays) == ["plus"]
    assert reasons["read"].startswith("no CUDA Graph: ")


# The picture and the command.


def planted(modes: tuple[str, ...]) -> pd.DataFrame:
    """Rows of two series with times that are known."""
    sizes = [(4, 2), (4, 8), (4, 32), (1, 8), (16, 8)]
    return pd.DataFrame(
        {"estimator": series, "series": series, "timed": "layer", "mode": mode, "N": n, "C": c}
        | {"ms": 1.0 * c, "ms_q25": 0.9 * c, "ms_q75": 1.1 * c, "passes": 5}
        | {"ratio": 0.5, "ratio_q25": 0.4, "ratio_q75": 0.6, "peak_bytes": 8 * n, "peak_ratio": 2}
        | {"batch": 3, "machine": "abacus", "torch": "2", "threads": 1, "dtype": "float32"}
        | {"device": "cpu", "seed": 0}
        for (n, c), mode, series in itertools.product(sizes, modes, [REFERENCE, "ZGR"])
    )


@pytest.mark.parametrize("modes", [("eager",), ("eager", "cuda graph")], ids=len)
def test_the_picture_shows_both_sweeps(modes):
    figure = plot(planted(modes))
    times = figure.axes[0]
    assert [figure.axes[i].get_title() for i in (0, 1)] == ["N = 4", "C = 8"]
    assert len(times.lines) == 2 * len(modes)
    assert list(times.lines[1].get_xdata()) == [2, 8, 32]
    assert list(times.lines[1].get_ydata()) == [2, 8, 32]
    assert list(figure.axes[1].lines[1].get_xdata()) == [1, 4, 16]
    assert "abacus" in figure.get_suptitle()


with_user_types = pytest.mark.usefixtures("unchecked")
QUICK = ["--batch", "4", "--seconds", "0.01", "--size", "3x2,3x4,2x4"]


@with_user_types
@pytest.mark.thorough  # test_smoke.py times by command
def test_the_command_prints_a_table_and_writes_rows_and_picture(tmp_path, capsys):
    chosen = ["ZGR", "RF(m=4)"]
    assert main(["time", *chosen, *QUICK, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[4, 3, 2], eager" in out
    assert "surrogate of a linear f: RF(m=4)." in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["timing.csv", "timing.pdf", "timing.png"]
    rows = pd.read_csv(tmp_path / "timing.csv")
    assert list(rows["estimator"].unique()) == [REFERENCE, "ZGR", "RF(m=4)"]
    assert set(zip(rows["N"], rows["C"], strict=True)) == {(3, 2), (3, 4), (2, 4)}


@with_user_types
def test_the_command_says_what_is_left_out(capsys):
    assert main(["time", "ARSM", *QUICK[:4], "--size", "2x2000"]) == 0
    assert "left out: ARSM would hold" in capsys.readouterr().out


@with_user_types
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "2x3,x"], "--size: 'x' is not a size; write variables x classes, such as 4x3"),
        (["--size", "2x0"], "--size: at least one variable and one class are needed, not 2x0"),
        (["--logits", "l.npy"], "--logits: only with --problem or --loss"),
        (["--problem", "cubic", "--size", "2x3,3x2"], "--size: '2x3,3x2' is not a size"),
        (["--device", "tpu"], "--device: device must be 'cpu' or 'cuda', not 'tpu'"),
        (["--seconds", "-1"], "--seconds: seconds must be positive and finite, not -1.0"),
        (
            ["--size", "99999x99999"],
            "--batch, --size: logits [128, 99999, 99999] would hold",
        ),
        (["--device", "cuda:99"], "--device: device 'cuda:99' is not there: torch finds"),
        (["ZRG"], "ESTIMATOR: unknown estimator 'ZRG'"),
    ],
)
def test_bad_options_are_named(arguments, message, capsys):
    assert main(["time", *arguments]) == 2
    assert message in capsys.readouterr().err


MINE = """
import torch
import gradlab

def loss(x):
    return (x[..., 0].sum(-1) - 0.3).square()

def sample(logits, generator):
    return gradlab.straight_through(logits, generator=generator)

def draw(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator)
"""


@with_user_types
@pytest.mark.thorough  # test_smoke.py times them
def test_your_own_loss_and_code_are_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    np.save("logits.npy", np.zeros((2, 3)))
    given = ["--file", "mine.py:sample", "--file", "mine.py:draw", "--loss", "mine.py:loss"]
    quick = ["--batch", "4", "--seconds", "0.01", "--tau", "0.5,1"]
    chosen = ["ST", "GS", "RF", *given, "--logits", "logits.npy", *quick, "--out", "out"]
    assert main(["time", *chosen]) == 0
    told = capsys.readouterr().out
    names = ["ST", "GS(tau=0.5)", "GS(tau=1)", "RF(m=2)", "sample", "draw"]
    rows = pd.read_csv("out/timing.csv").set_index("estimator")
    assert list(rows.index) == [REFERENCE, *names]
    assert set(rows.loc[names, "timed"]) == {"surrogate of loss"}
    assert (rows.loc[names[:-1], "ms"] > 0).all()
    assert "draw returns draws only" in rows.loc["draw", "reason"]
    assert "[4, 2, 3], eager" in told
    assert f"Timed by the surrogate of loss: {', '.join(names)}." in told


def test_logits_say_their_size():
    with pytest.raises(ValueError, match="logits have the size"):
        time_layers(["ST"], [(2, 3)], logits=torch.zeros(3, 3))


def test_a_loss_that_breaks_its_contract_is_refused():
    with pytest.raises(LossError):
        time_layers(["ST"], [(2, 3)], f=lambda x: x.sum(-1), seconds=0.01, batch=2)

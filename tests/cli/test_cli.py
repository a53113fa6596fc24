"""The command line as a user meets it: what it prints and writes, its status, its faults."""

import importlib
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pandas as pd
import pytest

from cases import is_binary
from gradlab import figures
from gradlab.catalogue import problem_rows
from gradlab.cli import main
from gradlab.cli.comparing import Method, compare
from gradlab.comparison import comparing
from gradlab.comparison.rows import METHODS
from gradlab.estimators import ESTIMATORS, OF_STRUCTURES
from gradlab.moments import GROUPS
from gradlab.problems import PROBLEMS, REGIMES, problem, regime
from gradlab.version import __version__

pytestmark = pytest.mark.usefixtures("unchecked")

COMMANDS = ("list", "compare", "verify", "recommend", "time", "figures")
SMALL = ["--size", "2x3"]


# ---- help -------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = """
        import sys
        from gradlab.cli import main
        main(["--help"])
        print([m for m in ("torch", "numpy", "pandas", "matplotlib", "rich") if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [*COMMANDS, "train vae", "train network"])
def test_help_shows_an_example_seed_and_out(command, capsys) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example:  gradlab {command}" in shown
    assert "--seed" in shown or command == "list"
    assert "--out" in shown


def test_without_command_the_help_goes_to_stderr(capsys) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(command in err for command in COMMANDS)


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradlab {__version__}\n"


def test_options_agree_with_the_library() -> None:
    assert [*Method] == [*METHODS, "both"]
    draws = inspect.signature(compare).parameters["draws"]
    assert draws.default == comparing.DEFAULT_DRAWS
    assert draws.annotation.__metadata__[0].min == 2 * GROUPS


# ---- list -------------------------------------------------------------------------------------


def test_list_names_everything_within_100_columns(capsys) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    first = {line.split(" ")[0].partition("(")[0].partition(":")[0] for line in lines if line}
    assert {*ESTIMATORS, *OF_STRUCTURES, *PROBLEMS, *figures.FIGURES} <= first
    assert ", ".join(REGIMES) in lines


@pytest.mark.parametrize("name", problem_rows()["problem"])
def test_the_table_of_problems_shows_which_take_an_argument(name) -> None:
    kind, _, argument = name.partition(":")
    takes_none = pytest.raises(ValueError, match="takes no argument")
    bad = pytest.raises(ValueError, match=r"must be a number|unknown snapshot")
    with bad if argument else takes_none:
        problem(f"{kind}:nonsense", 4, 4)


def test_list_writes_the_estimators(tmp_path) -> None:
    assert main(["list", "--out", str(tmp_path / "new")]) == 0
    rows = pd.read_csv(tmp_path / "new" / "estimators.csv").set_index("estimator")
    assert len(rows) == len(ESTIMATORS | OF_STRUCTURES)
    assert rows.loc["ZGR", "degree"] == "2"
    assert rows.loc["ARSM", "moments"] == "draws"


# ---- bad usage --------------------------------------------------------------------------------

BAD_USAGE = {
    "comapre": "Did you mean 'compare'",
    "list extra": "extra",
    "compare --draw 100": "--draws",
    "compare ZRG": "ESTIMATOR: unknown estimator 'ZRG'; did you mean 'ZGR'",
    "compare GR(k=0)": "ESTIMATOR: k must be",
    "compare GS-ST(tau=0)": "ESTIMATOR: tau must be a positive",
    "compare ST-ZGR(a=1)": "ESTIMATOR: ST-ZGR has no argument 'a'",
    "compare GS --tau 0": "--tau: tau must be a positive finite number, not 0.0",
    "compare GS --tau 1,-1": "--tau: tau must be a positive finite number, not -1.0",
    "compare GS --tau nan": "--tau: tau must be a positive finite number, not nan",
    "compare GS --tau 1e-320": "--tau: tau = 1e-320 is so small",
    "compare GS --tau 0.1,x": "--tau: 'x' is not a number",
    "compare --method exacct": "'exact', 'monte-carlo', 'both'",
    "compare --draws 31": "--draws",
    "compare --draws many": "--draws",
    "compare --seed -1": "--seed",
    "compare --workers 0": "--workers",
    "compare --size 0x2": "--size: at least one variable",
    "compare --size 30x10": "--size: 30 variables of 10 classes have about 10^30",
    "compare --size 1000x10": "--size: N C must be at most 4096, not 10000",
    "compare --problem quadratik": "--problem quadratik: unknown problem",
    "compare --problem vae --size 3x4": "the problem vae has N=4, C=4, not N=3",
    "compare --problem vae:lang": "unknown snapshot 'lang'",
    "compare --problem vae --seed 300": "--seed 300: image must be a whole number from 0 to 299",
    "compare --regime modrate": "--regime: unknown regime 'modrate'; did you mean 'moderate'",
    "compare --out FILE": "--out: cannot write to the folder FILE: ",
    "compare --out FILE/sub": "--out: cannot write to the folder FILE/sub: ",
    "recommend --loss FILE": "FILE: 'FILE' names no object; write FILE.py:NAME, such as my.py:loss",
    "recommend --loss my.py:loss": "my.py:loss: there is no file my.py",
    "recommend --loss FILE:loss": "FILE:loss: FILE is not valid Python: invalid syntax (line 1)",
    "recommend --loss my.py:loss --problem mlp": "give either my.py:loss or --problem mlp",
    "recommend --logits no.npy": "--logits: there is no file no.npy",
    "recommend --logits FILE": "--logits: FILE is not a file of logits; known are .npy, .pt, .csv",
    "recommend --logits a.npy --regime peaked": "--regime: give either a.npy or --regime peaked",
    "recommend --evaluations 0": "--evaluations",
    "recommend --gradient-cost 0.5": "--gradient-cost",
    "recommend ZRG": "ESTIMATOR: unknown estimator 'ZRG'; did you mean 'ZGR'",
    "recommend --tau 0": "--tau: tau must be a positive finite number, not 0.0",
    "recommend --file my.py:Mine": "--file my.py:Mine: there is no file my.py",
    "recommend ST --reference ZGR": "--reference: reference must be unbiased for",
    "recommend ST --evaluations 2": "ST: one draw counts as 3 evaluations of f",
    "recommend --problem mlp --unbiased ST": "ST: not unbiased for an f that is no",
    "recommend --out FILE": "--out: cannot write to the folder FILE: ",
    "list --out FILE": "--out: cannot write to the folder FILE: ",
    "figures --out FILE": "--out: cannot write to the folder FILE: ",
    "figures temprature": "NAME: unknown figure 'temprature'; did you mean 'temperature'? (known: ",
    "figures --workers 0": "--workers",
}


@pytest.mark.parametrize("usage", BAD_USAGE)
@pytest.mark.few(16)
def test_bad_usage_is_told_in_one_line(usage, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("not a folder")
    assert main(usage.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("gradlab: ")
    assert BAD_USAGE[usage] in err
    assert os.listdir() == ["FILE"]


def test_other_faults_exit_1(monkeypatch, capsys) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("gradlab.catalogue.entries", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr() == ("", "gradlab: the disk is full\n")


# ---- compare ----------------------------------------------------------------------------------


def compared(folder: Path, *arguments: str) -> pd.DataFrame:
    assert main(["compare", *arguments, "--out", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        f"compare.{x}" for x in ("csv", "png", "pdf")
    }
    return pd.read_csv(folder / "compare.csv")


@pytest.mark.thorough  # test_smoke.py compares with --out
def test_compare_writes_rows_beside_a_picture(tmp_path, capsys) -> None:
    texts = ["ZGR", "GS-ST(tau=0.5)", "GS-ST", "GS", "RF"]
    rows = compared(
        tmp_path, *texts, *SMALL, "--tau", "0.1,1", "--method", "both", "--draws", "3000"
    )
    out, err = capsys.readouterr()
    # The two forms of GS-ST are one estimator at the same temperatures.
    assert rows["estimator"].nunique() == 1 + 2 + 2 + 1
    assert set(rows["method"]) == {"exact", "monte carlo"}
    assert rows.loc[rows["reason"].isna(), "bias2"].notna().all()
    assert set(rows.loc[rows["reason"].notna(), "series"]) == {"GS"}
    assert "seconds" not in rows
    assert set(rows["regime"]) == {"moderate"}
    assert err == ""
    assert max(map(len, out.splitlines())) <= 100
    assert "GS (exact): no exact moments are known for GS" in out
    assert out.endswith(f"\n{tmp_path / 'compare.png'}\n")


def test_compare_agrees_with_the_library(tmp_path) -> None:
    rows = compared(
        tmp_path, "ST", "GR", "--problem", "cubic", "--seed", "3", "--regime", "peaked", *SMALL
    )
    f, logits = problem("cubic", 2, 3, 3), regime("peaked", 2, 3, 3)
    expected = comparing.compare(f, logits, ["ST", "GR"], seed=3)
    assert rows["bias2"].tolist() == expected["bias2"].tolist()
    assert rows["variance"].tolist() == expected["variance"].tolist()


@pytest.mark.thorough  # test_smoke.py compares by command
def test_compare_takes_all_estimators_and_gives_reasons(tmp_path, capsys) -> None:
    rows = compared(tmp_path, "--problem", "table", *SMALL, "--draws", "64")
    assert len(rows) == len(ESTIMATORS)
    refused = {n for n, cls in ESTIMATORS.items() if cls.needs_gradient or is_binary(cls)}
    assert {
        text.partition("(")[0] for text in rows.loc[rows["reason"].notna(), "series"]
    } == refused
    assert "f is not differentiable" in " ".join(capsys.readouterr().out.split())


@pytest.mark.thorough  # tests/plots: what_is_zero_stands_in_a_strip
@pytest.mark.parametrize(
    "arguments",
    [
        ["ST", "--problem", "table"],
        ["ST", "GS", "RF", "--problem", "constant"],
        ["ST", "GS", "RF", "--problem", "linear", "--size", "2x1"],
    ],
    ids=["nothing measured", "no gradient", "one class"],
)
@pytest.mark.few(1)
def test_compare_draws_what_has_no_place_on_a_log_axis(arguments, tmp_path) -> None:
    compared(tmp_path, "--size", "2x4", "--tau", "0.1,1", "--draws", "64", *arguments)


def test_vae_brings_its_logits(tmp_path, capsys) -> None:
    assert main(["compare", "ZGR", "--problem", "vae:little"]) == 0
    assert "vae(snapshot=little, image=0), logits: encoder" in capsys.readouterr().out


@pytest.mark.thorough  # test_chunks_and_workers_change_no_bit
def test_same_seed_gives_the_same_csv_on_any_number_of_workers(tmp_path) -> None:
    # More draws than one task of a worker has.
    arguments = ["ZGR", "--method", "both", "--draws", "150000", "--seed", "5"]
    compared(tmp_path / "a", *arguments)
    compared(tmp_path / "b", *arguments, "--workers", "3")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- recommend --------------------------------------------------------------------------------

MY_LOSS = """
import torch

SQUARES = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)

def loss(x):
    return (x * SQUARES).sum((-2, -1)).square() / 100

def raises(x):
    return x @ SQUARES

def shape(x):
    return x.sum(-1)

def nan(x):
    return x.sum((-2, -1)) * float("nan")

number = 3
"""
FASTER = ["--draws", "64", "--tau", "0.3,1"]


@pytest.fixture
def my_folder(tmp_path, monkeypatch) -> Path:
    """Go to a folder with losses and logits of a user's own."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(MY_LOSS)
    np.save("logits.npy", np.array([[0.0, 1.0, -1.0]] * 4))
    return tmp_path


@pytest.mark.slow
def test_recommend_ranks_on_a_loss_of_ones_own(my_folder, capsys) -> None:
    asked = ["recommend", "--loss", "my.py:loss", "--logits", "logits.npy", "--out", "out", *FASTER]
    assert main(asked) == 0
    names = ("recommend.csv", "recommend.pdf", "recommend.png")
    tables = ("recommend-moments.csv", "recommend-ranking.csv")
    assert sorted(contents(Path("out"))) == sorted([*names, *tables])
    out, err = capsys.readouterr()
    (plan,) = err.splitlines()
    assert re.fullmatch(r"\d+ estimators and temperatures to measure, .*: about .*", plan)
    assert max(map(len, out.splitlines())) <= 100
    assert out.startswith("logits: logits.npy\nmy.py:loss: 4 variables of 3 classes")
    assert out.endswith(f"\n{Path('out') / 'recommend.png'}\n")
    ranked = pd.read_csv("out/recommend-ranking.csv")
    assert f"Best: {ranked['estimator'][0]}" in out
    # The picture is of the same rows, and the ranking agrees with what was measured.
    curves, moments = pd.read_csv("out/recommend.csv"), pd.read_csv("out/recommend-moments.csv")
    assert curves.loc[curves["asked"], "rmse"].tolist() == ranked["rmse"].dropna().tolist()
    assert set(curves["series"]) == set(moments["series"])
    first = moments.set_index("estimator").loc["ST"]
    n = ranked.set_index("estimator")["draws_each"]["ST"]
    mse = (first["bias2"] + first["variance"] / n) / first["truth2"]
    assert ranked.set_index("estimator")["rmse"]["ST"] == pytest.approx(mse**0.5)


@pytest.mark.slow
def test_recommend_is_the_same_again(my_folder) -> None:
    for workers in ("1", "2"):
        assert main(["recommend", "--out", workers, "--workers", workers, *FASTER]) == 0
    assert contents(Path("1")) == contents(Path("2"))


def test_recommend_takes_estimators_of_ones_own(my_folder, capsys) -> None:
    Path("mine.py").write_text(
        "import dataclasses, gradlab\n"
        "@dataclasses.dataclass(frozen=True, repr=False)\n"
        "class Mine(gradlab.ZGR):\n"
        "    name = 'MINE'\n"
    )
    asked = ["RF", "--file", "mine.py:Mine", "--evaluations", "6", *SMALL]
    assert main(["recommend", "--problem", "quadratic", *asked]) == 0
    assert "Best: MINE. One gradient is the mean of 2 draws." in capsys.readouterr().out


FAULTY_LOSSES = {
    "raises": r"my.py:raises: it raised RuntimeError: .* \(my.py, line 10\)",
    "shape": "my.py:shape: f must return one value for each x",
    "nan": r"my.py:nan: f\(x\) is nan for classes",
    "number": "my.py:number: it must be a function of x, not int",
    "los": "my.py:los: my.py has no 'los'; did you mean 'loss'",
}


@pytest.mark.parametrize("name", FAULTY_LOSSES)
def test_a_faulty_loss_is_told_in_one_line(name, my_folder, capsys) -> None:
    assert main(["recommend", "--loss", f"my.py:{name}", "--logits", "logits.npy"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(FAULTY_LOSSES[name], err)


def test_logits_of_another_size_are_refused(my_folder, capsys) -> None:
    assert (
        main(["recommend", "--loss", "my.py:loss", "--logits", "logits.npy", "--size", "4x4"]) == 2
    )
    assert "--size: logits.npy holds logits of size 4x3, not 4x4" in capsys.readouterr().err


# ---- figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", figures.FIGURES)
def test_catalogue_holds_figures(name) -> None:
    figure = importlib.import_module(figures.FIGURES[name])
    assert callable(figures.function(name, "rows"))
    assert callable(figures.function(name, "plot"))
    assert figures.about(name) == (figure.__doc__ or "").partition("\n")[0] != ""


FAKES = {
    "wave": '''
        """A wave of random numbers."""
        import warnings
        import numpy as np
        import pandas as pd
        from matplotlib.figure import Figure

        def rows(seed=0):
            warnings.warn("the wave is high")
            y = np.random.default_rng(seed).standard_normal(50)
            return pd.DataFrame({"y": y / 3})

        def plot(rows):
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot(rows["y"])
            return figure
        ''',
    "broken": '''
        """A figure that cannot be made."""
        def rows(seed=0):
            raise ValueError("no rows today")
        ''',
    "slow": '''
        """A figure that takes its time."""
        import pathlib, time
        def rows(seed=0):
            pathlib.Path("started").touch()
            time.sleep(60)
        ''',
}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory) -> Iterator[Path]:
    """Put fake figures into the place of the catalogue; yield the folder of their modules."""
    folder = tmp_path_factory.mktemp("fakes")
    for name, code in FAKES.items():
        (folder / f"fake_{name}.py").write_text(textwrap.dedent(code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        patch.syspath_prepend(folder)
        patch.setattr(figures, "FIGURES", {name: f"fake_{name}" for name in FAKES})
        yield folder


@pytest.fixture(scope="module")
def made(fakes, tmp_path_factory) -> Path:
    """Return the folder of a fake figure with seed 1."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["figures", "wave", "--seed", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.thorough  # test_smoke.py runs the command
def test_a_figure_is_whole_and_alone(made) -> None:
    assert {path.name for path in made.iterdir()} == {"wave.csv", "wave.png", "wave.pdf"}
    # Every float is read back as it was.
    y = np.random.default_rng(1).standard_normal(50) / 3
    assert pd.read_csv(made / "wave.csv")["y"].tolist() == y.tolist()


@pytest.mark.thorough  # test_redraw_computes_nothing draws by command
def test_a_failing_figure_stops_no_other(fakes, made, tmp_path, capfd) -> None:
    names = ["broken", "wave"]
    status = main(["figures", *names, "--seed", "1", "--out", str(tmp_path), "--workers", "2"])
    assert status == 1
    assert contents(tmp_path) == contents(made)
    out, err = capfd.readouterr()
    assert out == f"{tmp_path / 'wave.png'}\n"
    assert "broken: failed: ValueError: no rows today" in err
    assert "UserWarning: the wave is high" in err
    assert err.endswith("gradlab: failed: broken\n")


@pytest.mark.thorough  # tests/figures/test_redraw.py draws without torch
def test_redraw_computes_nothing(fakes, made, tmp_path, capfd) -> None:
    shutil.copy(made / "wave.csv", tmp_path)
    # The rows of the slow figure would take a minute.
    names = ["wave", "slow", "--workers", "1"]
    assert main(["figures", *names, "--redraw", "--out", str(tmp_path)]) == 1
    assert contents(tmp_path) == contents(made)
    missing = f"slow: failed: there is no {tmp_path / 'slow.csv'} to draw again"
    assert missing in capfd.readouterr().err


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
@pytest.mark.thorough  # test_files.py interrupts the writing
def test_an_interrupt_leaves_nothing_behind(sent, fakes, tmp_path) -> None:
    code = f"""
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
        sys.path.insert(0, {str(fakes)!r})
        from gradlab import cli, figures
        figures.FIGURES = {{"slow": "fake_slow"}}
        sys.argv = ["gradlab", "figures", "--out", "out"]
        sys.exit(cli.main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while run.poll() is None and not (tmp_path / "started").exists():
            time.sleep(0.05)
        run.send_signal(sent)
        try:
            _, err = run.communicate(timeout=600)
        finally:
            run.kill()
    assert run.returncode == 130
    assert err == "gradlab: interrupted\n"
    assert os.listdir(tmp_path / "out") == []

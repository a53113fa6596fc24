"""`gradlab sweep` as a user meets it: five commands from a grid to rows, figures and errors."""

import pandas as pd
import pytest

from gradlab.cli import main
from gradlab.sweep.grid import Grid
from gradlab.sweep.store import opened, sweep_rows

COMMANDS = ("plan", "run", "status", "export", "retry", "plot", "atlas")

GRID = """
problems = ["quadratic", "mlp"]
sizes = ["2x3"]
seeds = 3
estimators = ["ST", "ZGR", "DARN", "GR(k=inf)", "GS", "ARM"]
temperatures = [0.1, 0.5, 2.0]
draws = 64
"""

pytestmark = pytest.mark.usefixtures("unchecked", "kept_processes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, kept_processes):
    """A folder with a grid file and the store that `gradlab sweep run` made of it."""
    found = tmp_path_factory.mktemp("sweep")
    (found / "grid.toml").write_text(GRID)
    workers = ["--workers", "1"]
    assert main(["sweep", "run", str(found / "grid.toml"), str(found / "s.db"), *workers]) == 0
    return found


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Run a command in the folder; return its status and what it printed, as one line each."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        status = main(["sweep", *map(str, arguments)])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    assert main(["sweep", command, "--help"]) == 0
    assert f"Example:  gradlab sweep {command} " in capsys.readouterr().out


def test_a_finished_sweep_does_nothing_more(call):
    status, out, _ = call("run", "grid.toml", "s.db")
    assert status == 0
    assert out.startswith("0 cells computed")
    assert "60 were there" in out


def test_status_tells_what_is_there(call):
    status, out, _ = call("status", "s.db")
    assert status == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert lines["cells"] == "60"
    assert lines["measured"] == "54"
    assert lines["failed"] == "0"
    assert "2 problems x 1 sizes x 1 regimes x 3 seeds x 10 estimators" in lines["grid"]
    assert "not measurable  6" in out  # ARM at three classes


@pytest.mark.slow
def test_status_tells_what_failed_and_retry_mends_it(call, folder, tmp_path):
    store = tmp_path / "s.db"
    rows = sweep_rows(folder / "s.db").astype(object).to_dict("records")
    with opened(store, Grid.from_toml(folder / "grid.toml").settings) as kept:
        kept.add([rows[0] | {"error": "TimeoutError: it took longer than 1 s"}, *rows[1:]])
    status, out, _ = call("status", store)
    assert status == 0
    assert f"1 failed, such as {rows[0]['cell']}:\n  TimeoutError: it took" in out
    assert call("retry", "grid.toml", store)[0] == 0
    expected = sweep_rows(folder / "s.db").drop(columns="seconds")
    pd.testing.assert_frame_equal(sweep_rows(store).drop(columns="seconds"), expected)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_is_the_rows_in_order_and_the_same_bytes(suffix, call, folder, tmp_path):
    files = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for file in files:
        assert call("export", "s.db", file) == (0, f"{file}: 60 rows\n", "")
    assert files[0].read_bytes() == files[1].read_bytes()
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[suffix](files[0])
    expected = sweep_rows(folder / "s.db").drop(columns="seconds")
    assert list(read) == list(expected)
    assert list(read["cell"]) == list(expected["cell"])
    assert list(read["mse"].dropna()) == list(expected["mse"].dropna())
    assert list(read["draws"].dropna().unique()) == [64]


@pytest.mark.thorough  # test_smoke.py plots a sweep
def test_plot_writes_the_rows_beside_the_picture(call, tmp_path):
    chosen = ["--where", "series=ZGR", "--where", "series=GR(k=inf)"]
    status, out, _ = call("plot", "s.db", "--y", "relative_mse", *chosen, "--out", tmp_path)
    assert (status, out) == (0, f"{tmp_path / 'sweep.png'}\n")
    assert set(pd.read_csv(tmp_path / "sweep.csv")["series"]) == {"ZGR", "GR(k=inf)"}
    assert (tmp_path / "sweep.pdf").stat().st_size > 1000


@pytest.mark.thorough  # test_atlas.py, of the rows
def test_atlas_tells_its_findings(call, tmp_path):
    status, out, _ = call("atlas", "s.db", "--out", tmp_path)
    assert status == 0
    assert "ST-ZGR dominates a median of" in out
    assert set(pd.read_csv(tmp_path / "atlas.csv")["kind"]) == {"domination", "best", "left out"}
    assert (tmp_path / "atlas.png").stat().st_size > 10_000


WRONG = {
    "no grid": (["run", "none.toml", "x.db"], 2, "none.toml"),
    "wrong grid": (["plan", "wrong.toml"], 2, "did you mean 'mlp'"),
    "other grid": (["run", "other.toml", "s.db"], 1, "is of another grid: problems"),
    "address": (["run", "grid.toml", "s.db", "--scheduler", "me"], 2, "such as tcp://host:8786"),
    "a folder": (["run", "grid.toml", "."], 1, ". is a folder, not a store"),
    "no store": (["status", "none.db"], 1, "there is no file none.db"),
    "nothing to retry": (["retry", "grid.toml", "none.db"], 2, "there is no none.db"),
    "no database": (["status", "grid.toml"], 1, "grid.toml is damaged"),
    "suffix": (["export", "s.db", "rows.xls"], 2, "must end with .csv or .parquet"),
    "folder": (["export", "s.db", "nowhere/rows.csv"], 2, "nowhere"),
    "column": (["plot", "s.db", "--x", "temperature"], 2, "temperature"),
    "where": (["plot", "s.db", "--where", "ZGR"], 2, "'ZGR' is not COLUMN=VALUE"),
    "value": (["plot", "s.db", "--where", "series=GX"], 2, "no row has series=GX; there are ST"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_one_line(arguments, status, message, call, folder):
    (folder / "wrong.toml").write_text(GRID.replace('"mlp"', '"mpl"'))
    (folder / "other.toml").write_text(GRID.replace('"mlp"', '"cubic"'))
    found, out, error = call(*arguments)
    assert found == status
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert out == ""
    assert not (folder / "none.db").exists()

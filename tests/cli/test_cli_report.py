"""`gradlab report`, and `--report` of the commands that write rows."""

from pathlib import Path

import pytest

from gradlab import Grid, run_sweep
from gradlab.cli import main
from gradlab.report import html

pytestmark = pytest.mark.usefixtures("unchecked")
pytest.importorskip("vl_convert", reason="gradlab[report] is not installed")

TRAINING = ["train", "vae", "ZGR", "--latent", "2x3", "--epochs", "2", "--hidden", "8"]
MEASURED = ["--problem", "linear", "--size", "2x3", "--workers", "1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "rows.db"
    run_sweep(Grid(["linear"], ["2x3"], estimators=["ST", "ZGR"]), path, workers=1)
    return path


@pytest.mark.thorough  # test_smoke.py reports a store
def test_report_of_a_store_says_how_it_came_about(store, tmp_path, capsys):
    out = tmp_path / "new folder" / "mine.html"
    assert main(["report", str(store), "--out", str(out), "--title", "Mine <1>"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text()
    assert "<h1>Mine &lt;1&gt;</h1>" in text
    assert (
        f"gradlab report {store} --out &#x27;{out}&#x27; --title &#x27;Mine &lt;1&gt;&#x27;" in text
    )
    assert "made with" in text
    assert "torch 2" in text
    assert "makes the most progress" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.csv"], "there is no missing.csv"),
        (["rows.csv", "--out", "report.txt"], "--out: must end with .html, not report.txt"),
        (["."], "the folder . holds no .csv, .parquet or .db of gradlab"),
    ],
)
def test_bad_usage_is_one_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "lead"),
    [
        (["compare", "ST", "ZGR", *MEASURED], "makes the most progress"),
        (["recommend", "ST", "RF", *MEASURED, "--draws", "64"], "makes the most progress"),
        (["verify", "ST", *MEASURED[:4]], "ST: UNBIASED. As declared, or as asked."),
        (["bounds", "VIMCO", "LE", "--k", "2,3", *MEASURED[:4]], "At equal cost LE makes"),
        (["time", "ST", "ZGR", "--size", "2x2", "--seconds", "0.01"], "is the fastest: "),
        (["policy", "verify", "RLOO", "--size", "2x2"], "RLOO: UNBIASED. As declared"),
        (["policy", "compare", "RLOO", "GRPO", "--size", "2x2"], "RLOO has no bias for J; the "),
        pytest.param(
            [*TRAINING, "--bound-samples", "2", "--workers", "1", "--probe", "4"],
            "reaches the smallest test -ELBO",
            marks=pytest.mark.slow,  # a training starts a process
        ),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
@pytest.mark.few(1, "compare-")
def test_commands_write_a_report_into_out(words, lead, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path), "--report"]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'report.html'}\n")
    text = (tmp_path / "report.html").read_text()
    assert lead in text
    assert f"gradlab {words[0]} {words[1]} " in text
    assert "<svg" in text.partition('class="picture"')[2][:2000]
    if words[0] in ("recommend", "verify") or words[1] == "verify":
        assert "In the words of the command" in text


@pytest.mark.thorough  # test_report_of_a_store_says_how_it_came_about
def test_a_sweep_writes_a_report_too(store, tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    assert main(["sweep", "export", str(store), str(rows), "--report"]) == 0
    assert "grid" in (tmp_path / "report.html").read_text()
    plots = tmp_path / "plots"
    plot = ["sweep", "plot", str(store), "--x", "regime", "--y", "mse", "--out", str(plots)]
    assert main([*plot, "--report"]) == 0
    assert "Sweep" in (plots / "report.html").read_text()


def test_report_without_out_is_refused_before_anything_is_measured(capsys):
    assert main(["compare", "ST", "--problem", "linear", "--size", "2x3", "--report"]) == 2
    assert "--report: needs --out, the folder of report.html" in capsys.readouterr().err


@pytest.mark.thorough  # test_a_recommendation_is_reported_in_its_own_words
def test_a_folder_of_a_recommendation_is_two_sections(tmp_path):
    words = ["recommend", "ST", "RF", *MEASURED, "--draws", "64", "--out", str(tmp_path)]
    assert main(words) == 0
    text = html([tmp_path])
    assert text.count('class="report"') == 2
    assert "Who is first at other budgets" in text

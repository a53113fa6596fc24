"""`gradlab policy` as a user meets it: verdicts and status, faults, configurations, files."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gradlab.cli import main
from gradlab.cli.policy_options import TASK
from gradlab.cli.verifying import VerifyMethod
from gradlab.comparison.rows import METHODS
from gradlab.sequences.tasks import TASKS

MINE = """
import torch
import gradlab.sequences


def rloo(log_prob, old_log_prob, rewards, mask, group_size):
    r = rewards.view(-1, group_size)
    a = (r - r.mean(-1, keepdim=True)).view(-1, 1) * group_size / max(1, group_size - 1)
    return -(a * (log_prob - old_log_prob).exp() * mask).sum(-1).mean()


def centred(log_prob, old_log_prob, rewards, mask, group_size):
    r = rewards.view(-1, group_size)
    a = (r - r.mean(-1, keepdim=True)).view(-1, 1)
    return -(a * (log_prob - old_log_prob).exp() * mask).sum(-1).mean()


def ppo(log_prob, old_log_prob, advantages, mask, config):
    ratio = (log_prob - old_log_prob).exp()
    bounded = ratio.clamp(1 - config.clip_ratio, 1 + config.clip_ratio)
    a = advantages.unsqueeze(-1)
    return -(torch.min(ratio * a, bounded * a) * mask).sum(-1).mean()


def squared(log_prob, rewards, mask):
    return -((rewards - rewards.mean()).unsqueeze(-1) * (log_prob * mask) ** 3).sum()


def unmasked(log_prob, rewards):
    return -((rewards - rewards.mean()).unsqueeze(-1) * log_prob).sum(-1).mean()


def unknown(log_prob, weights):
    return (log_prob * weights).sum()


def fails(log_prob, rewards):
    return log_prob.sum() * rewards[10**6]


def raises(tokens, lengths):
    return tokens[10**6]


broken = gradlab.sequences.Task(raises, 3, 3, end=2)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["policy", *words])
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines()), default=0) <= 100
    return status, out, err


def test_options_agree_with_the_library():
    assert [*VerifyMethod] == [*METHODS]
    assert TASK in TASKS


def test_help_and_wrong_names_load_no_torch():
    code = """
        import sys
        from gradlab.cli import main
        assert main(["policy", "verify", "--help"]) == 0
        assert main(["policy", "verify", "GRPOO"]) == 2
        assert main(["policy", "compare", "RLOO", "--task", "nope"]) == 2
        assert main(["policy", "explain", "--policy", "nope"]) == 2
        assert main(["list", "policy-gradients", "choices", "tasks", "policies"]) == 0
        assert main(["cite", "GRPO"]) == 0
        assert "torch" not in sys.modules
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_cite_knows_both_that_share_a_name(capsys):
    assert main(["cite", "RLOO", "GRPO(g=8)"]) == 0
    out = capsys.readouterr().out
    assert [out.count(key) for key in ("kool2019", "ahmadian2024", "shao2024")] == [1, 1, 1]


def test_a_near_name_is_suggested(capsys):
    assert main(["cite", "GRP0"]) == 2
    assert "did you mean 'GRPO'" in capsys.readouterr().err


# ---- verify -----------------------------------------------------------------------------------


@pytest.mark.thorough  # tests/sequences/test_configurations.py
def test_published_names(capsys, tmp_path):
    status, out, err = run(capsys, "verify", "RLOO", "GRPO(g=3)", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert "RLOO on length-skewed, Tabular: UNBIASED, proved" in out
    assert "GRPO(g=3) on length-skewed, Tabular: BIASED" in out
    rows = pd.read_csv(tmp_path / "policy-verify.csv").set_index("estimator")
    assert rows["outcome"].to_dict() == {"RLOO": "UNBIASED", "GRPO(g=3)": "BIASED"}
    assert rows["target"].unique().tolist() == ["J"]
    assert main(["report", str(tmp_path / "policy-verify.csv"), "--out", f"{tmp_path}/r.html"]) == 0


def test_what_is_asked_must_hold(capsys):
    status, _, err = run(capsys, "verify", "centred(g=2)", "--target", "J", "--factor", "0.5")
    assert (status, err) == (0, "")
    status, _, err = run(capsys, "verify", "centred(g=2)", "--factor", "1")
    assert status == 1
    assert err.startswith("gradlab: not shown to be the gradient of J: centred(g=2)")


def test_a_ratio_is_exact_off_policy(capsys):
    status, out, _ = run(capsys, "verify", "IS(g=2)", "REINFORCE", "--rollout", "0.5")
    assert status == 0
    assert "IS(g=2) on length-skewed, Tabular: UNBIASED" in out
    assert "REINFORCE on length-skewed, Tabular: BIASED" in out
    status, _, err = run(capsys, "verify", "REINFORCE", "--rollout", "0.5", "--target", "J")
    assert status == 1
    assert "REINFORCE" in err


@pytest.mark.thorough  # the page shows one
@pytest.mark.usefixtures("mine")
def test_your_own_loss_that_is_right(capsys):
    status, out, err = run(capsys, "verify", "--loss", "mine.py:rloo")
    assert (status, err) == (0, "")
    assert "rloo: this is RLOO(loss=score(ratio=token))" in out
    assert "rloo on length-skewed, Tabular: UNBIASED, proved" in out


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("centred", "centred: missing G/(G - 1)"),
        ("unmasked", "unmasked: padding content changes the estimate"),
        ("squared", "not shown to be the gradient of J: squared on length-skewed"),
    ],
)
@pytest.mark.few(1)
def test_a_fault_gives_status_1(name, said, capsys):
    status, _, err = run(capsys, "verify", "--loss", f"mine.py:{name}")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert said in err


@pytest.mark.usefixtures("mine")
def test_both_names_of_the_option_and_its_settings(capsys):
    given = ["--file", "mine.py:ppo", "--set", "clip_ratio=0.3", "--advantage", "rloo"]
    status, out, _ = run(capsys, "verify", *given)
    assert status == 0
    assert "this is PPO(low=0.3, high=0.3), aggregation SUM of the advantages" in out
    assert "UNBIASED" in out


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("RLOO --task mine.py:broken", "--task mine.py:broken: it raised IndexError"),
        ("--loss mine.py:unknown", "'weights' that is not understood"),
        ("--loss mine.py:fails", "the loss raised IndexError"),
        ("RLOO --policy gru --size 30x3", "--size: length-skewed: 3 tokens and horizon 30 make"),
        ("RLOO --task brackets --size 3x4", "--size: brackets has 3 tokens, not 4"),
        ("MaxRL --target pass@2", "--task length-skewed: pass@k needs rewards 0 and 1"),
        ("", "ESTIMATOR: give one, or your own --loss"),
    ],
)
def test_a_fault_is_one_line(words, said, capsys):
    status, out, err = run(capsys, "verify", *words.split())
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


# ---- compare ----------------------------------------------------------------------------------


def test_compare_writes_rows_that_the_report_reads(capsys, tmp_path):
    words = ["compare", "RLOO", "GRPO", "--group", "3", "--task", "parity", "--out", str(tmp_path)]
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    file = tmp_path / "policy-compare.csv"
    rows = pd.read_csv(file).set_index("estimator")
    assert rows.loc["RLOO(g=3)", "bias2"] < 1e-20 < 1e-6 < rows.loc["GRPO(g=3)", "bias2"]
    assert "RLOO(g=3)" in out
    first = file.read_bytes()
    assert run(capsys, *words)[0] == 0
    assert file.read_bytes() == first
    page = tmp_path / "r.html"
    assert main(["report", str(file), "--out", str(page)]) == 0
    assert "ahmadian2024" in page.read_text()


# ---- explain ----------------------------------------------------------------------------------


def test_explain_names_causes_and_repair(capsys, tmp_path):
    words = ["--advantage", "group-std", "--aggregation", "token-mean", "--ratio", "token"]
    words += ["--clip", ".2,.28", "--kl", "k3", "--beta", ".1", "--group", "3"]
    status, out, err = run(
        capsys, "explain", *words, "--task", "length-skewed", "--out", str(tmp_path)
    )
    assert (status, err) == (0, "")
    assert out.startswith("GRPO(aggregation=TOK, loss=PPO(high=0.28), kl=k3(beta=0.1), g=3)")
    assert "Measured against: the gradient of J-KL(beta=0.1)." in out
    rows = pd.read_csv(tmp_path / "policy-explain.csv")
    on = rows[rows["rollout"].isna()].set_index("replaced")
    off = rows[rows["rollout"].notna()].set_index("replaced")
    alone = ["as it is", "advantage loo", "aggregation SUM", "kl k2(beta=0.1, per=sequence)"]
    assert list(on.index) == [*alone, "nearest unbiased"]
    assert "loss score(ratio=sequence)" in off.index
    assert on.loc["nearest unbiased", "bias2"] < 1e-20
    assert off.loc["nearest unbiased", "bias2"] < 1e-20
    assert (on.loc[alone, "bias2"] > 1e-4).all()
    assert (rows["method"] == "exact").all()


def test_explain_without_a_fault(capsys):
    status, out, _ = run(capsys, "explain", "--task", "copy")
    assert status == 0
    assert "On policy: unbiased." in out
    assert "Nearest unbiased configuration on policy: this one." in out
    assert "On policy, with one choice replaced" not in out
    assert "Off policy, with one choice replaced" in out


# ---- the page ---------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-policy-loss.md"
BOXES = re.findall(r"```sh\ngradlab ([^\n]*)\n```\n\n```text\n(.*?)```\n", PAGE.read_text(), re.S)


@pytest.mark.parametrize(("line", "shown"), BOXES, ids=[line for line, _ in BOXES])
@pytest.mark.few(1)
def test_the_page_shows_what_the_commands_print(line, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copied = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (tmp_path / "my.py").write_text("\n".join(copied))
    assert main(shlex.split(line)) == 0

    def without_rounding(text: str) -> str:  # where the numbers are rounding, so are the breaks
        return " ".join(re.sub(r"\d[.\d]*e-1\d", "rounding", text).split())

    assert without_rounding(capsys.readouterr().out) == without_rounding(shown)


def test_the_page_needs_three_commands():
    assert len(BOXES) == 3

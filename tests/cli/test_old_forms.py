"""Command lines of 0.4 in their new form, and the one line that says so."""

import pytest

from gradlab.cli import main
from gradlab.cli.old_forms import modern

OLD = {
    "compare ZGR --N 2 --C 3 --tau 1": "ZGR --tau 1 --size 2x3",
    "compare --N=2": "--size 2x?",
    "verify ST --C 2 --problem mlp": "ST --problem mlp --size ?x2",
    "verify ST --method draws --problem mlp": "ST --method monte-carlo --problem mlp",
    "verify --method=draws": "--method monte-carlo",
    "recommend my.py:loss --logits l.npy": "--loss my.py:loss --logits l.npy",
    "recommend --estimator ST --estimator GR(k=2) --seed 1": "ST GR(k=2) --seed 1",
    "time --estimator ST --batch 1": "ST --batch 1",
    "vae --compare ST,GR(tau=0.5,k=2) --seeds 2": "ST GR(tau=0.5,k=2) --seeds 2",
    "network --estimator ST --weights --lr 1": "ST --weights --lr 1",
    "list --seed 3": "",
    "time ST --variables 2,3 --classes 4,2": "ST --size 3x2,3x4,2x4",
    "time --variables 8": "--size 8x2,8x4,8x16,8x64,8x256",
    "time --classes=4,16,64 --batch 2": "--batch 2 --size 32x4,32x16,32x64,2x16,8x16,128x16,512x16",
}
NEW = (
    "recommend my.py:Mine --loss my.py:loss",
    "recommend ZGR --file my.py:Mine",
    "verify --against my.py:x",
    "list problems",
    "verify --method exact",
    "compare --method both --draws 64",
)


@pytest.mark.parametrize("line", OLD)
def test_an_old_form_is_read_as_the_new_one(line):
    command, *words = line.split()
    new, found = modern(command, words, {"--weights"})
    assert new == OLD[line].split()
    assert found


@pytest.mark.parametrize("line", NEW)
def test_a_new_form_stays(line):
    command, *words = line.split()
    assert modern(command, words) == (words, [])


def test_the_notice_is_one_line_with_the_new_command(capsys):
    assert main(["list", "problems", "--seed", "3"]) == 0
    notice = "gradlab: --seed: this old form goes in 2.0; write: gradlab list problems\n"
    assert capsys.readouterr().err == notice


@pytest.mark.usefixtures("unchecked")
def test_an_old_command_does_what_the_new_one_does(capsys):
    assert main(["compare", "ST", "--N", "2", "--C", "3"]) == 0
    old, notice = capsys.readouterr()
    assert main(["compare", "ST", "--size", "2x3"]) == 0
    assert capsys.readouterr() == (old, "")
    assert notice.count("\n") == 1

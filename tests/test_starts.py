"""What answers at once: lists, citations and faults of names load no torch."""

import json
import subprocess
import sys

import pytest

from gradlab.bounds import ESTIMATORS as BOUNDS
from gradlab.catalogue import check_estimator, check_problem, check_regime
from gradlab.estimators import ESTIMATORS, parse
from gradlab.problems import PROBLEMS, REGIMES, problem, regime

# Each command line and its exit status.
LINES = {
    "--help": 0,
    "--version": 0,
    "compare --help": 0,
    "train vae --help": 0,
    "list": 0,
    "list figures": 0,
    "cite gradlab ZGR": 0,
    "cite GR(tau=0.5,k=10)": 0,
    "cite VIMCO OVIS(gamma=1)": 0,
    "cite NOSUCH": 2,
    "bounds NOSUCH": 2,
    "bounds --help": 0,
    "verify NOSUCH": 2,
    "verify ZGR --against NOSUCH": 2,
    "compare GR(n=3)": 2,
    "compare ZGR --problem cubci": 2,
    "compare ZGR --problem cubic --regime peeked": 2,
    "recommend NOSUCH": 2,
    "recommend --reference NOSUCH": 2,
    "time NOSUCH": 2,
    "figures NOSUCH": 2,
}

# A module that is None in sys.modules cannot be imported.
RUN = """
import json, sys
blocked = ["torch", "pandas", "scipy", "matplotlib"]
sys.modules.update(dict.fromkeys(blocked))
from gradlab.cli import main
statuses = {}
for line in json.loads(sys.argv[1]):
    try:
        statuses[line] = main(line.split())
    except SystemExit as stop:
        statuses[line] = stop.code or 0
    except ImportError as error:
        statuses[line] = str(error)
print("\\n" + json.dumps(statuses))
"""


def test_names_are_judged_without_torch():
    ran = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(list(LINES))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout.splitlines()[-1]) == LINES


def test_what_needs_torch_would_be_noticed():
    line = "compare ZGR --size 2x2"
    ran = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([line])], capture_output=True, text=True, check=True
    )
    assert "halted; None in sys.modules" in json.loads(ran.stdout.splitlines()[-1])[line]


@pytest.mark.thorough  # test_names_are_judged_without_torch reads imports too
def test_the_layer_loads_no_tables():
    check = (
        "import sys, gradlab.nn; print([m for m in ('pandas', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("text", ["zgrr", "GR(n=3)", "GR(tau=1", "gumbelrao(1)", "", "RF(m=1,m=2)"])
def test_faults_of_names_read_as_those_of_the_classes(text):
    with pytest.raises(ValueError) as of_classes:  # noqa: PT011 - the texts are compared
        parse(text)
    with pytest.raises(ValueError) as of_catalogue:  # noqa: PT011
        check_estimator(text)
    assert str(of_catalogue.value) == str(of_classes.value)


def test_every_name_is_known():
    for name, cls in ESTIMATORS.items():
        for text in (name, cls.__name__, *cls.aliases, str(cls())):
            assert check_estimator(text) == name
    for name, cls in BOUNDS.items():
        for text in (name, cls.__name__, *cls.aliases, str(cls())):
            assert check_estimator(text, "bounds") == name
    for name in PROBLEMS:
        check_problem(name)
    for name in REGIMES:
        check_regime(name)


def test_faults_of_problems_and_regimes_read_as_those_of_the_functions():
    for check, function, text in (
        (check_problem, problem, "cubci"),
        (check_regime, regime, "peeked"),
    ):
        with pytest.raises(ValueError) as own:  # noqa: PT011 - the texts are compared
            function(text, 2, 2)
        with pytest.raises(ValueError) as found:  # noqa: PT011
            check(text)
        assert str(found.value) == str(own.value)

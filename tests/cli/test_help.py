"""Help texts that strangers can read, and defaults that are those of the library."""

import inspect
import re
import subprocess
import sys

import pytest

from command_tree import commands
from gradlab.bounds import compare as compare_bounds
from gradlab.cli import main
from gradlab.comparison.comparing import DEFAULT_DRAWS, compare
from gradlab.comparison.recommending import recommend
from gradlab.figures import draw
from gradlab.nn.timing import time_layers
from gradlab.plots.sweep import plot
from gradlab.report import write
from gradlab.sequences.comparing import compare as policy_compare
from gradlab.sequences.explaining import explain
from gradlab.sequences.verifying import verify as policy_verify
from gradlab.sweep.plan import plan
from gradlab.sweep.running import run_sweep
from gradlab.training.network_training import NetworkSettings
from gradlab.training.runs import Run
from gradlab.training.vae_training import VAESettings
from gradlab.verification.order import verify_order
from gradlab.verification.verifying import verify

COMMANDS = dict(commands())

# What a command calls, whose defaults are its own.
CALLED = {
    "list": [],
    "bounds": [compare_bounds],
    "compare": [compare],
    "verify": [verify, verify_order],
    "recommend": [recommend],
    "policy verify": [policy_verify],
    "policy compare": [policy_compare],
    "policy explain": [explain],
    "time": [time_layers],
    "report": [write],
    "cite": [],
    "figures": [draw],
    "train vae": [VAESettings, Run],
    "train network": [NetworkSettings, Run],
    "sweep plan": [plan],
    "sweep run": [run_sweep],
    "sweep retry": [run_sweep],
    "sweep status": [],
    "sweep export": [],
    "sweep migrate": [],
    "sweep plot": [plot],
    "sweep atlas": [],
}
# Arguments of the library that have another name, or a default that is found inside.
RENAMED = {"images": "data", "unbiased": "must_be_unbiased"}
INSIDE = {(compare, "draws"): DEFAULT_DRAWS, (compare_bounds, "k"): "2,4,8"}
# Options of the command line alone, with their defaults.
OWN = {
    "bounds": {"report": False},
    "compare": {"report": False},
    "verify": {"report": False},
    "time": {"report": False},
    "recommend": {"evaluations": 8, "measure_cost": False, "report": False},
    "policy verify": {"task": "length-skewed", "policy": "tabular", "report": False},
    "policy compare": {"task": "length-skewed", "policy": "tabular", "report": False},
    "policy explain": {"policy": "tabular", "rollout": "0.3", "reference": "0.5", "report": False},
    "report": {"out": "report.html"},
    "train vae": {"seeds": 1, "probe_seconds": 600, "out": "runs/vae", "report": False},
    "train network": {"seeds": 1, "out": "runs/network", "report": False},
    "sweep export": {"seconds": False, "report": False},
    "sweep plot": {"name": "sweep", "out": "figures", "report": False},
    "sweep atlas": {"out": "figures"},
}

DEFAULTS = [
    (name, parameter.name, parameter.default)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.default not in (None, ()) and parameter.name != "help"
]


@pytest.mark.parametrize(
    ("name", "parameter", "default"), DEFAULTS, ids=[f"{d[0]} {d[1]}" for d in DEFAULTS]
)
@pytest.mark.few(40)
def test_a_default_is_that_of_the_library(name, parameter, default):
    if parameter in OWN.get(name, {}):
        assert str(default) == str(OWN[name][parameter])
        return
    wanted = RENAMED.get(parameter, parameter)
    found = [
        INSIDE.get((function, wanted), inspect.signature(function).parameters[wanted].default)
        for function in CALLED[name][: 1 if parameter in RENAMED else None]
        if wanted in inspect.signature(function).parameters
    ]
    assert found, "an option of the command line alone: give it a row in OWN"
    for value in found:
        same = default if isinstance(default, type(value)) else type(value)(default)
        assert value == same


def test_the_tables_know_the_commands():
    assert CALLED.keys() == COMMANDS.keys()
    assert OWN.keys() <= COMMANDS.keys()
    for name, own in OWN.items():
        assert own.keys() <= {parameter.name for parameter in COMMANDS[name].params}


# ---- help texts -------------------------------------------------------------------------------

PARAMETERS = [
    (name, parameter.name, parameter.help or "")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.name != "help"
]


@pytest.mark.parametrize(
    ("name", "parameter", "text"), PARAMETERS, ids=[f"{p[0]} {p[1]}" for p in PARAMETERS]
)
@pytest.mark.few(70)
def test_a_help_text_says_what_the_option_does(name, parameter, text):
    said = text.partition("  [default")[0]
    assert re.match(r"[A-Z]", said), "it begins with its subject"
    assert said.endswith((".", "?")), "it is a sentence"
    assert len(said.split()) >= 4, "it says enough"
    assert not re.match(r"(Of|Also|Where|Such|Only|As|A|The|What to) ", said), "it has a subject"
    assert not re.search(r"\b(told|anew|anyhow)\b|\bis no\b|one's own", said), "plain English"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_calls_it(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    examples = re.findall(r"(?m)^ +Example:  (.*)$", shown)
    assert examples
    assert all(example.startswith(f"gradlab {name}") for example in examples)
    assert all(len(line) <= 100 for line in shown.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_has_options_that_there_are(name, capsys):
    main([*name.split(), "--help"])
    known = {o for p in COMMANDS[name].params for o in [*p.opts, *p.secondary_opts]}
    for example in re.findall(r"(?m)^ +Example:  (.*)$", capsys.readouterr().out):
        assert set(re.findall(r"--[\w-]+", example)) <= known


def test_the_short_help_of_every_command_is_a_sentence():
    for command in COMMANDS.values():
        assert re.match(r"[A-Z].*[.?]$", command.get_short_help_str(200))


def test_help_loads_no_torch():
    code = "import sys; from gradlab.cli import main; main(['compare', '--help'])"
    code += "; assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

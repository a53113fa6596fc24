"""Public names document each argument by name, and public verbs show an example."""

import dataclasses
import importlib
import inspect

import pytest

import gradlab

DOORS = [
    "gradlab",
    *(
        f"gradlab.{room}"
        for room in (
            *("categorical", "citations", "comparison", "data", "draw_sums", "estimators"),
            *("loss", "moments", "montecarlo", "nn", "problems", "reproducible", "samples"),
            *("plot", "testing", "user_code", "verification"),
            *("nn.clocks", "nn.device", "nn.quantization", "nn.schedule", "nn.timing"),
            *("plots.axes", "plots.comparison", "plots.curves", "plots.files", "plots.hues"),
            *(
                "plots.bounds",
                "plots.budget",
                "plots.panels",
                "plots.quantities",
                "plots.temperature",
            ),
            *(
                "plots.temperature",
                "plots.names",
                "plots.probe",
                "plots.recommendation",
                "plots.style",
            ),
            *("plots.sweep", "plots.sweep_points", "plots.timing", "plots.training"),
            *("plots.verdicts", "comparison.dominance", "comparison.ranking"),
            *("report", "report.best", "report.charts", "report.judged", "report.looks"),
            *("report.markup", "report.measured", "report.document", "report.pictures"),
            *("report.origin", "report.ranked", "report.reduction", "report.scales"),
            *("report.sections", "report.sources", "report.tables", "report.trained"),
            *("report.dots", "report.layers", "report.theory", "report.timed"),
            "comparison.averaging",
            *("sequences", "sequences.automaton", "sequences.drawing", "sequences.enumerated"),
            *("sequences.faults", "sequences.moments", "sequences.policies", "sequences.targets"),
            *("sequences.task", "sequences.tasks", "sequences.verifying"),
            *("sequences.advantages", "sequences.aggregation", "sequences.argument_names"),
            *("sequences.catalogue", "sequences.choices", "sequences.claims"),
            *("sequences.difficulty", "sequences.faulty_advantages", "sequences.group"),
            *("sequences.invariances", "sequences.kl_terms", "sequences.loss_match"),
            *("sequences.loss_parts", "sequences.loss_report", "sequences.normalized_advantages"),
            *("sequences.own_loss", "sequences.own_moments", "sequences.policy_gradient"),
            *("sequences.ratios", "sequences.sequence_losses", "sequences.success_advantages"),
            *("sequences.planted_losses", "sequences.random_batches", "sequences.tokens"),
            *("sequences.loss_calls", "sequences.loss_checks", "sequences.loss_responses"),
            *("sequences.selected_losses", "sequences.shrunk_advantages"),
            *("sequences.success_targets", "sequences.trainer_method"),
            *("bounds", "bounds.comparing", "bounds.log_sums", "bounds.moments"),
            *("bounds.registry", "bounds.samples", "bounds.states", "bounds.truth"),
            "bounds.verifying",
            *("sweep.axes", "sweep.cells", "sweep.crew", "sweep.grid", "sweep.isolation"),
            *("sweep.plan", "sweep.running", "sweep.size", "sweep.store"),
            *("training.base", "training.checkpoint", "training.loop", "training.networks"),
            *("training.network_training", "training.runs", "training.vae"),
            "training.vae_training",
        )
    ),
]

# Verbs without an example of their own.
NO_EXAMPLE = {
    "assert_exact_to_degree": "takes the place of a test",
    "assert_unbiased": "takes the place of a test",
    "checked": "an inner gate: `evaluate` has the example",
    "cluster": "needs a running dask scheduler",
    "ranking": "of rows with a cost: `recommend` has the example",
    "local": "starts workers: `run_sweep` has the example",
    "compute": "starts a process: `run_sweep` has the example",
    "computed": "runs in a worker: `run_sweep` has the example",
    "blank_row": "a row of a sweep: `sweep_rows` has the example",
    "estimator_of": "in a worker, by the cell of a sweep",
    "end_process": "ends a process of the calling thread",
    "refused": "of a task: `plan` has the example",
    "points": "of a figure: `plot` has the example",
    "save_again": "draws a committed figure again: `save` has the example",
    "save_with_rows": "writes a committed figure: `save` has the example",
    "draw_median": "draws on a panel that a figure makes",
    "draw_measured": "draws on a panel that a figure makes",
    "draw_curves": "draws on a panel that a figure makes",
    "draw_planted": "draws on a panel that a figure makes",
    "draw_bounds": "draws on a panel that a figure makes",
    "draw_budget": "draws on a panel that a figure makes",
    "draw_temperature": "draws on a panel that a figure makes",
    "write_apart": "draws on a panel that a figure makes",
    "draw_probed": "draws on a panel that a figure makes",
    "draw_reached": "draws on a panel that a figure makes",
    "draw_verdicts": "draws on a panel that a figure makes",
    "name_zeros": "draws on a panel that a figure makes",
}


def public_things() -> dict[str, object]:
    """Return functions and classes by their full names, each once."""
    found = {}
    for door in DOORS:
        module = importlib.import_module(door)
        for name in module.__all__:
            thing = getattr(module, name)
            # An abstract name, such as an alias of a type, has no arguments.
            if inspect.isfunction(thing) or inspect.isclass(thing):
                found[f"{thing.__module__}.{name}"] = thing
    return found


def arguments(thing: object) -> list[str]:
    """Return the names of the arguments that a caller gives."""
    if inspect.isclass(thing):
        is_plain = "__init__" not in vars(thing) and not dataclasses.is_dataclass(thing)
        if is_plain or inspect.isabstract(thing) or issubclass(thing, BaseException):
            return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(thing).parameters.items()
        if parameter.kind not in kinds and name != "self"
    ]


# Names of problems are fields that no caller gives: `kind` decides them.
GIVEN_BY_NOBODY = {"name"}

THINGS = public_things()
named = pytest.mark.parametrize("full", sorted(THINGS))


def short(full: str) -> str:
    return full.rpartition(".")[2]


@named
@pytest.mark.few(120)
def test_each_argument_of_a_public_name_is_described(full):
    thing = THINGS[full]
    doc = inspect.cleandoc(thing.__doc__ or "")
    sections = doc.partition("\nArgs:\n")[2] or doc.partition("\nAttributes:\n")[2]
    described = {line.split(":")[0].strip() for line in sections.splitlines() if ":" in line}
    hidden = GIVEN_BY_NOBODY if "gradlab.problems" in full else set()
    assert set(arguments(thing)) - described - hidden == set()


@named
@pytest.mark.few(120)
def test_each_public_verb_has_an_example(full):
    thing = THINGS[full]
    if inspect.isfunction(thing) and short(full) not in NO_EXAMPLE:
        assert ">>> " in (thing.__doc__ or "")


def test_exceptions_are_names_that_exist():
    assert set(NO_EXAMPLE) <= {short(full) for full in THINGS}


def test_a_name_without_sections_would_be_seen():
    def bare(tau: float) -> None:
        """Return nothing."""

    assert arguments(bare) == ["tau"]
    assert gradlab.Moments in THINGS.values()

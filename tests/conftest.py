"""What all tests share: one thread, and calls without the checks of shapes and types."""

import gc
import os
import signal

import jaxtyping
import pytest
import torch

from tiers import spare

# Shapes and types are checked in tests only, where there are tensors, and in .ci/run: they take a
# fifth of the time. An int passes where a float is asked for.
if os.environ.get("GRADLAB_CHECK_SHAPES"):
    jaxtyping.install_import_hook(
        [
            f"gradlab.{part}"
            for part in (
                "bounds",
                "categorical",
                "estimators",
                "exact",
                "figures.depth",
                "figures.toys",
                "loss.adapted",
                "loss.contract",
                "moments",
                "montecarlo",
                "nn.probe",
                "nn.quantization",
                "nn.schedule",
                "sequences.advantages",
                "sequences.aggregation",
                "sequences.drawing",
                "sequences.enumerated",
                "sequences.finite_states",
                "sequences.group",
                "sequences.held",
                "sequences.kl_terms",
                "sequences.moments",
                "sequences.multisets",
                "sequences.normalized_advantages",
                "sequences.policies",
                "sequences.ratios",
                "sequences.sequence_losses",
                "sequences.success_advantages",
                "sequences.tables",
                "sequences.targets",
                "sequences.tokens",
                "sequences.tree",
                "sequences.truth",
                "training",
            )
        ],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )

# Tables follow the width of the terminal, which is another one on each machine.
os.environ["COLUMNS"] = "100"

# The tests run in parallel processes; more threads would wait for each other.
torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep the garbage collector from what is imported and collected: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what `make test` leaves out of large tables, before marks choose the tests."""
    spare(items)


@pytest.fixture
def unchecked(monkeypatch):
    """Turn off the jaxtyping checks, which only tests have: to see what users see, or for speed."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def few_calls(request, monkeypatch):
    """Ask by few calls whether your own code draws replicates, in all tests that are not slow.

    The 640 calls of the full check cost more than most trials. tests/user_code/test_replicates.py
    and the slow tests make all of them.
    """
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("gradlab.user_code.replicates._SMALL", (16,))


@pytest.fixture(scope="module")
def kept_processes():
    """Let the sweeps of a file use the processes that others left."""
    from kept_processes import kept_processes

    with kept_processes():
        yield


@pytest.fixture
def interruptible():
    """Let SIGINT arrive also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

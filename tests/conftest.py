"""What all tests share: one thread, and calls without the checks of shapes and types."""

import gc
import signal

import jaxtyping
import pytest
import torch

# Shapes and types are checked in tests only, and where there are tensors; an int passes where a
# float is asked for.
jaxtyping.install_import_hook(
    [
        f"gradlab.{part}"
        for part in (
            "categorical",
            "estimators",
            "exact",
            "gumbel_jacobian",
            "loss",
            "moments",
            "montecarlo",
            "training",
        )
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

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


@pytest.fixture
def unchecked(monkeypatch):
    """Turn off the jaxtyping checks, which only tests have: to see what users see, or for speed."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def interruptible():
    """Let SIGINT arrive also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

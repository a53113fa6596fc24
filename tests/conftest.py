"""What all tests share: one thread, and calls without the checks of shapes and types."""

import signal

import jaxtyping
import pytest
import torch

# The tests run in parallel processes; more threads would wait for each other.
torch.set_num_threads(1)


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

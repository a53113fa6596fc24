"""Training runs: resumed exactly after any interruption, stopped with a reason, never broken."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from functools import cache

import pandas as pd
import pytest
import torch
from filelock import FileLock

from gradlab.data.datasets import load_images
from gradlab.training import checkpoint, loop
from gradlab.training.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from gradlab.training.loop import CHECKPOINT, TrainingError, train
from gradlab.training.vae_training import VAESettings, VAETraining

pytestmark = pytest.mark.usefixtures("interruptible")

SMALL = {"latent": "3x3", "epochs": 3, "hidden": 8, "lr": 1e-2, "bound_samples": 2}


def begun(**settings):
    return VAETraining(VAESettings(**(SMALL | settings)), load_images("digits"))


def assert_same(curve, training, other_curve, other):
    pd.testing.assert_frame_equal(
        curve.drop(columns="seconds"), other_curve.drop(columns="seconds"), check_exact=True
    )
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name


def interrupting(at):
    def after_step(step):
        if step == at:
            signal.raise_signal(signal.SIGINT)

    return after_step


@cache
def uninterrupted(estimator):
    straight = begun(estimator=estimator)
    return train(straight), straight


# Within an epoch, at its end, and within the last one: for a rule without state and one with it.
@pytest.mark.parametrize(
    ("estimator", "at"),
    [
        *itertools.product(["ZGR", "EMA"], [1, 4, 7]),
        *(("GR(k=3)", 4), ("RF(m=2)", 4), ("LEARNED", 4)),
    ],
)
@pytest.mark.few(1)
def test_an_interrupted_run_goes_on_exactly(estimator, at, tmp_path, unchecked):
    curve, straight = uninterrupted(estimator)
    with pytest.raises(KeyboardInterrupt):
        train(begun(estimator=estimator), tmp_path, after_step=interrupting(at))
    assert read_checkpoint(tmp_path / CHECKPOINT)["step"] == at + 1
    resumed = begun(estimator=estimator)
    assert_same(train(resumed, tmp_path), resumed, curve, straight)


def test_a_second_interrupt_is_obeyed_at_once(tmp_path):
    def twice(step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(begun(), tmp_path, after_step=twice)
    assert not (tmp_path / CHECKPOINT).exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_can_be_made_longer(tmp_path):
    straight = begun(epochs=3)
    curve = train(straight)
    train(begun(epochs=2), tmp_path)
    longer = begun(epochs=3)
    found = train(longer, tmp_path)
    # The bound of what was the last epoch stays.
    assert not math.isnan(found["test_bound"].iloc[1])
    bound = ["test_bound", "test_bound_se"]
    assert_same(found.drop(columns=bound), longer, curve.drop(columns=bound), straight)


def test_a_finished_run_does_nothing_more(tmp_path):
    first = begun()
    curve = train(first, tmp_path)
    written = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    again = begun()
    found = train(again, tmp_path, after_step=lambda step: pytest.fail("a step was done"))
    assert_same(found, again, curve, first)
    assert list(found["seconds"]) == list(curve["seconds"])
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == written


KILLED = """
import sys
from pathlib import Path
from gradlab.data.datasets import load_images
from gradlab.training.loop import train
from gradlab.training.vae_training import VAESettings, VAETraining
settings = VAESettings(latent="3x3", epochs=100_000, hidden=8, lr=1e-2, bound_samples=2)
train(VAETraining(settings, load_images("digits")), Path(sys.argv[1]), save_seconds=0)
"""


@pytest.mark.slow
def test_after_kill_9_a_whole_state_is_there_and_goes_on_exactly(tmp_path, unchecked):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 600
    while not (tmp_path / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.123)  # into the middle of a step or of writing
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = read_checkpoint(tmp_path / CHECKPOINT)
    epochs = state["step"] // 4 + 2
    assert 1 <= state["step"] < 400_000
    resumed, straight = begun(epochs=epochs), begun(epochs=epochs)
    found = train(resumed, tmp_path)
    assert_same(found, resumed, train(straight), straight)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(TrainingError) as stopped:
        train(begun(lr=1e30, epochs=20), tmp_path)
    message = str(stopped.value)
    saved = next(tmp_path.glob("stopped-at-step-*.pt"))
    step = read_checkpoint(saved)["step"]
    assert f"at step {step} with ZGR, seed 0, data digits" in message
    assert str(saved) in message
    assert 0 < step < 80


def test_a_gradient_that_is_not_finite_stops_the_run():
    training = begun()
    bias = training.model.decoder[-1].bias
    bias.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingError, match="the gradient norm is nan at step 0 with ZGR, seed 0"):
        train(training)


@pytest.mark.parametrize("damage", ["half", "flipped", "text", "empty"])
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    train(begun(), tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    place = whole.index(b"data/0") + 200  # inside the first tensor
    flipped = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    damaged = {"half": whole[: len(whole) // 2], "flipped": flipped, "text": b"no", "empty": b""}
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError, match=r"is damaged or is not a checkpoint .* remove it"):
        train(begun(), tmp_path)
    assert path.read_bytes() == damaged[damage]


def test_a_checkpoint_is_data_only(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"step": Bad()}, tmp_path / CHECKPOINT)
    with pytest.raises(Exception, match=r"[Ww]eights.?only"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"step": 3}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="is not a checkpoint of a training"):
        train(begun(), tmp_path)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"latent": "4x3"}, "latent = '3x3' there, '4x3' here"),
        ({"estimator": "ST"}, "estimator = 'ZGR' there, 'ST' here"),
        ({"seed": 5, "lr": 1e-3}, "seed = 0 there, 5 here; lr = 0.01 there, 0.001 here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(settings, named, tmp_path):
    train(begun(epochs=1), tmp_path)
    with pytest.raises(CheckpointError, match="is of another configuration") as refused:
        train(begun(epochs=1, **settings), tmp_path)
    assert named in str(refused.value)


def test_a_setting_that_a_checkpoint_lacks_had_its_default(tmp_path):
    train(begun(epochs=1), tmp_path)
    state = read_checkpoint(tmp_path / loop.CHECKPOINT)
    del state["settings"]["batch"]
    write_checkpoint(state, tmp_path / loop.CHECKPOINT)
    train(begun(epochs=1), tmp_path)
    with pytest.raises(CheckpointError, match="batch = 50 there, 60 here"):
        train(begun(epochs=1, batch=60), tmp_path)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "__version__", "0.10.0")
    train(begun(epochs=1), tmp_path)
    monkeypatch.setattr(loop, "__version__", "0.9.1")
    with pytest.raises(
        CheckpointError, match=r"was written by gradlab 0\.10\.0, this is the older"
    ):
        train(begun(epochs=1), tmp_path)


def test_a_checkpoint_of_an_older_version_is_continued_and_rows_say_so(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "__version__", "0.9.1")
    train(begun(epochs=1), tmp_path)
    monkeypatch.setattr(loop, "__version__", "0.10.0")
    rows = train(begun(epochs=1), tmp_path)
    assert set(rows["version"]) == {"0.9.1, 0.10.0"}
    assert "was written by gradlab 0.9.1; this is 0.10.0, which continues it" in (
        capsys.readouterr().err
    )


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(OSError, match="another process is training in"),
    ):
        train(begun(epochs=1), tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    write_checkpoint({"step": 1}, path)

    def fill_the_disk(state, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", fill_the_disk)
    with pytest.raises(OSError, match=r"checkpoint.pt cannot be written: .*No space left"):
        write_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert read_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(begun(epochs=1), tmp_path / "file")


def test_checkpoints_hold_checksums(tmp_path):
    path = tmp_path / CHECKPOINT
    write_checkpoint({"weight": torch.ones(5)}, path)
    with zipfile.ZipFile(path) as archive:
        assert all(member.CRC for member in archive.infolist() if member.file_size)

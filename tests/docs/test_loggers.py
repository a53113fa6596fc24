"""The recipes of docs/how-to/loggers.md run as they stand, with the packages that are there."""

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gradlab import GradientProbe

pytestmark = pytest.mark.usefixtures("unchecked")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "loggers.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


def recipe(package: str) -> dict[str, Any]:
    """Run the code of the page that imports the package, and return what it defines."""
    (code,) = [code for code in CODE if re.search(rf"^(import|from) {package}\b", code, re.M)]
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def installed(package: str) -> Any:
    return pytest.importorskip(package, reason=f"{package} is not installed; it is optional")


class Model(torch.nn.Module):
    """Logits of two variables of three classes, and a quadratic loss of each element."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(4, 6)

    def loss_and_logits(self, batch):
        return lambda x: (x * torch.arange(3.0)).sum((-2, -1)) ** 2, self.logits(batch)

    def logits(self, batch):
        return self.encoder(batch).unflatten(-1, (2, 3))

    def loss(self, batch):
        return self.logits(batch).softmax(-1).square().sum()


class Scalars:
    def __init__(self):
        self.written = []

    def add_scalar(self, tag, value, step):
        self.written.append((tag, value, step))


def test_every_package_of_the_page_has_a_test():
    packages = {name for code in CODE for name in re.findall(r"^(?:import|from) (\w+)", code, re.M)}
    assert packages - {"torch", "gradlab"} == {"wandb", "lightning", "transformers"}


def test_tensorboard(tmp_path, monkeypatch):
    installed("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    (code,) = [code for code in CODE if "SummaryWriter" in code]
    names: dict[str, Any] = {}
    exec(code + "\nprobe._writers[0].logger.close()", names)
    events = EventAccumulator(str(tmp_path / "runs" / "vae"))
    events.Reload()
    rows = names["probe"].rows.set_index(["estimator", "step"])
    for text in ("ST", "ZGR"):
        found = {e.step: e.value for e in events.Scalars(f"gradlab/relative_bias/{text}")}
        assert found == pytest.approx(rows.loc[text, "relative_bias"].to_dict(), abs=1e-7)
        assert set(found) == {0, 100}


def test_wandb_as_the_page_calls_it(monkeypatch):
    written = []
    run = SimpleNamespace(log=lambda values, step: written.append((step, values)))
    fake = SimpleNamespace(init=lambda project: run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    probe = recipe("wandb")["probe"]
    f, logits = Model().loss_and_logits(torch.zeros(2, 4))
    probe(100, f, logits)
    ((step, values),) = written
    assert step == 100
    assert math.isfinite(values["gradlab/cosine/ZGR"])


def test_lightning(tmp_path):
    lightning = installed("lightning")

    class Module(Model, lightning.LightningModule):
        def training_step(self, batch, _):
            return self.loss(batch[0])

        def loss_and_logits(self, batch):
            return super().loss_and_logits(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.TensorDataset(torch.randn(20, 4))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    writer, probe = Scalars(), GradientProbe(["ST", "ZGR"], every=2)
    callback = recipe("lightning")["ProbeCallback"](probe)
    logger = lightning.pytorch.loggers.CSVLogger(tmp_path)
    logger.__dict__["_experiment"] = writer
    writer.save = writer.log_metrics = writer.log_hparams = lambda *_, **__: None
    trainer = lightning.Trainer(
        max_epochs=1,
        callbacks=[callback],
        logger=logger,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), loader)
    assert probe.rows["step"].tolist() == [0, 0, 2, 2, 4, 4]
    assert {step for _, _, step in writer.written} == {0, 2, 4}
    path = tmp_path / "saved.ckpt"
    trainer.save_checkpoint(path)
    again = GradientProbe(["ST", "ZGR"], every=2)
    state = torch.load(path, weights_only=False)["callbacks"]
    recipe("lightning")["ProbeCallback"](again).load_state_dict(state["ProbeCallback"])
    assert again.rows.equals(probe.rows)


def test_hugging_face(tmp_path):
    transformers = installed("transformers")
    installed("accelerate")

    class Trained(Model):
        def forward(self, batch):
            return {"loss": self.loss(batch)}

    writer, probe = Scalars(), GradientProbe(["ST", "ZGR"], every=2)
    probe.log_to(writer)
    kept = torch.randn(3, 4)
    callback = recipe("transformers")["ProbeTrainerCallback"](probe, kept)
    options = {"max_steps": 5, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), disable_tqdm=True, save_strategy="no", **options
    )
    data = [{"batch": row} for row in torch.randn(20, 4)]
    transformers.Trainer(Trained(), arguments, train_dataset=data, callbacks=[callback]).train()
    assert probe.rows["step"].tolist() == [0, 0, 2, 2, 4, 4]
    assert set(probe.rows["batch"]) == {3}
    assert {step for _, _, step in writer.written} == {0, 2, 4}

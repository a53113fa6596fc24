"""One optimizer step against a loop written by hand in plain torch, with equal losses.

A probe that enumerates is held to a fifth of the time of the training, as it sweeps the states of
ten images one after the other. One that draws has no target: its reference decodes 40 images in
each of up to 8,192 draws, as many as thousands of steps, and fewer would measure no bias.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmarks.ratios import Ratio, measure_all
from gradlab.data import load_images
from gradlab.nn.probe import GradientProbe
from gradlab.reproducible import block_generator
from gradlab.training.base import Training
from gradlab.training.loop import _Run
from gradlab.training.network_training import NetworkSettings
from gradlab.training.runs import begin
from gradlab.training.vae_training import PROBED, VAESettings, VAETraining

__all__ = ["plain_network", "plain_vae", "run"]

Step = Callable[[], float]


def run(seconds: float = 6.0) -> Iterator[Ratio]:
    """Yield the ratios: steps of gradlab over plain ones, and what a probe adds."""
    images = load_images("digits")
    cases: tuple[tuple[str, Any, Callable[[Any], Step]], ...] = (
        ("VAE, 30x10", VAESettings("ZGR"), plain_vae),
        ("quantized network, 2 levels", NetworkSettings("ZGR"), plain_network),
    )
    for name, settings, plain in cases:
        training = begin(settings, images)
        by_hand, ours = plain(training), _steps(training)
        for number in range(20):
            loss, other = ours(), by_hand()
            assert math.isclose(loss, other, rel_tol=1e-4), (name, number, loss, other)
        times = measure_all({"ours": ours, "by hand": by_hand}, seconds)
        yield Ratio(f"step of the {name}, ZGR", times["ours"] / times["by hand"], 1.15)
    yield from _with_probe(VAESettings("ZGR", latent="3x4"), 1.2)
    yield from _with_probe(VAESettings("ZGR"), None)


def _steps(training: Training) -> Step:
    """Return what does one step of a training as `gradlab.training.loop.train` does it."""
    done = _Run(training, None)
    training.model.train()

    def step() -> float:
        before = done.total_loss
        done.do_step()
        return done.total_loss - before

    return step


def _with_probe(settings: VAESettings, target: float | None) -> Iterator[Ratio]:
    """Yield the time of steps with a probe of ZGR at its default cadence over that without."""
    training = begin(settings, load_images("digits"))
    assert isinstance(training, VAETraining)
    step, probe = _steps(training), GradientProbe([settings.estimator])
    step()
    pixels = training.data.binarized(training._pixels[:PROBED], torch.Generator().manual_seed(0))
    logits = training.model.encode(pixels)
    f = training.model.reconstruction(pixels)
    times = measure_all({"probe": lambda: probe(0, f, logits), "step": step}, 2.0)
    steps = times["probe"] / times["step"]
    what = f"VAE, {settings.latent}, with a probe"
    yield Ratio(f"{what} every {probe.every} steps", 1 + steps / probe.every, target)
    yield Ratio(f"{what}: steps between two probes for a tenth of the time", 10 * steps, unit="")


class _ZGR(torch.autograd.Function):
    """x by inverting the cumulated probabilities, and ZGR's product; see ICML 2023 (PMLR 202)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, source: Generator) -> Tensor:
        p = logits.softmax(-1)
        cumulated = p.cumsum(-1, dtype=torch.float64)
        u = torch.rand([*p.shape[:-1], 1], generator=source, dtype=torch.float64)
        k = (cumulated <= u * cumulated[..., -1:]).sum(-1)
        x = F.one_hot(k, p.shape[-1]).to(p.dtype)
        ctx.save_for_backward(p, x)
        return x

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        p, x = ctx.saved_tensors
        at_x = (x * v).sum(-1, keepdim=True)
        return 0.5 * (p * (v - at_x) + x * (at_x - (p * v).sum(-1, keepdim=True))), None


def plain_vae(training: VAETraining) -> Step:
    """Return one step of the loop that a user writes for this VAE, from the same start.

    Args:
        training: A training before its first step, whose weights, order and seed are taken.

    Returns:
        A function that does the next step and returns its loss.
    """
    settings, images = training.settings, training._pixels
    model = copy.deepcopy(training.model)
    encoder, decoder, mean = model.encoder, model.decoder, model.mean
    shape, binary = model.shape, training.data.binary

    def loss_of(chosen: Tensor, source: Generator) -> Tensor:
        batch = images[chosen]
        batch = batch if binary else torch.bernoulli(batch, generator=source)
        logits = encoder(batch - mean).unflatten(-1, shape)
        pixels = decoder(_ZGR.apply(logits, source).flatten(-2))
        log_q = logits.log_softmax(-1)
        divergence = (log_q.exp() * log_q).sum((-2, -1)) + shape[0] * math.log(shape[1])
        return ((F.softplus(pixels) - batch * pixels).sum(-1) + divergence).mean()

    return _loop("vae", model, settings, len(images), loss_of)


def plain_network(training: Any) -> Step:
    """Return one step of the loop that a user writes for this quantized perceptron.

    Args:
        training: A training before its first step, whose weights, order and seed are taken.

    Returns:
        A function that does the next step and returns its loss.
    """
    images, labels = training._pixels["train"], training.labels["train"]
    layers = copy.deepcopy(training.model.layers)
    first, second, last = (layers[i].weight for i in (0, 3, 6))
    norms, bias, levels = (layers[1], layers[4]), layers[6].bias, torch.tensor([-1.0, 1.0])

    def loss_of(chosen: Tensor, source: Generator) -> Tensor:
        h = 2 * images[chosen] - 1
        for weight, norm in zip((first, second), norms, strict=True):
            a = norm(F.linear(h, weight))
            h = _ZGR.apply(torch.stack([-a, a], -1), source) @ levels
        return F.cross_entropy(F.linear(h, last, bias), labels[chosen])

    return _loop("network", layers.train(), training.settings, len(images), loss_of)


def _loop(
    kind: str,
    model: nn.Module,
    settings: Any,
    images: int,
    loss_of: Callable[[Tensor, Generator], Tensor],
) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    per_epoch, size = math.ceil(images / settings.batch), settings.batch
    done, order = 0, torch.empty(0)

    def step() -> float:
        nonlocal done, order
        epoch, number = divmod(done, per_epoch)
        if number == 0:
            order = torch.randperm(
                images, generator=block_generator(settings.seed, f"{kind} epoch", epoch)
            )
        source = block_generator(settings.seed, f"{kind} step", done)
        optimizer.zero_grad()
        loss = loss_of(order[number * size : (number + 1) * size], source)
        loss.backward()
        optimizer.step()
        done += 1
        return loss.item()

    return step

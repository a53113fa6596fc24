"""`CategoricalLayer`: an estimator as a torch module, from logits to a sample or its embedding.

What it works with, each "yes" a test of this module (tests/nn/test_layer.py reads the table):

| used with | ST, DARN, ZGR, ST-ZGR | GS, GS-ST, GR(k) | GR(k=inf) |
|---|---|---|---|
| batch dimensions, none to three | yes | yes | yes |
| masked classes (-inf) | yes | yes | yes |
| one class | yes | yes | yes |
| 16,384 classes, memory O(C) | yes | yes | no: tables of C^3 |
| logits in half precision: sample in it, product in float32 | yes | yes | yes |
| autocast to bfloat16 | yes | yes | yes |
| torch.compile of a model around it, one graph break | yes | yes | yes |
| torch.func.vmap of grad, no generator | yes | yes | no: tables |
| deepcopy, pickle, state_dict | yes | yes | yes |
| CUDA, where there is one | yes | yes | yes |
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gradlab.categorical import check_logits, draw_one_hot, one_hot, probabilities
from gradlab.checks import check_choice
from gradlab.estimators import Estimator, PathwiseEstimator, parse
from gradlab.estimators.structured import StructureEstimator

__all__ = ["CategoricalLayer", "Embedding", "Evaluation"]


class Embedding(StrEnum):
    """What a sample becomes: one-hot [..., N, C], or one number for each variable, [..., N].

    Attributes:
        one_hot: The sample itself, [..., N, C].
        signs: -1 for class 0 and +1 for class 1 of binary variables.
        levels: The number of the class, 0 to C - 1.
        unit: C equally spaced levels from 0 to 1.
    """

    one_hot = "one-hot"
    signs = "signs"
    levels = "levels"
    unit = "unit"


class Evaluation(StrEnum):
    """What a layer in eval mode returns instead of the estimator's sample.

    Gradients flow through the mean only.

    Attributes:
        sample: A one-hot draw of x.
        mode: The most probable class; where several are, the first.
        mean: The probabilities.
    """

    sample = "sample"
    mode = "mode"
    mean = "mean"


class CategoricalLayer(nn.Module):
    """A stochastic layer from logits [..., N, C] to a sample, with an estimator's backward.

    In training mode the layer returns the estimator's own sample, which is relaxed for GS. In eval
    mode it returns what `evaluation` says, for every estimator alike. The number embeddings are
    linear in x, so their gradient goes through the same product. The result has the dtype of the
    logits.

    The number of calls of `step` is saved in the state_dict, which fits layers with and without a
    schedule; the generator is not saved. Under torch.compile the layer itself runs as it is,
    between the compiled parts before and after it. Such a break leaves the loop of an nn.Sequential
    uncompiled: compile the parts, or write a forward.

    Args:
        estimator: An estimator with a sample, or its text such as "ZGR".
        embedding: What a sample becomes: "one-hot", "signs", "levels" or "unit", see `Embedding`.
        evaluation: What eval mode returns: "sample", "mode" or "mean", see `Evaluation`.
        schedule: A function from the number of calls of `step` to the temperature, such as those of
            `gradlab.nn.schedule`; None keeps the temperature of the estimator.
        generator: The source of all samples; torch's global generator by default.

    Raises:
        ValueError: If the estimator has no sample, if a schedule is given for one without a
            temperature, or, in the call, if the logits do not suit the embedding.

    Example:
        >>> import torch
        >>> layer = CategoricalLayer("ZGR", generator=torch.Generator().manual_seed(0))
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> x = layer(logits)
        >>> x.tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
        >>> (x * torch.arange(3.0)).sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        estimator: Estimator | str,
        *,
        embedding: str = "one-hot",
        evaluation: str = "sample",
        schedule: Callable[[int], float] | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        estimator = parse(estimator) if isinstance(estimator, str) else estimator
        if isinstance(estimator, StructureEstimator):
            raise ValueError(estimator.refusal(torch.zeros(1, 2)))
        if not isinstance(estimator, PathwiseEstimator):
            raise ValueError(
                f"estimator {estimator} has no sample to back-propagate through, as it works from "
                "values of the loss: write what follows the layer as a function f of the one-hot "
                "sample and back-propagate estimator.surrogate(f, logits)"
            )
        if schedule is not None and estimator.temperature_field is None:
            raise ValueError(f"schedule: {estimator} has no temperature to be scheduled")
        check_choice("embedding", embedding, Embedding)
        self.embedding = Embedding(embedding)
        self.evaluation = evaluation
        self.generator = generator
        self.schedule = schedule
        self._unscheduled: PathwiseEstimator = estimator
        self._set_steps(0)

    @property
    def evaluation(self) -> Evaluation:
        """What eval mode returns; may be set to "sample", "mode" or "mean"."""
        return self._evaluation

    @evaluation.setter
    def evaluation(self, given: str) -> None:
        check_choice("evaluation", given, Evaluation)
        self._evaluation = Evaluation(given)

    @property
    def steps(self) -> int:
        """How often `step` was called."""
        return self._steps

    def step(self) -> None:
        """Go to the temperature of the next optimizer step; without a schedule, only count.

        Example:
            >>> from gradlab.nn.schedule import Exponential
            >>> layer = CategoricalLayer("GS", schedule=Exponential(1.0, 0.01, steps=2))
            >>> layer.step()
            >>> layer.estimator
            GS(tau=0.1)
        """
        self._set_steps(self._steps + 1)

    def _set_steps(self, steps: int) -> None:
        self._steps = steps
        self.estimator = self._unscheduled
        if self.schedule is not None:
            self.estimator = self._unscheduled.at_temperature(self.schedule(steps))

    def get_extra_state(self) -> dict[str, int]:
        """Return what the state_dict keeps: the number of steps."""
        return {"steps": self._steps}

    def set_extra_state(self, state: Any) -> None:
        """Go to the number of steps of a state_dict, and to its temperature.

        Args:
            state: What `get_extra_state` returned.
        """
        self._set_steps(state["steps"])

    def forward(self, logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "..."]:
        """Return the embedded sample.

        Args:
            logits: Logits [..., N, C], or [..., C].

        Returns:
            One-hot or relaxed samples [..., N, C], or one number for each variable [..., N].
        """
        # Checks of values and generators cannot be compiled; the model around the layer is.
        if torch.compiler.is_compiling():
            return _uncompiled(self, logits)
        return self._embedded(logits)

    def _embedded(self, logits: Tensor) -> Tensor:
        weights = self._weights(logits)
        x = self._sample(logits)
        # A sum, not a matrix product: autocast would round that one to half precision.
        return x if weights is None else (x * weights).sum(-1, dtype=x.dtype)

    def _sample(self, logits: Tensor) -> Tensor:
        if self.training:
            return self.estimator.sample(logits, self.generator)
        p = probabilities(check_logits(logits))
        if self.evaluation is Evaluation.mean:
            return p.to(logits.dtype)
        p = p.detach()
        mode = self.evaluation is Evaluation.mode
        x = one_hot(p.argmax(-1), p) if mode else draw_one_hot(p, self.generator)
        return x.to(logits.dtype)

    def _weights(self, logits: Tensor) -> Tensor | None:
        """Return the number that stands for each class [C], or None for one-hot."""
        if self.embedding is Embedding.one_hot:
            return None
        classes = check_logits(logits).shape[-1]
        if self.embedding is Embedding.signs and classes != 2:
            raise ValueError(
                f"logits must have 2 classes for the embedding 'signs', not {classes}; "
                "use 'levels', 'unit' or 'one-hot'"
            )
        if self.embedding is Embedding.levels and classes - 1 > 2 / torch.finfo(logits.dtype).eps:
            raise ValueError(
                f"logits of {logits.dtype} cannot hold the levels 0 to {classes - 1}; "
                "use float32 logits, or the embedding 'unit' or 'one-hot'"
            )
        levels = torch.arange(classes, dtype=torch.float64, device=logits.device)
        if self.embedding is Embedding.signs:
            levels = 2 * levels - 1
        elif self.embedding is Embedding.unit:
            levels = levels / max(classes - 1, 1)
        return levels.to(logits.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, for printing."""
        schedule = "" if self.schedule is None else f", schedule={self.schedule!r}"
        return (
            f"{self.estimator}, embedding={self.embedding}, evaluation={self.evaluation}{schedule}"
        )


_disabled: list[Callable[[CategoricalLayer, Tensor], Tensor]] = []


def _uncompiled(layer: CategoricalLayer, logits: Tensor) -> Tensor:
    """Return the result of the layer, which torch.compile does not compile.

    As a decorator, `disable` would import the compiler with this module, which takes seconds.
    """
    if not _disabled:  # made once: torch.compile would compile again for each new one
        _disabled.append(torch.compiler.disable(CategoricalLayer._embedded))
    return _disabled[0](layer, logits)

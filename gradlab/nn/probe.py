"""`GradientProbe`: bias and variance of estimators on the model and batch of a running training.

The moments are exact where the latent states of one image can be enumerated. Elsewhere they come
from draws, against a long unbiased run. The probe leaves the training as it was: its random
numbers, gradients and buffers do not change.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from gradlab.categorical import check_logits
from gradlab.checks import check_int
from gradlab.comparison.comparing import with_temperatures
from gradlab.comparison.draws_enough import copies
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost
from gradlab.comparison.measuring import about, measure
from gradlab.comparison.rows import PROBED, as_table
from gradlab.comparison.unmet import Rare, rare_draws, rare_states, seen, widened
from gradlab.estimators import Estimator, QuadratureError
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.finite_states import DistributionOf
from gradlab.exact.moments import EnumeratedBatch, NotExactError
from gradlab.exact.tabulated import count_states
from gradlab.loss import Loss
from gradlab.loss.gate import Objective, checked
from gradlab.moments import GROUPS, Groups, Moments, Truth
from gradlab.nn._relative import relative
from gradlab.nn._writers import LOGGED, Writer
from gradlab.nn.probe_structures import StructuredLayer, found_in
from gradlab.reproducible import block_generator, check_seed
from gradlab.user_code.under_test import Code, draws_of
from gradlab.version import __version__

__all__ = ["GradientProbe"]

LARGEST_STATES = 4096
"""Up to so many latent states of one element the truth is enumerated."""

LARGEST_TABLE = 2**25
"""Numbers that a table of gradients at all states may hold."""

PATIENCE = 2.0
"""Seconds that exact moments of one estimator may take; what takes longer is drawn."""

# Draws of an estimator, and of the reference, by default: the fewest, the most, and the numbers
# that all of them may make, which keeps a large batch to a few seconds.
_DRAWS = (4 * GROUPS, 512, 2**23)
_REFERENCE = (16 * GROUPS, 8192, 2**25)

# Numbers that the samples of one block may hold, copies inside the estimator counted: what f makes
# of them is often ten times as much.
_BLOCK_NUMBERS = 2**19


class GradientProbe:
    r"""Measures estimators of d/dlogits \sum_b E f_b every so many steps of a training.

    The B elements of the batch are drawn independently, so the variance is the sum of theirs. f is
    evaluated in the dtype of the logits; exact tables and all sums are float64.

    Rows hold bias2, variance, mse and cosine with standard errors. They also hold relative_bias,
    relative_sd and relative_rmse, which are divided by the length of the true gradient. `method`
    says "exact" or "monte carlo", and `truth` says where the truth is from. What cannot be measured
    is a row with its `reason`. A `note` says what draws may have missed, and `draws_needed` how
    many would meet it (see `gradlab.compare`).

    Args:
        estimators: Estimators, their texts, or your own code in a form that
            `gradlab.user_code.draws_of` accepts.
        every: Measure at the steps that are multiples of this number.
        draws: The draws of an estimator that is not measured exactly; by default up to 512.
        reference: An unbiased estimator that measures the truth where states cannot be enumerated.
        reference_draws: The draws of the reference; by default up to 8,192, fewer for a large
            batch.
        seconds: A limit on the time of all measurements together. One starts only if the time of
            the last one is left.
        model: A model whose buffers f changes: they are put back after each measurement.
        seed: The seed of the draws, an int in [0, 2^63).
        gradient_cost: Evaluations of f that f with its gradient counts as, in the column `cost`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> probe = GradientProbe(["ST", "ZGR"], every=100)
        >>> for step in range(200):
        ...     logits = torch.zeros(8, 2, 3)  # of your encoder, [B, N, C]
        ...     # The loss of each element, x [..., B, N, C] -> [..., B].
        ...     f = lambda x: (x * torch.arange(3.0)).sum((-2, -1)) ** 2
        ...     probe(step, f, logits)  # before or after the backward of the training
        >>> probe.rows[["step", "estimator", "relative_bias"]].round(3)
           step estimator  relative_bias
        0     0        ST          0.143
        1     0       ZGR          0.000
        2   100        ST          0.143
        3   100       ZGR          0.000
    """

    def __init__(
        self,
        estimators: Iterable[Code],
        *,
        every: int = 100,
        draws: int | None = None,
        reference: Estimator | str = "RF(m=4)",
        reference_draws: int | None = None,
        seconds: float = math.inf,
        model: nn.Module | None = None,
        seed: int = 0,
        gradient_cost: float = GRADIENT_COST,
    ) -> None:
        self.estimators = with_temperatures(estimators, None)
        (self.reference,) = with_temperatures([reference], None)
        if self.reference.order < math.inf:
            raise ValueError(
                f"reference must be unbiased for every f, such as RF(m=4), not {reference}"
            )
        for name, value, least in (
            ("every", every, 1),
            ("draws", draws, 2 * GROUPS),
            ("reference_draws", reference_draws, 2 * GROUPS),
        ):
            if value is not None or name == "every":
                check_int(name, value, least)
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds!r}")
        check_seed(seed)
        check_gradient_cost(gradient_cost)
        self.gradient_cost = gradient_cost
        self.every, self.draws, self.reference_draws = every, draws, reference_draws
        self.limit, self.model, self.seed = seconds, model, seed
        self.seconds = 0.0
        self._last = 0.0
        self._rows: list[dict[str, Any]] = []
        self._writers: list[Writer] = []
        self._replicates: set[str] = set()  # code whose draws were found to be replicates

    @property
    def rows(self) -> pd.DataFrame:
        """All rows so far, one per step and estimator."""
        return as_table(self._rows, PROBED)

    def log_to(self, writer: Any, columns: Iterable[str] = LOGGED) -> "GradientProbe":
        """Write each measurement from now on to a logger too.

        A number is called `gradlab/COLUMN/ESTIMATOR`. Numbers that are not finite are left out.

        Args:
            writer: Anything with `add_scalar(tag, value, step)`, such as TensorBoard's
                SummaryWriter, or with `log(values, step=step)`, such as a run of W&B or trackio.
            columns: Columns of numbers in `rows`; by default the relative errors and the cosine.

        Returns:
            This probe.

        Raises:
            TypeError: If the writer has neither method.
            ValueError: If a column is not one of numbers.

        Example:
            >>> class Printer:
            ...     def add_scalar(self, tag, value, step):
            ...         print(step, tag, round(value, 3))
            >>> import torch
            >>> probe = GradientProbe(["ST"], every=1).log_to(Printer(), ["relative_bias"])
            >>> f = lambda x: (x * torch.arange(3.0)).sum((-2, -1)) ** 2
            >>> probe(0, f, torch.zeros(8, 2, 3))
            0 gradlab/relative_bias/ST 0.143
        """
        self._writers.append(Writer.of(writer, columns))
        return self

    def is_due(self, step: int) -> bool:
        """Return whether a call at this step measures.

        Args:
            step: The number of the optimizer step.

        Returns:
            Whether it is a multiple of `every`.
        """
        return step % self.every == 0

    def __call__(
        self,
        step: int,
        f: Loss,
        logits: Float[Tensor, "*shape"] | Distribution,
        *,
        distribution: DistributionOf | None = None,
    ) -> None:
        """Measure at this step, if it is due.

        Every measurement calls f to check that it keeps its contract. A model with dropout or batch
        norm in training mode does not keep it: probe that model in eval mode.

        Args:
            step: The number of the optimizer step.
            f: The loss of each element, x [..., B, N, C] -> [..., B], or f(x, logits) marked by
                `gradlab.with_parameters`.
            logits: The logits of the batch, [B, N, C]. Or the distribution of a structured layer,
                such as `KSubset(logits, k)`, with a batch [B]: f maps x [..., B, *shape of x].
            distribution: What x is drawn from instead of independent rows, a function from
                parameters [..., B, ...], given as `logits`, to a distribution of batch [..., B].
                Estimators are measured by draws of what trains; the truth is enumerated where an
                element has at most 4,096 states.

        Raises:
            ValueError: If the logits are not valid.
            TypeError: If the parameters of a distribution cannot be found.
            LossError: If f breaks its contract.
        """
        if not self.is_due(step):
            return
        if isinstance(logits, Distribution):
            logits, distribution = found_in(logits)
        if distribution is not None:
            layer = StructuredLayer(f, logits, distribution)
            self._measure(step, logits, {"N": None, "C": None}, lambda: self._on(step, layer))
            return
        # With its graph: an f that holds the logits is refused.
        given, logits = logits, check_logits(logits, ndim=3).detach()
        sizes = {"N": logits.shape[1], "C": logits.shape[2]}
        self._measure(step, given, sizes, lambda: self._measured(step, f, given))

    def _measure(
        self,
        step: int,
        logits: Tensor,
        sizes: dict[str, Any],
        measured: Callable[[], Iterable[dict[str, Any]]],
    ) -> None:
        """Add the rows that are measured, if there is time left, and write them to the loggers."""
        shared: dict[str, Any] = {"step": step, "batch": len(logits), **sizes}
        shared |= {"seed": self.seed, "version": __version__, "dtype": str(logits.dtype)[6:]}
        if self.seconds + self._last > self.limit:
            reason = f"the {self.limit:g} seconds for measurements are used up"
            skipped = shared | {"reason": reason}
            self._rows += [self._about(e, None, logits) | skipped for e in self.estimators]
            return
        started = time.perf_counter()
        with _unnoticed(self.model, logits.device):
            rows = [row | shared for row in measured()]
        self._rows += rows
        self._last = time.perf_counter() - started
        self.seconds += self._last
        for writer in self._writers:
            writer.write(step, rows)

    def _on(self, step: int, layer: StructuredLayer) -> Iterator[dict[str, Any]]:
        """Yield the rows at a structured layer."""
        given = self.draws or _DRAWS[1], self.reference_draws or _REFERENCE[0]
        # What these estimators cost does not depend on classes.
        of = partial(self._about, f=None, logits=torch.zeros(1, 1, 2))
        yield from layer.rows(self.estimators, self.reference, of, *given, self.seed, step)

    def _about(self, estimator: Estimator, f: Objective | None, logits: Tensor) -> dict[str, Any]:
        """Return the columns that name the estimator; without f nothing is called for its cost."""
        loss = None if f is None else f.element(0)
        return about(estimator, loss, logits[0], self.gradient_cost)

    def _measured(self, step: int, f: Loss, logits: Tensor) -> Iterator[dict[str, Any]]:
        objective = checked(f, logits)
        logits = logits.detach()
        on = self._enumeration(objective, logits)
        truth: Truth
        if on is None:
            draws = self._reference_draws(logits)
            name = f"probe {step} reference"
            truth = self._by_draws(self.reference, draws, objective, logits, name)
            source = f"{self.reference}, {draws:,} draws"
        else:
            truth, source = on.gradient, "enumeration"
        rare = self._rare(on, truth, logits)
        for estimator in self.estimators:
            row = self._about(estimator, objective, logits) | {"truth": source, "reason": None}
            started = time.perf_counter()
            try:
                moments, method = self._moments(estimator, step, objective, logits, on)
                row |= {"method": method, "draws": int(moments.n) if method != "exact" else None}
                row |= measure(moments, truth)
                if method != "exact":
                    row = widened(row | seen(estimator, moments, truth, rare))
                row |= relative(row)
            except ValueError as fault:
                # No gradient, a size that it cannot hold: said in its row, the others go on.
                row["reason"] = str(fault)
            yield row | {"seconds": time.perf_counter() - started}

    def _rare(self, on: EnumeratedBatch | None, truth: Truth, logits: Tensor) -> Rare | None:
        """Return what the draws may miss."""
        if isinstance(truth, Moments):
            return rare_draws(truth, self.reference, _sizes(logits))
        return None if on is None else rare_states(on)

    def _enumeration(self, f: Objective, logits: Tensor) -> EnumeratedBatch | None:
        """Return the enumeration of all elements, or None where draws are sooner there."""
        states = count_states(logits)
        # Measuring the truth by draws evaluates f so often; more states than that are not worth it.
        evaluations = self._reference_draws(logits) * self.reference.calls(*_sizes(logits))
        few = min(LARGEST_STATES, evaluations)
        if states > few or states * logits.numel() > LARGEST_TABLE:
            return None
        return EnumeratedBatch(f, logits)

    def _moments(
        self,
        estimator: Estimator,
        step: int,
        f: Objective,
        logits: Tensor,
        on: EnumeratedBatch | None,
    ) -> tuple[Moments, str]:
        if on is not None and on.seconds(estimator) < PATIENCE:
            try:
                return on.moments(estimator), "exact"
            except (NotExactError, QuadratureError, TooLargeError):
                pass
        # Asked on the CPU: the point that it tries f at is drawn there.
        refused = estimator.supports(f.element(0), logits[0].to("cpu", torch.float64))
        if refused:
            raise ValueError(refused)
        name = f"probe {step} {estimator}"
        draws = self.draws or _fitting(estimator, logits, *_DRAWS)
        return self._by_draws(estimator, draws, f, logits, name), "monte carlo"

    def _reference_draws(self, logits: Tensor) -> int:
        return self.reference_draws or _fitting(self.reference, logits, *_REFERENCE)

    def _by_draws(
        self, estimator: Estimator, draws: int, f: Objective, logits: Tensor, name: str
    ) -> Moments:
        """Return moments over all variables of the batch, [B, N, C], of what trains."""
        drawn = draws_of(estimator).training
        if not drawn.is_shipped and str(estimator) not in self._replicates:
            drawn.check_randomness(f, logits, self.seed)
            self._replicates.add(str(estimator))
        size = max(1, _BLOCK_NUMBERS // (logits.numel() * copies(estimator, logits)))
        total: Groups | None = None
        for start in range(0, draws, size):
            n = min(size, draws - start)
            # In the precision of the training, and with its own f.
            g = drawn(f.f, logits, n, block_generator(self.seed, name, start // size))
            groups = Groups.from_draws(g.to(torch.float64))
            total = groups if total is None else total.merge(groups)
        assert total is not None
        return Moments.from_groups(total)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and times, plain data to be saved with a training."""
        return {"rows": self._rows, "seconds": self.seconds, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What `state_dict` returned.
        """
        self._rows = list(state["rows"])
        self.seconds, self._last = state["seconds"], state["last"]


def _fitting(estimator: Estimator, logits: Tensor, fewest: int, most: int, numbers: int) -> int:
    """Return so many draws as make so many numbers, between the fewest and the most."""
    return min(most, max(fewest, numbers // (logits.numel() * copies(estimator, logits))))


def _sizes(logits: Tensor) -> tuple[int, int]:
    """Return C and N, as `Estimator.calls` takes them."""
    return logits.shape[-1], logits.shape[-2]


@contextmanager
def _unnoticed(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Put back torch's random numbers and the buffers of the model."""
    buffers = {} if model is None else {n: b.detach().clone() for n, b in model.named_buffers()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            if model is not None:
                for name, buffer in model.named_buffers():
                    # By .data, unseen by autograd: a backward of the training may yet need it.
                    buffer.data.copy_(buffers[name])

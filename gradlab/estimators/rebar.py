r"""REINFORCE with a relaxed control variate: REBAR by f itself, RELAX by a network that is fitted.

In the notation of `relaxed_pair`, c being what f is corrected by:

.. math:: \hat g = [f(x) - c(y')]\,(x - p) + \nabla c(y) - \nabla c(y')

Whatever c is, the mean is that of REINFORCE.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import check_finite, check_tau
from gradlab.checks import check_int
from gradlab.estimators._affine import AffineEstimator
from gradlab.estimators._control_network import ControlNetwork
from gradlab.estimators._relaxed_pair import RelaxedPair
from gradlab.estimators.score_function import Reinforce
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples
from gradlab.loss import Loss, evaluate, value_and_gradient

__all__ = ["REBAR", "RELAX"]

_BATCH, _STEPS = 512, 400  # samples of one step of `RELAX.fit`, and its steps


@dataclass(frozen=True, repr=False)
class REBAR(AffineEstimator):
    r"""REBAR: REINFORCE with rho f at a relaxed sample as control variate.

    .. math:: \hat g = [f(x) - \rho f(y')]\,(x - p) + \rho\,[\nabla f(y) - \nabla f(y')]

    Unbiased for every f that takes relaxed x, for all tau and rho, as `relaxed_pair` defines y, y';
    three evaluations, two of them relaxed. `fit` finds the best rho. The derivative of y' is taken
    through the noise given x: with that noise held constant, as in Gumbel-Rao, it would be biased.
    Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein 2017 (1703.07370).

    Args:
        tau: Temperature, positive.
        rho: Weight of the control variate; `fit` finds the best one.

    Example:
        >>> REBAR(tau=0.5, rho=1.0)
        REBAR(tau=0.5, rho=1)
    """

    tau: float = 0.5
    rho: float = 1.0

    name: ClassVar[str] = "REBAR"
    family: ClassVar[str] = "control variates"
    temperature_field: ClassVar[str | None] = "tau"
    needs_gradient: ClassVar[bool] = True
    fitted_fields: ClassVar[tuple[str, ...]] = ("rho",)
    reference: ClassVar[str] = "Tucker et al. 2017, arXiv 1703.07370"

    def __post_init__(self) -> None:
        check_tau(self.tau)
        check_finite("rho", self.rho)

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: 3."""
        return 3

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of f(x) and of the estimate."""
        on = RelaxedPair.draw(logits, self.tau, n, generator)
        relaxed = torch.stack([on.y, on.given]).to(logits.dtype)
        levels, slopes = value_and_gradient(f, relaxed, keep_graph=False)
        level, slopes = (
            self.rho * levels[1].detach().to(on.p.dtype),
            self.rho * slopes.to(on.p.dtype),
        )
        value = evaluate(f, on.x.to(logits.dtype))
        estimate = on.estimate(value.detach().to(on.p.dtype), level, slopes[0], slopes[1])
        return value, estimate.to(logits.dtype)


@dataclass(frozen=True, repr=False)
class RELAX(SampledValueEstimator):
    r"""RELAX: REINFORCE with a network c of a relaxed sample as control variate.

    .. math:: \hat g = [f(x) - c(y')]\,(x - p) + \nabla c(y) - \nabla c(y')

    in the notation of `relaxed_pair`, tau its `temperature`. Unbiased for every f, tau and c; one
    evaluation, of f at x only, without grad f. `fit` trains the network on the variance, at this
    temperature; before, c = 0, which is REINFORCE. Grathwohl, Choi, Wu, Roeder & Duvenaud 2018
    (1711.00123).

    Args:
        temperature: Temperature tau of the relaxed samples, positive.
        network: What `fit` found.

    Example:
        >>> RELAX(temperature=0.5)
        RELAX(temperature=0.5)
    """

    temperature: float = 0.5
    network: ControlNetwork | None = None

    name: ClassVar[str] = "RELAX"
    fitted_fields: ClassVar[tuple[str, ...]] = ("network",)
    learned_fields: ClassVar[tuple[str, ...]] = ("network",)
    fit_steps: ClassVar[int | None] = _STEPS
    family: ClassVar[str] = "control variates"
    temperature_field: ClassVar[str | None] = "temperature"
    reference: ClassVar[str] = "Grathwohl et al. 2018, arXiv 1711.00123"

    def __post_init__(self) -> None:
        check_tau(self.temperature)

    @property
    def enumerable(self) -> bool:
        """Whether there is no network yet, and so no noise but x."""
        return self.network is None

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why the network does not take logits of this shape, or None."""
        if self.network is None or self.network.size == logits.shape[-2:]:
            return None
        size = list(self.network.size)
        return f"this RELAX is fitted to logits {size}, not {list(logits.shape[-2:])}; fit it again"

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of f(x) and of the estimate without a network."""
        return Reinforce().estimate_at(f, logits, classes)

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of f(x) and of the estimate."""
        if self.network is None:
            return super().estimate(f, logits, n, generator)
        on = RelaxedPair.draw(logits, self.temperature, n, generator)
        value = evaluate(f, on.x.to(logits.dtype))
        with torch.no_grad():
            estimate = on.controlled(value.detach().to(on.p.dtype), self.network)
        return value, estimate.to(logits.dtype)

    def fit(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        draws: int = 4096,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
        hidden: int = 16,
    ) -> "RELAX":
        """Return this estimator with a network of so many hidden units that lowers the variance.

        f is evaluated once for each of `draws` samples; then Adam takes `steps` steps on the mean
        square of the estimate, whose mean does not depend on the network. Raises ValueError for
        arguments that are not a positive int, and what f raises.
        """
        steps = _STEPS if steps is None else steps
        for name, count in (("draws", draws), ("hidden", hidden), ("steps", steps)):
            check_int(name, count, 1)
        logits = logits.detach().to(torch.float64)
        on = RelaxedPair.draw(logits, self.temperature, draws, generator)
        with torch.no_grad():
            level = evaluate(f, on.x)
        network = ControlNetwork.random(logits, hidden, level, generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            part = torch.randint(draws, (_BATCH,), generator=generator, device=logits.device)
            optimizer.zero_grad()
            some = on.of(part)
            square = some.controlled(level[part], network).square().sum() / _BATCH
            (square / network.scale**2).backward()
            optimizer.step()
            schedule.step()
        return self.with_(network=network.requires_grad_(False))

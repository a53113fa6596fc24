"""A verdict on a policy gradient: whose gradient its mean is, up to which factor."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from gradlab.verification.verdict import Verdict

__all__ = ["PolicyVerdict"]


@dataclass(frozen=True, eq=False)
class PolicyVerdict(Verdict):
    """Whether the mean of a policy gradient is a multiple of the gradient of an objective.

    All lengths are in units of the reward. What `Verdict` says of f is said of the reward here.

    Attributes:
        estimator: Text of the estimator.
        problem: Names of the task and of the policy.
        outcome: UNBIASED, BIASED, INCONCLUSIVE or NOT APPLICABLE.
        method: "exact" or "monte carlo".
        claimed: Whether the estimator claims this objective and this factor.
        target: The gradient of the objective times `wanted`, [P].
        bias: The mean minus `target`.
        bias2: Squared length of the bias.
        limit: Bound of the bias's length: rounding when exact, else with confidence 1 - `alpha`.
        slope: <mean, target> / |target|^2.
        residual2: Square of the rest of the bias.
        deviation: Root of the variance of one estimate.
        delta: Largest bias that counts as none by draws, in lengths of the target.
        alpha: Rate at which an unbiased estimator may be called biased.
        seed: Of the draws.
        judged: Always "draw".
        how: How it was found.
        reason: Why it is not applicable.
        notes: Further sentences of `explain()`.
        draws: How many estimates were made.
        needed: Not estimated here.
        p_value: Not used here.
        log_e_value: Logarithm of the evidence against an unbiased mean.
        kurtosis: Of the draws.
        degrees: Of freedom behind the variances of the draws.
        set_aside: Always 0.
        against: Always empty.
        resembles: Always None.
        unseen_rate: Not used here.
        unseen_bias: Not used here.
        constant: Always False.
        distribution: Always empty.
        objective: The objective, in its text form.
        wanted: The factor that the mean is to have.
        cosine: Of the angle between the mean and the gradient; NaN where either is 0.
        off_policy: Whether another policy sampled.
    """

    objective: str = "J"
    wanted: float = 1.0
    cosine: float = math.nan
    off_policy: bool = False

    @property
    def unit(self) -> tuple[float, str]:
        """What biases are relative to: the gradient's length, or the deviation, or the reward."""
        size, name = super().unit
        return (size, "units of reward") if name == "one unit of f" else (size, name)

    def row(self) -> dict[str, Any]:
        """Return the verdict as one row of a table; biases relative to `unit`."""
        bias, (length, unit) = self.relative_bias, self.unit
        return {
            "estimator": self.estimator,
            "problem": self.problem,
            "target": self.objective,
            "wanted": self.wanted,
            "off_policy": self.off_policy,
            "outcome": self.outcome,
            "claimed": self.claimed,
            "holds": self.holds,
            "method": self.method,
            "unit": unit,
            "bias": bias.value,
            "bias_se": bias.se,
            "limit": self.limit / length,
            "slope": self.slope.value * self.wanted,
            "cosine": self.cosine,
            "deviation": self.deviation / length,
            "delta": self.delta,
            "draws": self.draws,
            "needed": self.needed,
            "seed": self.seed,
            "reason": self.reason or None,
        }

    def _evidence(self) -> list[str]:
        if self.reason and not self.target.any():
            return []
        if not self.target.any():
            return [f"Target: the gradient of {self.objective} is 0.", f"How: {self.how}."]
        factor = "" if self.wanted == 1 else f"{self.wanted:.6g} times "
        where = "off" if self.off_policy else "on"
        lines = [f"Target: {factor}the gradient of {self.objective}, {where} policy."]
        lines += [f"How: {self.how}."] if self.how else []
        if self.method == "monte carlo":
            few = "Equivalence: these draws are too few to bound the bias."
            unbounded = not math.isfinite(self.limit)
            lines += [
                few if unbounded and line.startswith("Equivalence") else line
                for line in self._tested()
            ]
        if self.outcome == "BIASED":
            lines += self._described()
        return lines

    def _described(self) -> list[str]:
        length2 = float(self.target.square().sum())
        lines = []
        if math.isfinite(self.slope.value) and self.wanted:
            lines.append(
                f"Scale: along the gradient of {self.objective} the mean is "
                f"{self.slope.value * self.wanted:.4g} times it."
            )
        if math.isfinite(self.cosine):
            lines.append(
                f"Direction: the cosine between the mean and the gradient is {self.cosine:.4g}."
            )
        if length2 > 0 and self.residual2.value <= 1e-18 * length2:
            lines.append("This factor alone explains the bias: the direction is right.")
        return lines


def cosine_of(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of the angle between two vectors, NaN where one is 0."""
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 0 else math.nan

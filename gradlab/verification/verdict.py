"""A verdict on an estimator: what was proved or tested, how far it reaches, and in plain words why.

It separates three things that are easily confused: no bias by enumeration, a bias shown to be below
a stated size, and a bias that was merely not found.
"""

import math
import textwrap
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.moments import Measured
from gradlab.verification.resemblance import Resemblance, Scaled

__all__ = ["BIASED", "INCONCLUSIVE", "NOT_APPLICABLE", "UNBIASED", "Verdict"]

UNBIASED = "UNBIASED"
BIASED = "BIASED"
INCONCLUSIVE = "INCONCLUSIVE"
NOT_APPLICABLE = "NOT APPLICABLE"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether the mean of an estimator is the gradient of E f at some logits.

    All lengths are in units of f.

    Attributes:
        estimator: text of the code.
        problem: name of f.
        outcome: UNBIASED (proved, or by draws within `delta` of the gradient's length), BIASED,
            INCONCLUSIVE or NOT APPLICABLE.
        method: "exact" or "monte carlo".
        claimed: whether the estimator declares to be exact here; None where that is not known.
        target: [N, C] or [B, N, C], the gradient or the mean of `against`.
        bias: the mean minus `target`.
        bias2: squared length of the bias: the unbiased estimate, which may be negative.
        limit: bound of the bias's length: rounding when exact, else with confidence 1 - `alpha`.
        slope: <mean, target> / |target|^2.
        residual2: square of the rest of the bias.
        deviation: root of the variance of a draw.
        delta: largest bias that counts as none, in lengths of the gradient.
        alpha: rate at which unbiased code may be called biased.
        seed: of the draws.
        judged: "draw", what is analysed; "training", the backward of what trains; or both.
        how: how the proof was made.
        reason: why it is not applicable, or what beside the number of draws prevents a decision.
        notes: further sentences of `explain()`.
        draws: how many were made.
        needed: draws in all for a decision, estimated.
        p_value: where `draws` was fixed before.
        log_e_value: logarithm of the evidence against an unbiased mean.
        kurtosis: of the draws, see `MeanTest`.
        degrees: of freedom, see `MeanTest`.
        set_aside: coordinates whose class is too rare to be tested.
        against: whose mean the target is, if not the gradient: UNBIASED then says that the means
            are the same.
        resembles: what the mean of biased code is that declares nothing.
        unseen_rate: events as rare may not have been met by a draw, with probability `alpha`.
        unseen_bias: mean that score-function draws may have at states as rare.
        constant: whether no random number is drawn for what is returned.
        distribution: what x is drawn from; "" for independent categorical variables. The lengths
            and the bias have the shape of its parameters then.
    """

    estimator: str
    problem: str
    outcome: str
    method: str
    claimed: bool | None
    target: Float[Tensor, "*batch N C"]
    bias: Float[Tensor, "*batch N C"]
    bias2: Measured
    limit: float
    slope: Measured
    residual2: Measured
    deviation: float
    delta: float
    alpha: float
    seed: int
    judged: str = "draw"
    how: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    draws: int | None = None
    needed: int | None = None
    p_value: float | None = None
    log_e_value: float | None = None
    kurtosis: float | None = None
    degrees: float | None = None
    set_aside: int = 0
    against: str = ""
    resembles: Resemblance | None = None
    unseen_rate: float | None = None
    unseen_bias: float | None = None
    constant: bool = False
    distribution: str = ""

    @property
    def unbiased(self) -> bool:
        """Whether it is shown to be unbiased: proved, or within `delta` by draws."""
        return self.outcome == UNBIASED

    @property
    def holds(self) -> bool | None:
        """Whether what is claimed here is shown, or, with `against`, that the means are the same.

        True where the estimator declares less than f asks for, or cannot be used on f. None where
        nothing is declared about this f.
        """
        if self.claimed is None:
            return None
        return self.claimed is False or self.outcome in (UNBIASED, NOT_APPLICABLE)

    @property
    def unit(self) -> tuple[float, str]:
        """What biases are relative to: the gradient's length, or, if that is 0, the deviation."""
        length = float(torch.linalg.vector_norm(self.target))
        if length > 0:
            return length, "|g|"
        return (self.deviation, "sd") if self.deviation > 0 else (1.0, "one unit of f")

    @property
    def relative_bias(self) -> Measured:
        """|bias| in the `unit`, with its standard error; 0 where the square comes out negative.

        The root of a measured square is too small on average, by se^2 / (8 |bias|^3): that is added
        where it is a small correction.
        """
        unit, _ = self.unit
        size = math.sqrt(max(self.bias2.value, 0.0))
        # By the delta method; where the bias is lost in the noise, the root of the error itself.
        error = self.bias2.se / (2 * size) if size > 0 else math.inf
        if self.bias2.se < self.bias2.value:
            size += self.bias2.se**2 / (8 * size**3)
        return Measured(size / unit, min(error, math.sqrt(self.bias2.se)) / unit)

    @property
    def factor(self) -> Fraction | None:
        """The simple factor that explains the bias (the mean is factor times g), if one does."""
        if self.outcome != BIASED or not math.isfinite(self.slope.value):
            return None
        if self.resembles is None:
            return self._simple_factor()
        scaled = self.resembles.scaled
        if scaled is None or not scaled.alone:
            return None
        found = self._simple_factor()
        return found if found is not None and found in scaled else _only_fraction(scaled)

    def _simple_factor(self) -> Fraction | None:
        rounding = (1e-9 * float(torch.linalg.vector_norm(self.target))) ** 2
        if not self.residual2 <= max(rounding, 5 * self.residual2.se):
            return None
        # Fractions of larger denominators are so dense that one would be near by chance.
        largest = min(12, math.floor(math.sqrt(0.1 / max(self.slope.se, 1e-9))))
        found = Fraction(self.slope.value).limit_denominator(max(largest, 1))
        near = max(3 * self.slope.se, 1e-9)
        explains = found != 1 and abs(float(found) - self.slope.value) <= near
        return found if largest and explains else None

    def __str__(self) -> str:
        return f"{self.estimator} on {self.problem}: {self._summary()}"

    def explain(self) -> str:
        """Return the verdict, its evidence and what it does not say, in a few lines."""
        claim = {
            True: "It declares to be exact here.",
            False: "It does not declare to be exact here.",
            None: "Nothing is declared about this f.",
        }[self.claimed]
        if self.against:
            claim = f"The question is whether its mean is that of {self.against}, not the gradient."
        lines = [str(self), *self._evidence(), *self.notes]
        lines += [claim] if self.outcome != NOT_APPLICABLE else []
        return "\n".join(
            textwrap.fill(line, 98, initial_indent="  " if number else "", subsequent_indent="    ")
            for number, line in enumerate(lines)
        )

    def row(self) -> dict[str, Any]:
        """Return the verdict as one row of a table; biases relative to `unit`."""
        bias, (length, unit) = self.relative_bias, self.unit
        return {
            "estimator": self.estimator,
            "problem": self.problem,
            "N": None if self.distribution else self.target.shape[-2],
            "C": None if self.distribution else self.target.shape[-1],
            "outcome": self.outcome,
            "claimed": self.claimed,
            "holds": self.holds,
            "method": self.method,
            "judged": self.judged,
            "unit": unit,
            "bias": bias.value,
            "bias_se": bias.se,
            "limit": self.limit / length,
            "slope": self.slope.value,
            "slope_se": self.slope.se,
            "factor": None if self.factor is None else str(self.factor),
            "deviation": self.deviation / length,
            "draws": self.draws,
            "needed": self.needed,
            "p_value": self.p_value,
            "log_e_value": self.log_e_value,
            "kurtosis": self.kurtosis,
            "degrees": self.degrees,
            "set_aside": self.set_aside,
            "unseen_rate": self.unseen_rate,
            "delta": self.delta,
            "alpha": self.alpha,
            "seed": self.seed,
            "reason": self.reason or None,
        }

    def _summary(self) -> str:
        if self.outcome == NOT_APPLICABLE:
            return f"{NOT_APPLICABLE}: {self.reason}"
        bias, (length, unit) = self.relative_bias, self.unit
        limit = f"{self.limit / length:.2g} {unit}"
        if self.outcome == BIASED and self.reason:
            return f"{BIASED}: {self.reason}"
        if self.method == "exact":
            if self.outcome == INCONCLUSIVE:
                return f"{INCONCLUSIVE}: {self.reason}"
            if self.unbiased:
                return f"{UNBIASED}, proved: bias {bias.value:.1e} {unit}, rounding allows {limit}"
            return f"{BIASED}: bias {bias.value:.4g} {unit}, exact"
        if self.constant:
            what = "nothing in it is random"
            return f"{self.outcome}: {what}, and it is {bias.value:.2g} {unit} off the gradient"
        if self.unbiased and self.deviation < 1e-9 * length:
            return f"{UNBIASED}: each of {self.draws:,} draws is the gradient, to rounding"
        if self.unbiased:
            within = f"{UNBIASED} within {self.delta:g} {unit}"
            return f"{within}: bias below {limit} by {self.draws:,} draws"
        if self.outcome == BIASED:
            return f"{BIASED}: bias {bias.value:.2g} ± {bias.se:.1g} {unit} by {self.draws:,} draws"
        size = f"up to {limit}" if math.isfinite(self.limit) else "any size"
        hidden = f"a bias of {size} may hide behind {self.draws:,} draws"
        return f"{INCONCLUSIVE}: {f'{self.reason}; ' if self.reason else ''}{hidden}"

    def _evidence(self) -> list[str]:
        if self.outcome == NOT_APPLICABLE:
            return []
        lines = [f"How: {self.how}."] if self.how else []
        lines += [f"Judged: its {self.judged}."]
        if self.method == "monte carlo":
            lines += self._tested()
        if self.outcome == BIASED:
            lines += self._described()
        return lines

    def _tested(self) -> list[str]:
        if self.constant:
            return ["No random number is drawn for it, so that one draw is its mean."]
        sure = f"{1 - self.alpha:.10g}"
        part = "part of x" if self.distribution else "class"
        assert self.log_e_value is not None
        e = f"10^{self.log_e_value / math.log(10):.1f}" if self.log_e_value < math.inf else "inf"
        fixed = "" if self.p_value is None else f"p = {self.p_value:.2g} (draws fixed before); "
        lines = [
            f"Test: {fixed}e-value {e}; above {1 / self.alpha:g} it shows a bias, at any time.",
            f"Equivalence: with confidence {sure} the bias is below {self.limit:.3g} = "
            f"{self.limit / self.unit[0]:.2g} {self.unit[1]}; wanted is {self.delta:g}."
            if math.isfinite(self.limit)
            else f"Equivalence: not before every {part} is met can the bias be bounded.",
        ]
        if self.outcome == INCONCLUSIVE and self.needed:
            lines.append(f"About {self.needed:,} draws in all are needed to decide.")
        if self.unseen_rate is not None:
            lines.append(self._unseen())
        if self.kurtosis is not None and self.kurtosis > 30:
            lines.append(
                f"Heavy tails: kurtosis {self.kurtosis:.0f} (normal: 3), so the variances rest on "
                f"{self.degrees:.0f} degrees of freedom; all limits are widened for it."
            )
        if self.set_aside:
            lines.append(
                f"Not tested: {self.set_aside} of {self.target.numel()} coordinates, whose "
                f"{'parts of x' if self.distribution else 'classes'} are too rare (or too sure) to "
                "be met often enough by these draws."
            )
        return lines

    def _unseen(self) -> str:
        sentence = (
            f"Not excluded: what happens in less than {self.unseen_rate:.2g} of the draws may not "
            "have happened yet, whatever it carries"
        )
        if self.unseen_bias is None:
            return f"{sentence}."
        share = self.unseen_bias / self.unit[0]
        return (
            f"{sentence}; states of f as rare can carry {share:.2g} {self.unit[1]} in draws of a "
            "score function."
        )

    def _described(self) -> list[str]:
        at = tuple(map(int, torch.unravel_index(self.bias.abs().argmax(), self.bias.shape)))
        lines = ["Every draw is the same."] if self.deviation == 0 else []
        lines += [
            f"Direction: largest at {self._place(at)}: mean "
            f"{float(self.target[at] + self.bias[at]):.4g}, gradient {float(self.target[at]):.4g}."
        ]
        if math.isfinite(self.slope.value):
            error = f" ± {self.slope.se:.1g}" if self.slope.se > 0 else ""
            lines.append(f"Scale: along the gradient the mean is {self.slope:.4g}{error} times it.")
        return lines + self._factors()

    def _place(self, at: tuple[int, ...]) -> str:
        if self.distribution:
            return f"parameter {list(at)}"
        return f"variable {at[-2]}, class {at[-1]}"

    def _factors(self) -> list[str]:
        """Return what factor explains the bias, if one does, and what else the mean is."""
        if self.resembles is not None:
            named = [] if self.factor is None else [f"With that factor {_named(self.factor)}."]
            scaled, *others = [*self.resembles.sentences(), ""]
            return [line for line in (scaled, *named, *others) if line]
        if self.factor is not None:
            return [f"This alone explains the bias: {_named(self.factor)}."]
        slope, error = self.slope.value, 2 * self.slope.se
        if not math.isfinite(slope):
            return []
        # What is left of the bias beside the factor, at most.
        left2 = max(self.residual2.value, 0.0) + 2 * self.residual2.se
        if left2 > 0.05 * float(self.bias.square().sum()):
            return []
        between = f" ({slope - error:.3g} to {slope + error:.3g})" if error > 0 else ""
        sentence = f"the mean is {slope:.4g}{between} times the gradient"
        return [f"This factor alone explains the bias: {sentence}."]


def _only_fraction(scaled: Scaled) -> Fraction | None:
    """Return the fraction of a denominator up to 12 in the interval, if there is one only."""
    found = {
        fraction
        for q in range(1, 13)
        for k in range(math.floor(scaled.low * q), math.ceil(scaled.high * q) + 1)
        if (fraction := Fraction(k, q)) in scaled
    }
    return found.pop() if len(found) == 1 else None


def _named(factor: Fraction) -> str:
    """Return what a wrong factor may come from."""
    if factor == 0:
        return "the mean is 0"
    text = f"every estimate is multiplied by {factor}"
    if factor < 0:
        return f"{text}: a sign is wrong"
    if factor == 2:
        return f"{text}, as when a factor 1/2 is dropped"
    if factor.denominator - factor.numerator == 1:
        m = factor.denominator
        return f"{text}, as when M/(M - 1) with M = {m} is forgotten" + (
            " or a factor 2 dropped" if m == 2 else ""
        )
    if factor.numerator - factor.denominator == 1 and factor.denominator > 1:
        return f"{text}, as when M/(M - 1) with M = {factor.numerator} is one too many"
    return text

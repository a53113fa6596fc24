"""Hard cases of cold relaxations, of rounding, and of draws that depend on each other."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gradlab.estimators import parse
from gradlab.problems import problem
from gradlab.verification.exact_bias import exact_bias
from hard_calls import Cold, Repeated, Reused, Shared, SharedBaseline
from hard_codes import Code, Noise, Pairs, Score, Shipped, Through
from hard_laws import Lognormal
from hard_settings import Hard, Linear, Setting, only, right, table, times, wrong

__all__ = ["COLD", "DEPENDENCE", "ROUNDING"]

# ---- cold relaxations, against their own mean or the gradient ---------------------------------

COINS = Setting(
    Linear(torch.tensor([[1.0, -1], [0.5, 0.2], [0, 2]]).double()),
    torch.tensor([[0.4, 0.0], [-1, 0], [2, 0]]).double(),
)
BENT = Setting(problem("quadratic", 2, 2, 3), COINS.logits[:2])
CURVED = Setting(problem("quadratic", 2, 3, 3), table(2, 3).logits)


def own(tau: float, setting: Setting) -> Tensor:
    """Return the mean of Gumbel-softmax straight-through of two classes, by an integral."""
    return Cold(tau).mean(setting.f, setting.logits)


def rao(tau: float, setting: Setting) -> Tensor:
    """Return the mean of Gumbel-Rao, by gradlab's quadrature."""
    return exact_bias(parse(f"GR(tau={tau}, k=inf)"), setting.f, setting.logits).mean


COLD = [
    right("GS-ST(.001)", "cold", "GS-ST(tau=0.001)", BENT, target=own(1e-3, BENT)),
    right("GS-ST(.0001)", "cold", "GS-ST(tau=0.0001)", BENT, target=own(1e-4, BENT)),
    right("GS-ST(.01)", "cold", "GS-ST(tau=0.01)", CURVED, target=partial(rao, 0.01, CURVED)),
    right("GS(.01) on a linear loss", "cold", "GS(tau=0.01)", COINS, target=own(0.01, COINS)),
    right("GR(.01, k=1)", "cold", "GR(tau=0.01, k=1)", CURVED, target=partial(rao, 0.01, CURVED)),
    right("own GS-ST(.003)", "cold", Cold(0.003), BENT, target=own(0.003, BENT)),
    right("REBAR(.01)", "cold", "REBAR(tau=0.01)", BENT),
    right("RELAX(.05)", "cold", "RELAX(temperature=0.05)", CURVED),
    wrong("own GS-ST(.001) times .8", "cold", Cold(0.001, 0.8), BENT, target=own(0.001, BENT)),
    wrong("own GS-ST(.003) times 1.1", "cold", Cold(0.003, 1.1), BENT, target=own(0.003, BENT)),
    wrong("own GS-ST(.01) times -1", "cold", Cold(0.01, -1.0), COINS, target=own(0.01, COINS)),
    wrong("REBAR(.01) times .8", "cold", times(Shipped("REBAR(tau=0.01)"), 0.8), BENT),
    wrong("REBAR(.01), a sign wrong", "cold", only("REBAR(tau=0.01)", 2, 0, -1.0), BENT),
]

# ---- rounding ---------------------------------------------------------------------------------


def single(setting: Setting) -> Setting:
    """Return the setting in float32."""
    return Setting(setting.f, setting.logits.float())


AT300 = single(table(2, 3, offset=300.0, spread=0.5))
AT5000 = single(table(2, 3, offset=5000.0, spread=0.5))
FLAT = single(table(2, 3, offset=300.0, spread=0.02))
MILLION = table(2, 3, offset=1e6)
LAYER = Setting(
    Linear(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), offset=0.3),
    table(3, 4).logits.float(),
)


@dataclass(frozen=True, eq=False)
class InSingle:
    """A linear loss in float32 whose value is scaled in float64, so that it does not look rounded.

    Its gradient passes through float32 as well, and is right to about 6e-8.
    """

    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) in float64."""
        return 0.3 * (x.float() * self.weights).sum((-1, -2)).double() + 0.1


INSIDE = Setting(InSingle(LAYER.f.weights), LAYER.logits.double())

ROUNDING = [
    right("straight-through, float32 in f", "rounding", Through(), INSIDE, rounding=1e-6),
    wrong("straight-through times 1.1, float32 in f", "rounding", times(Through(), 1.1), INSIDE),
    right("float32, f near 300", "rounding", Pairs(), AT300, rounding=1e-2),
    right("float32, f near 5,000", "rounding", Pairs(), AT5000, rounding=1e-2, runs=300),
    right("float32, f within .02 of 300", "rounding", Pairs(), FLAT, rounding=1e-2, runs=300),
    right("float32, means of 32 pairs", "rounding", Pairs(32), AT300, rounding=1e-2),
    right("float32, straight-through, linear f", "rounding", Through(), LAYER, rounding=1e-5),
    right("float32, REINFORCE near 300", "rounding", Score(), AT300, rounding=1e-2),
    right("f near 1e6", "rounding", Pairs(), MILLION, rounding=1e-9),
    right("REINFORCE, f near 1e6", "rounding", Score(), MILLION, rounding=1e-6, runs=300),
    wrong("float32, f near 300, times .8", "rounding", times(Pairs(), 0.8), AT300),
    wrong("float32, f near 300, times 1.1", "rounding", times(Pairs(), 1.1), AT300),
    wrong("float32, f near 5,000, times -1", "rounding", times(Pairs(), -1.0), AT5000),
    wrong("float32, f within .02 of 300, times 0", "rounding", times(Pairs(), 0.0), FLAT),
    wrong("float32, means of 32 pairs, times .9", "rounding", times(Pairs(32), 0.9), AT300),
    wrong("float32, straight-through times .9", "rounding", times(Through(), 0.9), LAYER),
    wrong("f near 1e6, times .8", "rounding", times(Pairs(), 0.8), MILLION),
    wrong("REINFORCE, f near 1e6, times -1", "rounding", times(Score(), -1.0), MILLION),
]

# ---- draws that depend on each other ----------------------------------------------------------

PLAIN = table(2, 3)
G = PLAIN.g
# No two draws have a coordinate in common by chance, as those of pairs of states have. The variance
# along g is 3 |g|^2: noise of .2 g is about one hundredth of it.
INNER = Noise(Pairs(), G, Lognormal(0.5, centred=True), 2.0, each=True)
LESS = times(INNER, 0.8)


def dependent(name: str, code: Code, *, is_right: bool = True, max_draws: int = 2**12) -> Hard:
    """Return a case of draws that are no independent replicates."""
    make = right if is_right else wrong
    return make(name, "dependence", code, PLAIN, dependent=True, max_draws=max_draws, runs=200)


DEPENDENCE = [
    dependent("each draw twice in a row", Repeated(INNER, G)),
    dependent("all draws twice", Repeated(INNER, G, place="far")),
    dependent("all draws twice, shuffled", Repeated(INNER, G, place="shuffled"), max_draws=2**13),
    dependent("antithetic pairs", Repeated(INNER, G, sign=-1)),
    dependent("1 % of the variance shared in a call", Shared(INNER, G, 0.2), max_draws=2**14),
    dependent("a buffer of 100 draws", Reused(INNER, 100)),
    dependent("a buffer of 1,000 draws", Reused(INNER, 1000), max_draws=2**14),
    dependent("noise shared by 8 draws", Shared(INNER, G, 1.0, block=8)),
    dependent("baseline shared in a call", SharedBaseline(3.0)),
    dependent("each draw twice, times .8", Repeated(LESS, 0.8 * G), is_right=False),
    dependent("antithetic, times .8", Repeated(LESS, 0.8 * G, sign=-1), is_right=False),
    dependent("1 % shared, times .8", Shared(LESS, G, 0.2), is_right=False),
    dependent("a buffer of 100 draws, times .8", Reused(LESS, 100), is_right=False),
    dependent("8 share, times .8", Shared(LESS, G, 1.0, block=8), is_right=False),
    dependent("baseline shared, times .8", SharedBaseline(3.0, 0.8), is_right=False),
]

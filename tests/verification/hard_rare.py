"""Hard cases in which the events that carry the gradient, or the bias, are rarely met."""

import torch

from hard_codes import Jumps, Lottery, OwnBaseline, Pairs, Score, Shipped, Through
from hard_settings import (
    Linear,
    Setting,
    Spots,
    logits_of,
    only,
    right,
    table,
    times,
    uniform,
    wide,
    wrong,
)

__all__ = ["RARE"]

SPOT4, SPOT5, SPOT6 = (uniform(Spots((1.0,)), N) for N in (4, 5, 6))
REWARD = uniform(Spots((1000.0,)), 6)
SMOOTH = uniform(Spots((1.0,), 0.01), 4)
OPPOSITE = uniform(Spots((1.0, -1.0)), 5)
PLAIN = table(2, 3)
LINE = Setting(Linear(torch.tensor([[1.0, 0, -1], [2, 1, 0]]).double()), table(2, 3).logits)
SELDOM = Setting(PLAIN.f, logits_of((0.999, 0.0009, 0.0001), (0.6, 0.3995, 0.0005)))
SURE = Setting(PLAIN.f, logits_of((0.15, 0.75, 0.1), (1e-5, 2e-5, 0.99997)))
UNSEEN = Setting(LINE.f, logits_of((0.6, 0.4 - 4e-5, 4e-5), (0.2, 0.5, 0.3)))
MANY, COINS = wide(130, 3), wide(100, 2)

RARE = [
    right("RF(4), one of 4^5", "rare", "RF(m=4)", SPOT5),
    right("REINFORCE, one of 4^6", "rare", "REINFORCE", SPOT6),
    right("ARSM, one of 4^4", "rare", "ARSM", SPOT4),
    right("RF(2), one of 4^4 on a slope", "rare", "RF(m=2)", SMOOTH),
    right("RF(4), 1,000 at one of 4^6", "rare", "RF(m=4)", REWARD),
    right("RF(4), 1 and -1 at two of 4^5", "rare", "RF(m=4)", OPPOSITE),
    right("g/q at rate .01", "rare", Lottery(PLAIN.g, 1e-2), PLAIN),
    right("g/q at rate .001", "rare", Lottery(PLAIN.g, 1e-3), PLAIN, max_draws=2**13),
    right("g/q at rate 1e-5", "rare", Lottery(PLAIN.g, 1e-5), PLAIN),
    right(
        "jumps at rate .01, compensated",
        "rare",
        Jumps(Score(), PLAIN.g, 1e-2, 1.0, True),
        PLAIN,
        hidden_rate=1e-2,
    ),
    right(
        "jumps at rate .001, compensated",
        "rare",
        Jumps(Score(), PLAIN.g, 1e-3, 1.0, True),
        PLAIN,
        hidden_rate=1e-3,
        max_draws=2**13,
    ),
    right("rows that never vary", "rare", "LE", LINE),
    right(
        "RF(4), 130 variables", "rare", "RF(m=4)", MANY, target=MANY.g, max_draws=2**10, runs=100
    ),
    right(
        "RF(2), 100 binary variables",
        "rare",
        "RF(m=2)",
        COINS,
        target=COINS.g,
        max_draws=2**11,
        runs=100,
    ),
    right("RF(2), rare classes", "rare", "RF(m=2)", SELDOM),
    right("RF(2), sure classes", "rare", "RF(m=2)", SURE),
    wrong("RF(4) times .8, one of 4^4", "rare", times(Shipped("RF(m=4)"), 0.8), SPOT4),
    wrong("REINFORCE times 1.1, one of 4^4", "rare", times(Score(), 1.1), SPOT4),
    wrong("RF(4), a sign wrong, one of 4^4", "rare", only("RF(m=4)", 4, 0, -1.0), SPOT4),
    wrong("RF(4), a variable ignored, one of 4^5", "rare", only("RF(m=4)", 5, 2, 0.0), SPOT5),
    wrong("own-sample baseline of 4, one of 4^4", "rare", OwnBaseline(4), SPOT4),
    wrong("own-sample baseline of 4 on a slope", "rare", OwnBaseline(4), SMOOTH),
    wrong("REINFORCE times .8, 1,000 at one of 4^6", "rare", times(Score(), 0.8), REWARD),
    wrong(".8 g/q at rate .01", "rare", Lottery(PLAIN.g, 1e-2, 0.8), PLAIN),
    wrong(".8 g/q at rate .001", "rare", Lottery(PLAIN.g, 1e-3, 0.8), PLAIN, max_draws=2**13),
    *(
        wrong(
            f"bias at rate {rate:g}",
            "rare",
            Jumps(Pairs(32), PLAIN.g, rate, 0.1, False),
            PLAIN,
            hidden_rate=rate,
        )
        for rate in (1e-3, 1e-4, 1e-5)
    ),
    wrong(
        "5,000 times too large at p = 4e-5",
        "rare",
        Through(5000.0),
        UNSEEN,
        hidden_rate=4e-5,
    ),
    *(
        wrong(
            f"bias at rate {rate:g}, else each draw g",
            "rare",
            Jumps(Through(), LINE.g, rate, 0.1, False),
            LINE,
            hidden_rate=rate,
        )
        for rate in (1e-3, 1e-4)
    ),
    wrong(
        "RF(4) times .8, 130 variables",
        "rare",
        times(Shipped("RF(m=4)"), 0.8),
        MANY,
        target=MANY.g,
        max_draws=2**10,
        runs=100,
    ),
    wrong("RF(2) times .8, rare classes", "rare", times(Pairs(), 0.8), SELDOM),
]

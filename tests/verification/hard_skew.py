"""Hard cases of skewed and heavy-tailed draws: importance weights, and noise of known mean."""

from hard_codes import Noise, Pairs, Score, Times
from hard_laws import Chi2, Exponential, Lognormal, Pareto, TwoSided
from hard_settings import right, table, times, wrong

__all__ = ["SKEW"]

PLAIN = table(2, 3)
WEIGHED = table(2, 4)
# The power of the proposal, by the largest weight of a draw.
POWERS = {"3.6": 0.0, "34": 2.5, "127": 3.0, "2,050": 4.0, "36,000": 5.0}
NOISES = {
    "two-sided Pareto of index 3": TwoSided(3.0),
    "two-sided Pareto of index 2.2": TwoSided(2.2),
    "two-sided Pareto of index 1.1": TwoSided(1.1),
    "Pareto of index 2.1": Pareto(2.1, centred=True),
    "Pareto of index 1.5": Pareto(1.5, centred=True),
    "lognormal of sigma 2": Lognormal(2.0, centred=True),
}
FACTORS = {
    "exponential": Exponential(),
    "chi-square": Chi2(),
    "lognormal of sigma 1": Lognormal(1.0),
    "lognormal of sigma 2": Lognormal(2.0),
    "lognormal of sigma 3": Lognormal(3.0),
    "Pareto of index 1.5": Pareto(1.5),
}
TRUNCATED = {
    "lognormal of sigma 2 below 10": Lognormal(2.0, 10.0),
    "lognormal of sigma 3 below 20": Lognormal(3.0, 20.0),
    "Pareto of index 1.5 below 20": Pareto(1.5, 20.0),
}


def runs(name: str) -> int:
    """Return fewer runs for noise that is symmetric, and so hides no skew."""
    return 300 if "two-sided" in name else 1000


SKEW = [
    *(
        right(f"weights up to {most}", "skew", Score(power), WEIGHED, max_draws=2**13)
        for most, power in POWERS.items()
    ),
    right("defensive mixture", "skew", Score(4.0, share=0.1), WEIGHED, max_draws=2**13),
    *(
        right(f"noise {name}", "skew", Noise(Score(), PLAIN.g, law, 2.0), PLAIN, runs=runs(name))
        for name, law in NOISES.items()
    ),
    right(
        "noise Pareto of index 1.5 everywhere",
        "skew",
        Noise(Score(), PLAIN.g, Pareto(1.5, centred=True), 1.0, each=True),
        PLAIN,
        runs=300,
    ),
    *(right(f"factor {name}", "skew", Times(Pairs(), law), PLAIN) for name, law in FACTORS.items()),
    *(
        wrong(
            f"times .8, weights up to {most}",
            "skew",
            times(Score(power), 0.8),
            WEIGHED,
            max_draws=2**13,
        )
        for most, power in POWERS.items()
    ),
    wrong("weights forgotten", "skew", Score(2.5, weighted=False), WEIGHED),
    wrong("weights clipped at 3", "skew", Score(3.0, cap=3.0), WEIGHED, max_draws=2**13),
    wrong("weights clipped at 10", "skew", Score(4.0, cap=10.0), WEIGHED, max_draws=2**13),
    wrong("defensive mixture times .8", "skew", times(Score(4.0, share=0.1), 0.8), WEIGHED),
    *(
        wrong(
            f"times .8, noise {name}", "skew", Noise(times(Score(), 0.8), PLAIN.g, law, 2.0), PLAIN
        )
        for name, law in NOISES.items()
        if name != "two-sided Pareto of index 2.2"
    ),
    *(
        wrong(f"factor {name}", "skew", Times(Pairs(), law), PLAIN)
        for name, law in TRUNCATED.items()
    ),
    wrong("times .8, factor chi-square", "skew", times(Times(Pairs(), Chi2()), 0.8), PLAIN),
]

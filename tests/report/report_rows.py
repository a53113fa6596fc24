"""Rows of every verb that the tests of reports share, small and made once."""

from functools import cache

import numpy as np
import pandas as pd

import gradlab
from gradlab.problems import problem, regime

__all__ = [
    "HOSTILE",
    "compared",
    "ended",
    "hostile",
    "judged",
    "obeyed",
    "swept",
    "timed",
    "trained",
]

HOSTILE = "</script><img src=x onerror=\"document.title='hit'\">'&amp; \u2028 ζ𝛕"
"""A name that would leave any place where it is not escaped."""


@cache
def compared() -> pd.DataFrame:
    """Return rows of a comparison by both methods, with temperatures and a row without numbers."""
    f, logits = problem("mlp", 2, 3), regime("moderate", 2, 3)
    return gradlab.compare(
        f,
        logits,
        ["ST", "ZGR", "GR(k=10)", "RF(m=4)", "ARSM"],
        temperatures=[0.1, 0.3, 1.0],
        draws=512,
        method="both",
    )


@cache
def swept() -> pd.DataFrame:
    """Return rows as of a sweep over two problems and three seeds, all exact."""
    parts = []
    for kind in ("quadratic", "cubic"):
        for seed in range(3):
            f, logits = problem(kind, 2, 3, seed), regime("moderate", 2, 3, seed)
            rows = gradlab.compare(
                f, logits, ["ST", "ZGR", "GR(k=inf)", "RF(m=4)"], temperatures=[0.3, 1.0]
            )
            names = {"problem": kind, "regime": "moderate", "logits_seed": seed, "error": None}
            rows = rows.assign(**names)
            parts.append(rows.assign(cell=kind + str(seed) + rows["estimator"]))
    return pd.concat(parts, ignore_index=True)


@cache
def trained() -> pd.DataFrame:
    """Return curves as of `gradlab train vae`: two estimators, two seeds, five epochs."""
    rows = []
    for estimator, end in (("ST", 190.0), ("ZGR", 185.0)):
        for seed in range(2):
            for epoch in range(1, 6):
                loss = end + 20 / epoch + seed
                row = {"epoch": epoch, "step": 4 * epoch, "seconds": 0.1 * epoch, "loss": loss}
                row |= {"train_nelbo": loss, "valid_nelbo": loss + 1, "test_nelbo": loss + 2}
                row |= {"test_bound": loss - 5 if epoch == 5 else np.nan, "kind": "vae"}
                row |= {"estimator": estimator, "latent": "2x3", "data": "digits", "seed": seed}
                rows.append(row | {"lr": 1e-3, "batch": 50, "version": "0.5.0", "chosen": True})
    return pd.DataFrame(rows)


def hostile() -> pd.DataFrame:
    """Return rows of a comparison whose every text is hostile, and whose numbers are not finite."""
    rows = compared().head(6).copy()
    rows["estimator"] = [f"{HOSTILE}{i}" for i in range(6)]
    rows["series"] = rows["estimator"]
    rows["problem"] = HOSTILE
    rows["reason"] = [None] * 5 + [HOSTILE]
    rows[HOSTILE] = ["a", HOSTILE, None, "b", "c", "d"]
    rows.loc[rows.index[:2], "cosine"] = [np.nan, np.inf]
    rows.loc[rows.index[2], "bias2"] = -1.0
    return rows


def judged() -> pd.DataFrame:
    """Return verdicts of both methods: one proved, one biased, one within delta, one not usable."""
    rows = {
        "estimator": ["ZGR", "ST", "RF(m=4)", "ARM"],
        "problem": "mlp(N=2, C=3, seed=0)",
        "outcome": ["UNBIASED", "BIASED", "UNBIASED", "NOT APPLICABLE"],
        "holds": [True, False, True, True],
        "method": ["exact", "monte carlo", "monte carlo", None],
        "unit": "|g|",
        "bias": [1e-16, 0.7, 0.01, np.nan],
        "bias_se": [0.0, 0.02, 0.008, np.nan],
        "limit": [1e-14, 1.1, 0.044, np.nan],
        "delta": 0.05,
        "draws": [np.nan, 978, 54380, np.nan],
        "reason": [None, None, None, "for 2 classes"],
    }
    return pd.DataFrame(rows)


def timed() -> pd.DataFrame:
    """Return rows as of `gradlab time`: three layers at two sizes, one of them left out at one."""
    rows = []
    for C in (4, 16):
        for name, ms in (("F.gumbel_softmax(hard=True)", 1.0), ("ST", 0.5), ("GR(k=10)", 4.0)):
            row = {"estimator": name, "series": name, "timed": "layer", "mode": "eager", "N": 32}
            times = {"ms": ms * C, "ms_q25": 0.9 * ms * C, "ms_q75": 1.2 * ms * C, "ratio": ms}
            times |= {"ratio_q25": 0.9 * ms, "ratio_q75": 1.2 * ms, "peak_bytes": 1e6 * ms}
            left_out = name.startswith("GR") and C == 16
            row |= {"C": C, "reason": "too slow" if left_out else None, "machine": "AMD EPYC"}
            rows.append(row | (dict.fromkeys(times) if left_out else times) | {"threads": 1})
    return pd.DataFrame(rows)


def obeyed() -> pd.DataFrame:
    """Return rows as of the figure cold-limit: a mean that follows tau, a variance 1 / tau."""
    rows = []
    for tau in (0.01, 0.1, 1.0):
        for quantity, power, slope in (("mean", 1, 0.98), ("variance", -1, -1.01)):
            row = {"problem": "mlp", "estimator": f"GS-ST(tau={tau:g})", "tau": tau}
            row |= {"quantity": quantity, "power": power, "law": 0.5 * tau**power}
            rows.append(row | {"difference": 0.5 * tau**slope, "slope": slope})
    return pd.DataFrame(rows)


def ended() -> pd.DataFrame:
    """Return rows as of the figure toys: two runs, one of which ends where theory does not."""
    rows = []
    for estimator, q, predicted in (("ST", 0.4, 0.1), ("LE", 0.01, 0.02)):
        for step in (0, 100):
            row = {"toy": "Tucker", "estimator": estimator, "step": step, "fitted": False}
            row |= {"q": 0.5 if step == 0 else q, "predicted": 0.5 if step == 0 else predicted}
            end = {"limit": predicted, "least": 0.2} if step else {"limit": None, "least": None}
            rows.append(row | {"loss": 0.2 + row["q"] / 10} | end)
    return pd.DataFrame(rows)

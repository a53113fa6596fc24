"""Rows of every verb that the tests of reports share, small and made once."""

from functools import cache

import numpy as np
import pandas as pd

import gradlab
from gradlab.problems import problem, regime

__all__ = ["HOSTILE", "compared", "hostile", "swept", "trained"]

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

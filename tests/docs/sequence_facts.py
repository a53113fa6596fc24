"""What holds of the committed rows on policy gradients, one sentence of a page each."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from row_facts import rows

__all__ = ["SEQUENCE_FINDINGS"]

GALLERY, PAGE = "docs/gallery.md", "docs/sequence-findings.md"
ROUNDING = 1e-9


def bias(table: pd.DataFrame) -> "pd.Series[float]":
    return (table["bias2"] / table["truth2"]) ** 0.5


def spread(table: pd.DataFrame) -> "pd.Series[float]":
    return table["variance"] / table["truth2"]


def by_group(start: str) -> pd.DataFrame:
    """Return the rows of one aggregation or of RLOO, with cosine and bias by task and G."""
    table = rows("length").query("kind == 'aggregation'")
    return table[table["estimator"].str.startswith(start)].assign(bias=bias)


def cosines(aggregation: str) -> pd.DataFrame:
    table = by_group("centred")
    table = table[table["aggregation"] == aggregation]
    return table.pivot(index="group", columns="problem", values="cosine").sort_index()


def losses() -> pd.DataFrame:
    table = rows("length").query("kind == 'loss'").assign(bias=bias)
    return table.set_index(["problem", "loss", "aggregation"])


def of_kind(kind: str) -> pd.DataFrame:
    table = rows("difficulty")
    return table[table["kind"] == kind].assign(off=bias)


def factors(name: str) -> "pd.Series[float]":
    table = of_kind("closed")
    return table[table["name"] == name].set_index("p")["factor"].sort_index()


def drifted(horizon: int, drift: float) -> pd.DataFrame:
    table = rows("off-policy").assign(bias=bias, spread=spread)
    at = (table["horizon"] == horizon) & (table["drift"] == drift)
    return table[at].set_index("ratio")


def penalties(sampled: str) -> pd.DataFrame:
    table = rows("kl").assign(bias=bias, spread=spread)
    return table[table["sampled"] == sampled].set_index("form")


def progress(budget: int) -> pd.DataFrame:
    table = rows("groups")
    table = table[table["budget"] == budget]
    return table.pivot(index="group", columns=["problem", "name"], values="progress").sort_index()


# ---- what is said ---------------------------------------------------------------------------


def rloo_is_exact() -> bool:
    table = by_group("RLOO")
    groups = (table["group"].min(), table["group"].max(), table["problem"].nunique())
    return groups == (2, 32, 2) and bool(table["bias"].max() < ROUNDING)


def centred_shrinks() -> bool:
    table = by_group("centred").query("aggregation == 'SUM'")
    same = (table["bias"] * table["group"] - 1).abs().max() < ROUNDING
    return bool(same and (table["cosine"] - 1).abs().max() < ROUNDING)


def seq_is_wrong() -> bool:
    found = cosines("SEQ")
    return bool((found.max() - found.min()).max() < ROUNDING and found.to_numpy().max() < 0.995)


def tok_tends_to_right() -> bool:
    gap = 1 - cosines("TOK")
    return bool((np.diff(gap, axis=0) < 0).all() and gap.iloc[0].min() > 1e-3) and bool(
        (gap.iloc[-1] < gap.iloc[0] / 100).all()
    )


def sum_and_const_keep() -> bool:
    return all(((cosines(a) - 1).abs() < ROUNDING).to_numpy().all() for a in ("SUM", "CONST"))


def equal_lengths_agree() -> bool:
    """All sequences of the easy and the hard task have three tokens; on parity they differ."""
    table = rows("groups").query("budget == 256")
    by = table.pivot(index=["problem", "group"], columns="name", values="cosine")
    off = (by["GRPO"] - by["GRPO, SUM"]).abs().groupby("problem").max()
    tok = (by["GRPO, TOK"] - by["GRPO, SUM"]).abs().groupby("problem").max()
    return bool(max(off["easy+hard"], tok["easy+hard"]) < ROUNDING and off["parity"] > 0.01)


def seq_sizes() -> bool:
    found = cosines("SEQ").iloc[0]
    return [f"{found[p]:.3f}" for p in ("parity", "length-skewed")] == ["0.956", "0.990"]


def tok_sizes() -> bool:
    found = cosines("TOK")["parity"]
    return (f"{found[2]:.4f}", f"{found[32]:.5f}") == ("0.9916", "0.99996")


_LIKE_SCORE = {"PPO", "CISPO-TRL", "CISPO-verl", "SAPO", "LUSPO", "VESPO", "DPPO", "DRO"}


def losses_are_the_score() -> bool:
    table = losses().reset_index()
    same = []
    for _, part in table.groupby("problem"):
        plain = part[(part["loss"] == "score") & (part["aggregation"] == "SUM")].iloc[0]
        close = ((part["variance"] / plain["variance"] - 1).abs() < ROUNDING) & (
            part["bias"] < ROUNDING
        )
        same.append(set(part.loc[close, "loss"]))
    return all(found == _LIKE_SCORE | {"score"} for found in same) and len(same) == 2


def gspo_is_seq() -> bool:
    table = losses()
    for problem in ("parity", "length-skewed"):
        plain = table.loc[(problem, "score", "SEQ")]
        for loss in ("GSPO", "GMPO"):
            own = table.loc[(problem, loss, "SEQ")]
            for column in ("bias", "variance", "cosine"):
                if abs(own[column] / plain[column] - 1) > ROUNDING:
                    return False
    return True


def gspo_size() -> bool:
    found = losses().loc["parity"]["bias"]
    return [f"{found[loss, 'SEQ']:.0%}" for loss in ("GSPO", "GMPO")] == ["41%", "41%"]


def closed_is_enumerated() -> bool:
    table = of_kind("enumerated")
    tasks = table.groupby(["problem", "policy_seed"]).ngroups
    ends = (f"{table['p'].min():.4f}", f"{table['p'].max():.3f}")
    return (tasks, *ends) == (12, "0.0002", "0.998") and bool(table["off"].max() < ROUNDING)


def grpo_is_a_factor() -> bool:
    table = of_kind("enumerated")
    grpo = table[table["name"].str.startswith("GRPO")]
    return grpo["group"].nunique() == 4 and bool(grpo["off"].max() < ROUNDING)


def two_is_constant() -> bool:
    found = factors("GRPO, G = 2")
    return f"{found.min():.4f}" == "0.7071" and bool(found.max() - found.min() < ROUNDING)


def many_tend_to_the_limit() -> bool:
    limit = factors("GRPO, G → ∞")
    near = [(factors(f"GRPO, G = {g}") / limit - 1).abs() for g in (2, 4, 8, 64)]
    closed = np.sqrt(1 / (limit.index.to_numpy() * (1 - limit.index.to_numpy())))
    falls = all((b < a + ROUNDING).all() for a, b in pairwise(near))
    return falls and bool(near[-1].median() < 0.2) and bool(np.allclose(limit, closed))


def hard_counts_more() -> bool:
    found = factors("GRPO, G = 64")
    hard, middle = found.iloc[0], found.iloc[len(found) // 2]
    at = (f"{found.index[0]:.3f}", f"{found.index[len(found) // 2]:.3f}")
    return (*at, f"{hard / middle:.1f}") == ("0.002", "0.500", "3.9")


def ends_count_more() -> bool:
    both = [factors(name) for name in ("GRPO, G = 8", "GRPO, G = 64", "dynamic, G = 8")]
    maxrl = factors("MaxRL, G = 8")
    high = all(min(f.iloc[0], f.iloc[-1]) > 1.2 * f.iloc[len(f) // 2] for f in both)
    return high and bool((np.diff(maxrl) < 0).all())


def dynamic_divides() -> bool:
    found = factors("dynamic, G = 8")
    p = found.index.to_numpy()
    kept = 1 - p**8 - (1 - p) ** 8
    ends = min(found.iloc[0], found.iloc[-1]) > 10 * found.iloc[len(found) // 2]
    return bool(np.allclose(found * kept, 1, rtol=1e-9) and ends)


def maxrl_is_its_objective() -> bool:
    found = factors("MaxRL, G = 8")
    p = found.index.to_numpy()
    wanted = sum((1 - p) ** (k - 1) for k in range(1, 9))
    table = of_kind("enumerated")
    own = table[table["name"].str.startswith("MaxRL")]["off"].max()
    return bool(np.allclose(found, wanted, rtol=1e-9) and own < ROUNDING)


def objectives_are_met() -> bool:
    table = of_kind("objective")
    return bool(table["off"].max() < ROUNDING) and maxrl_is_its_objective()


def pkpo_is_its_objective() -> bool:
    table = of_kind("objective")
    own = table[table["estimator"].str.startswith("PKPO")]
    return list(own["claimed"]) == [1, 1] and bool(own["off"].max() < ROUNDING)


def best_minus_second() -> bool:
    table = of_kind("objective")
    own = table[table["estimator"].str.startswith("max-second")]
    factor = (own["factor"] * own["group"] - 1).abs().max() < ROUNDING
    return len(own) == 2 and bool(factor and own["off"].max() < ROUNDING)


def only_the_sequence_ratio() -> bool:
    table = rows("off-policy").query("drift > 0").assign(bias=bias)
    exact = {name for name, part in table.groupby("ratio") if part["bias"].max() < ROUNDING}
    return exact == {"sequence"} and table["horizon"].max() == 12


def other_ratios_are_biased() -> bool:
    table = rows("off-policy").query("drift == 1").assign(bias=bias)
    others = table[table["ratio"] != "sequence"]
    return others["ratio"].nunique() == 7 and bool(others["bias"].min() > 0.2)


def token_and_prefix_are_biased() -> bool:
    table = rows("off-policy").query("drift > 0").assign(bias=bias)
    return bool(table[table["ratio"].isin(["token", "prefix"])]["bias"].min() > 0.02)


def times_the_variance() -> bool:
    found = drifted(12, 1.0)["spread"]
    return f"{found['sequence'] / found['none']:.0f}" == "52"


def drift_sizes() -> bool:
    found = drifted(12, 1.0)["bias"]
    told = [f"{found[name]:.0%}" for name in ("none", "token", "prefix")]
    return told == ["159%", "161%", "48%"]


def sequence_is_free_of_bias() -> bool:
    return bool(drifted(12, 1.0)["bias"]["sequence"] < ROUNDING) and times_the_variance()


def near_costs_little() -> bool:
    found = drifted(12, 0.25)["spread"]
    return f"{found['sequence'] / found['none']:.1f}" == "1.1"


def truncated_sizes() -> bool:
    found = drifted(12, 1.0)
    ratio = found["spread"]["sequence ≤ 2"] / found["spread"]["none"]
    return f"{found['bias']['sequence ≤ 2']:.0%}" == "61%" and f"{ratio:.1f}" == "0.5"


_EXACT_OFF = {"full", "k1 prefix", "k1 in reward, to go", "k1 in reward"}


def exact_penalties() -> bool:
    on, off = (
        set((t := penalties(sampled)).index[t["bias"] < ROUNDING])
        for sampled in ("on policy", "off policy")
    )
    return on == _EXACT_OFF | {"k2 of sequence"} and off == _EXACT_OFF


def k1_in_loss_is_zero() -> bool:
    # The bias of an estimate whose mean is 0 is the whole gradient.
    found = penalties("on policy").loc["k1 in loss"]
    return abs(found["bias"] - 1) < ROUNDING and found["variance"] > 0


def weighted_k3_is_k2() -> bool:
    found = penalties("on policy")
    two, three = found.loc["k2 per token"], found.loc["ratio · k3"]
    return all(abs(three[c] / two[c] - 1) < ROUNDING for c in ("bias", "variance", "cosine"))


def k3_is_another() -> bool:
    found = penalties("on policy")["cosine"]
    return (
        found["k3 per token"] < 0.99 and abs(found["k3 per token"] - found["k2 per token"]) > 1e-3
    )


def penalty_sizes() -> bool:
    found = penalties("on policy")["bias"]
    names = ("k2 per token", "k3 per token", "k3 in reward")
    return [f"{found[name]:.0%}" for name in names] == ["27%", "29%", "78%"]


def full_is_best() -> bool:
    told = []
    for sampled in ("on policy", "off policy"):
        table = penalties(sampled)
        exact = table[table["bias"] < ROUNDING]
        if exact["spread"].idxmin() != "full":
            return False
        told.append(f"{exact['spread'].min():.2f}")
    return told == ["0.63", "0.56"]


def penalty_variances() -> bool:
    found = penalties("off policy")["spread"]
    names = ("full", "k1 prefix", "k1 in reward")
    return [f"{found[name]:.2f}" for name in names] == ["0.56", "3.43", "9.01"]


def large_groups() -> bool:
    rises = np.diff(progress(256), axis=0).min(0) > 0
    names = progress(256).columns.get_level_values("name")
    return set(names[~rises]) == {"MaxRL"}


def prompts_at(budget: int, digits: int) -> list[str]:
    found = progress(budget)["easy+hard"].loc[32]
    return [f"{found[name]:.{digits}f}" for name in ("GRPO", "RLOO")]


def rloo_rises() -> bool:
    found = progress(256)["parity"]["RLOO"]
    return [f"{found[g]:.3f}" for g in (2, 32)] == ["0.906", "0.957"]


def bias_stays() -> bool:
    """With 16 times the tokens GRPO gains less than RLOO, since its cosine is below 1."""
    cosine = rows("groups").query("problem == 'easy+hard' and group == 32 and budget == 256")
    cosine = cosine.set_index("name")["cosine"]
    gain = progress(4096).loc[32, "easy+hard"] - progress(256).loc[32, "easy+hard"]
    return cosine["GRPO"] < 0.999 < cosine["RLOO"] and gain["GRPO"] < gain["RLOO"]


SEQUENCE_FINDINGS: list[tuple[str, str, Callable[[], bool]]] = [
    (GALLERY, "SEQ points in a wrong direction at every group size,", seq_is_wrong),
    (GALLERY, "TOK tends to the right one,", tok_tends_to_right),
    (GALLERY, "and SUM and CONST have it.", sum_and_const_keep),
    (GALLERY, "a tabular policy of 3 tokens and up to 3 steps", rloo_is_exact),
    (GALLERY, "0.956 on parity and 0.990 on length-skewed rewards.", seq_sizes),
    (
        GALLERY,
        "GRPO at G = 2 multiplies the gradient of every prompt by the same factor:",
        two_is_constant,
    ),
    (
        GALLERY,
        "At larger G hard and easy prompts count for more, as with dynamic sampling, and with "
        "MaxRL hard ones alone.",
        ends_count_more,
    ),
    (GALLERY, "and the enumerated policies lie on them.", closed_is_enumerated),
    (
        GALLERY,
        "Only the sequence ratio is exact at every drift and horizon.",
        only_the_sequence_ratio,
    ),
    (
        GALLERY,
        "Token and prefix ratios, ratios that a bound cuts, the PPO clip and GSPO are biased.",
        other_ratios_are_biased,
    ),
    (
        GALLERY,
        "the variance of the sequence ratio at horizon 12 and drift 1 is 52 times that of no "
        "ratio.",
        times_the_variance,
    ),
    (
        GALLERY,
        "Five forms are the gradient of the KL divergence of sequences on policy, and four of them "
        "off policy.",
        exact_penalties,
    ),
    (GALLERY, "k1 in the loss has a mean of 0 on policy.", k1_in_loss_is_zero),
    (
        GALLERY,
        'the form "full" has the smallest variance of the exact ones, 0.63 of the squared gradient '
        "on policy and 0.56 off policy.",
        full_is_best,
    ),
    (
        GALLERY,
        "At 256 tokens every estimator but MaxRL makes more progress in larger groups.",
        large_groups,
    ),
    (
        GALLERY,
        "GRPO at G = 32 reaches 0.87 and RLOO 0.84.",
        lambda: prompts_at(256, 2) == ["0.87", "0.84"],
    ),
    (
        GALLERY,
        "With 4096 tokens the order turns: 0.979 and 0.988, because the bias of GRPO stays.",
        lambda: prompts_at(4096, 3) == ["0.979", "0.988"] and bias_stays(),
    ),
    (PAGE, "RLOO has the gradient of the expected reward J as its mean.", rloo_is_exact),
    (PAGE, "The centred reward has (G - 1)/G of it, in the same direction.", centred_shrinks),
    (
        PAGE,
        "on both tasks, from G = 2 to 32, RLOO misses grad J by rounding alone, and the centred "
        "reward is (G - 1)/G of it up to rounding.",
        lambda: rloo_is_exact() and centred_shrinks(),
    ),
    (
        PAGE,
        "Its direction is wrong at every group size, and no larger group mends it.",
        seq_is_wrong,
    ),
    (
        PAGE,
        "TOK, the mean over all tokens of the group, tends to the right direction as the group "
        "grows.",
        tok_tends_to_right,
    ),
    (PAGE, "SUM and CONST keep the direction.", sum_and_const_keep),
    (
        PAGE,
        "Where all sequences are equally long, the four have one direction.",
        equal_lengths_agree,
    ),
    (
        PAGE,
        "with SEQ the cosine with grad J is 0.956 on parity and 0.990 on length-skewed rewards, "
        "the same at every G.",
        lambda: seq_sizes() and seq_is_wrong(),
    ),
    (PAGE, "from 0.9916 at G = 2 to 0.99996 at G = 32 on parity.", tok_sizes),
    (
        PAGE,
        "on policy, PPO clip, CISPO, SAPO, LUSPO, VESPO, DPPO and DRO are all the same as the "
        "plain score.",
        losses_are_the_score,
    ),
    (
        PAGE,
        "GSPO and GMPO are not: they have the mean and the variance of SEQ.",
        gspo_is_seq,
    ),
    (PAGE, "their bias is 41 % of grad J on parity.", gspo_size),
    (
        PAGE,
        "with rewards 0 and 1 the mean of GRPO with SUM is c(p) grad p, where p is the "
        "probability of success.",
        grpo_is_a_factor,
    ),
    (
        PAGE,
        "At G = 2 it is the constant 0.7071: 2-GRPO has no difficulty bias.",
        two_is_constant,
    ),
    (PAGE, "As G grows it tends to 1/sqrt(p (1 - p)).", many_tend_to_the_limit),
    (
        PAGE,
        "on 12 enumerated tasks, with p from 0.0002 to 0.998, the mean is the closed form times "
        "grad p up to rounding.",
        closed_is_enumerated,
    ),
    (
        PAGE,
        "At G = 64 a prompt with p = 0.002 counts 3.9 times as much as one with p = 0.5.",
        hard_counts_more,
    ),
    (
        PAGE,
        "dynamic sampling, which draws groups of equal rewards again, divides by the probability "
        "that a group is kept. That favours both easy and hard prompts.",
        dynamic_divides,
    ),
    (
        PAGE,
        "MaxRL has the gradient of the sum of pass@k / k, for k up to G.",
        maxrl_is_its_objective,
    ),
    (PAGE, "PKPO(k) has that of pass@k.", pkpo_is_its_objective),
    (
        PAGE,
        "The best sample minus the second has 1/G of the gradient of the expected best of G.",
        best_minus_second,
    ),
    (
        PAGE,
        "all three agree with the gradients of their objectives up to rounding.",
        objectives_are_met,
    ),
    (
        PAGE,
        "only the ratio of whole sequences corrects for the rollout policy exactly.",
        only_the_sequence_ratio,
    ),
    (PAGE, "Both are biased for grad J,", token_and_prefix_are_biased),
    (PAGE, "as are ratios that a bound cuts, the PPO clip and GSPO.", other_ratios_are_biased),
    (
        PAGE,
        "at horizon 12 the bias is 159 % without a ratio, 161 % with the token ratio and 48 % with "
        "the prefix ratio.",
        drift_sizes,
    ),
    (
        PAGE,
        "The sequence ratio has none, and 52 times the variance of no ratio.",
        sequence_is_free_of_bias,
    ),
    (
        PAGE,
        "At a drift of 0.25 the sequence ratio costs next to nothing: 1.1 times the variance of "
        "no ratio.",
        near_costs_little,
    ),
    (
        PAGE,
        "Truncated at 2, it has a bias of 61 % at the largest drift and half of the variance of no "
        "ratio.",
        truncated_sizes,
    ),
    (
        PAGE,
        "on policy, k1 in the loss has a mean of 0: it does nothing but add noise.",
        k1_in_loss_is_zero,
    ),
    (
        PAGE,
        "k3 weighted by the ratio is the same as k2 per token.",
        weighted_k3_is_k2,
    ),
    (PAGE, "k3 per token is another direction again.", k3_is_another),
    (
        PAGE,
        "the partial gradient is off by 27 %, k3 per token by 29 %, and k3 in the reward by 78 %.",
        penalty_sizes,
    ),
    (
        PAGE,
        'off policy two forms in the loss are exact, "k1 prefix" and "full".',
        exact_penalties,
    ),
    (
        PAGE,
        'the variance of "full" is 0.56 of the squared gradient, that of "k1 prefix" 3.43 and that '
        'of "k1 in reward" 9.01.',
        penalty_variances,
    ),
    (
        PAGE,
        "RLOO rises from 0.906 to 0.957 of the best step's gain on parity, from G = 2 to 32.",
        rloo_rises,
    ),
    (
        PAGE,
        "GRPO at G = 32 is ahead of RLOO, 0.873 and 0.841.",
        lambda: prompts_at(256, 3) == ["0.873", "0.841"],
    ),
    (
        PAGE,
        "With 4096 tokens RLOO is ahead, 0.988 and 0.979.",
        lambda: prompts_at(4096, 3) == ["0.979", "0.988"],
    ),
    (
        PAGE,
        "the bias of GRPO in direction across prompts does not fall with more tokens, and the "
        "variance of RLOO does.",
        bias_stays,
    ),
]
"""A page, what it says, and what must hold."""

"""Mutants of estimates from several samples: bounds, and policy gradients over sequences."""

from .mutant import Mutant

__all__ = ["SEVERAL_SAMPLES"]

_BOUND_MOMENTS = ("tests/bounds/test_bound_moments.py",)
_FACTS = ("tests/sequences/test_gradient_facts.py",)
_LOOPS = ("tests/sequences/test_exact_policy_moments.py",)

SEVERAL_SAMPLES = {
    # ---- bounds -------------------------------------------------------------------------------
    "VIMCO with its own sample": Mutant(
        "bounds/score_function.py",
        "torch.logaddexp(others, mean_of_others(on.log_w))",
        "torch.logaddexp(others, on.log_w.mean(0))",
        "the baseline of VIMCO depends on its own sample",
        _BOUND_MOMENTS,
    ),
    "the bound's gradient without shares": Mutant(
        "bounds/truth.py",
        "log_mean(log_w - centre) - shares(log_w)",
        "log_mean(log_w - centre)",
        "the true gradient of a bound",
        _BOUND_MOMENTS,
    ),
    "fresh samples have no variance": Mutant(
        "bounds/moments.py",
        "yield p, first, second / fresh",
        "yield p, first, 0 * second / fresh",
        "the exact variance of OVIS-MC",
        _BOUND_MOMENTS,
    ),
    # ---- sequences ----------------------------------------------------------------------------
    "groups in one order only": Mutant(
        "sequences/multisets.py",
        "torch.special.xlogy(counts, mass).sum(-1) - torch.lgamma(counts + 1).sum(-1)",
        "torch.special.xlogy(counts, mass).sum(-1)",
        "the probability of a group of sequences",
        _LOOPS,
    ),
    "k3 turned round": Mutant(
        "sequences/kl_terms.py",
        "return safe_exp(-log_ratio) - 1 + log_ratio",
        "return safe_exp(log_ratio) - 1 - log_ratio",
        "the gradient of the KL penalty k3",
        _FACTS,
    ),
    "tokens of each prompt for those of the batch": Mutant(
        "sequences/aggregation.py",
        "(1 / tokens.sum((-2, -1), keepdim=True))",
        "(1 / tokens.sum(-1, keepdim=True))",
        "the mean over the tokens of several prompts",
        ("tests/sequences/test_trainer_formulas.py",),
    ),
    "prefix without its token": Mutant(
        "sequences/kl_terms.py",
        'weight = tokens.importance("prefix") * tokens.log_reference_ratio',
        "weight = tokens.log_reference_ratio",
        "k1-prefix off policy",
        _FACTS,
    ),
}

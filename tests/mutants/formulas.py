"""Mutants of numbers: formulas of the estimators, draws, exact moments, moments of draws."""

from .mutant import Mutant

__all__ = ["FORMULAS"]

_CLAIMS = ("tests/estimators/test_claims.py",)
_GOLDEN = ("tests/estimators/test_golden.py",)
_CONFORMANCE = ("tests/estimators/test_conformance.py",)
_ENUMERATION = ("tests/exact/test_enumeration.py",)
_MOMENTS = ("tests/exact/test_moments.py",)
_DIRECT = ("tests/exact/test_direct.py",)
_ALL_CORES = ("tests/exact/test_all_cores.py",)
_MONTE_CARLO = ("tests/comparison/test_montecarlo.py",)
_SUMS = ("tests/comparison/test_sums_of_draws.py",)
_GATE = ("tests/loss/test_gate.py", "tests/loss/test_contract.py")

FORMULAS = {
    # ---- formulas of the estimators -----------------------------------------------------------
    "ST forgets to centre": Mutant(
        "estimators/straight_through.py",
        "return softmax_vjp(p, v, short_rows=True)",
        "return p * v",
        "rows of the gradient no longer sum to 0",
        _CLAIMS + _CONFORMANCE,
    ),
    "DARN with p for x - p": Mutant(
        "estimators/straight_through.py",
        "return s * row_dot(s, v)",
        "return s * row_dot(x, v)",
        "the Taylor baseline is gone",
        _GOLDEN + _MOMENTS,
    ),
    "ZGR with one half too many": Mutant(
        "estimators/straight_through.py",
        "p, v - at_x, value=0.5)",
        "p, v - at_x, value=0.51)",
        "2 % more of ST: not exact for quadratics",
        _CLAIMS,
    ),
    "ST-ZGR at the wrong alpha": Mutant(
        "estimators/straight_through.py",
        "weight = self.alpha / 2",
        "weight = self.alpha / 2.02",
        "alpha = 1 is no longer ZGR",
        _CLAIMS + _GOLDEN,
    ),
    "ReinMax without its last term": Mutant(
        "estimators/second_order.py",
        "return at_middle - softmax_vjp(p, v, short_rows=True) / 2",
        "return at_middle - softmax_vjp(p, v, short_rows=True)",
        "Heun's rule becomes first order",
        _CLAIMS,
    ),
    "GR averages k samples as k - 1": Mutant(
        "estimators/gumbel.py",
        "second / k + (1 - 1 / k) * square",
        "second / k + (1 - 2 / k) * square",
        "the exact variance of GR(k)",
        ("tests/estimators/test_gumbel_tables.py", *_MOMENTS, *_MONTE_CARLO),
    ),
    "GS takes the gradient at x": Mutant(
        "estimators/gumbel.py",
        "v = gradient(f, y[0].contiguous().to(logits.dtype))",
        "v = gradient(f, x.contiguous().to(logits.dtype))",
        "GS becomes GS-ST",
        _GOLDEN + _CONFORMANCE,
    ),
    "RF without its baseline": Mutant(
        "estimators/score_function.py",
        "return values - self.baseline",
        "return values",
        "the baseline of REINFORCE is ignored by draws",
        ("tests/estimators/test_baselines.py", *_GOLDEN, *_CONFORMANCE, *_MONTE_CARLO),
    ),
    "score without p": Mutant(
        "estimators/score_function.py",
        "return value, (weight * (x - p)).to(logits.dtype)",
        "return value, (weight * x).to(logits.dtype)",
        "REINFORCE is biased",
        _CLAIMS,
    ),
    "leave-one-out over m": Mutant(
        "estimators/score_function.py",
        ".to(dtype) / (len(values) - 1)",
        ".to(dtype) / len(values)",
        "RF(m) shrinks by (m - 1) / m",
        _CLAIMS,
    ),
    "variance of RF(m)": Mutant(
        "estimators/score_function.py",
        "(self.m - 2) * gradient2) / pairs",
        "(self.m - 1) * gradient2) / pairs",
        "the exact variance of RF(m)",
        _MOMENTS + _MONTE_CARLO,
    ),
    "variance of RF": Mutant(
        "estimators/score_function.py",
        "square = conditional_square + 2 * shift * excess + shift**2",
        "square = conditional_square + shift * excess + shift**2",
        "the exact variance of REINFORCE",
        _MOMENTS + _MONTE_CARLO,
    ),
    "LE without its own class": Mutant(
        "estimators/local_expectation.py",
        "estimate = softmax_vjp(p, phi)",
        "estimate = p * (phi - phi.mean(-1, keepdim=True))",
        "local expectations use equal weights",
        _CLAIMS,
    ),
    "unordered set without its baseline's weight": Mutant(
        "estimators/unordered_set.py",
        "weight = log_p.exp() * r",
        "weight = log_p.exp() * r.mean(0)",
        "the unordered set is biased",
        (*_CLAIMS, "tests/estimators/test_without_replacement.py"),
    ),
    # ---- draws --------------------------------------------------------------------------------
    "classes drawn one too low": Mutant(
        "samples.py",
        "u = u * cumulated[..., -1:]",
        "u = u * u * cumulated[..., -1:]",
        "the law of x is not p",
        (*_MONTE_CARLO, "tests/estimators/test_conformance.py"),
    ),
    "probabilities not in double": Mutant(
        "samples.py",
        "cumulated = p.detach().cumsum(-1, dtype=torch.float64)",
        "cumulated = p.detach().cumsum(-1, dtype=torch.bfloat16).double()",
        "small probabilities are distorted",
        _MONTE_CARLO + _CONFORMANCE,
    ),
    "relaxed sample at tau squared": Mutant(
        "samples.py",
        ".log1p_().mul_(-1 / tau).exp_()",
        ".log1p_().mul_(-1 / tau**2).exp_()",
        "a relaxed sample of another temperature",
        (*_GOLDEN, "tests/estimators/test_gumbel_tables.py"),
    ),
    "tempered the other way": Mutant(
        "categorical.py",
        "return torch.softmax(p.log() / tau, -1)",
        "return torch.softmax(p.log() * tau, -1)",
        "p^tau instead of p^(1 / tau)",
        ("tests/estimators/test_tempered.py", *_GOLDEN),
    ),
    "no look at NaN": Mutant(
        "categorical.py",
        "if torch.isnan(top).any():",
        "if torch.isnan(top).all():",
        "NaN in some rows gets another message",
        ("tests/test_errors.py", *_GATE),
    ),
    # ---- exact --------------------------------------------------------------------------------
    "gradient without p": Mutant(
        "exact/enumeration.py",
        "return self.p * self.excess",
        "return self.excess",
        "the exact gradient",
        _ENUMERATION,
    ),
    "second moment not centred": Mutant(
        "exact/enumeration.py",
        "(given_square[0] - 2 * mean * given + mean**2)",
        "(given_square[0] - mean * given)",
        "the conditional square of f",
        (*_ENUMERATION, *_MOMENTS, "tests/exact/test_rounding.py"),
    ),
    "no second look at f": Mutant(
        "exact/enumeration.py",
        "    _check_steady(objective, evaluate(objective, last), raw)\n",
        "",
        "an f that changes during the sweep is not refused",
        (*_ENUMERATION, "tests/loss/test_batches.py", "tests/loss/test_contract.py"),
    ),
    "covariance not centred": Mutant(
        "exact/enumeration.py",
        "covariance = covariance - given[..., :, None] * given[..., None, :]",
        "covariance = covariance",
        "the covariance of grad f",
        _MOMENTS + _ENUMERATION,
    ),
    "variance without the classes": Mutant(
        "exact/product_moments.py",
        "(of_gradient + of_noise + of_class).clamp_min(0.0)",
        "(of_gradient + of_noise).clamp_min(0.0)",
        "one of three terms of the variance",
        _GOLDEN,
    ),
    "noise of the Jacobian twice": Mutant(
        "exact/product_moments.py",
        "inner = second - first.transpose(-1, -2) @ first",
        "inner = second",
        "the inner variance of GR",
        _GOLDEN,
    ),
    "refusals ignored": Mutant(
        "exact/moments.py",
        "refused = estimator.refusal(given)",
        "refused = None",
        "exact moments of what the estimator refuses",
        ("tests/exact/test_sizes.py", "tests/estimators/test_arms.py"),
    ),
    # ---- losses that see the logits, sweeps on several threads --------------------------------
    "the direct part once": Mutant(
        "exact/direct.py",
        "((2 * away + d) * d)",
        "((away + d) * d)",
        "the variance of an estimate of the whole gradient of f(x, logits)",
        _DIRECT,
    ),
    "RF(m) of deviations from 0": Mutant(
        "exact/direct.py",
        "level = evaluate(f, x).detach().to(torch.float64) - values.mean",
        "level = evaluate(f, x).detach().to(torch.float64)",
        "the covariance of RF(m) with df/dlogits",
        _DIRECT,
    ),
    "delta of the whole": Mutant(
        "verification/second_argument.py",
        "delta=question.delta * first / whole",
        "delta=question.delta",
        "a long df/dlogits hides a bias of the estimated part",
        ("tests/verification/test_direct_verdicts.py",),
    ),
    "the last block first": Mutant(
        "exact/all_cores.py",
        "future, argument = waiting.popleft()",
        "future, argument = waiting.pop()",
        "blocks that several threads have swept are out of order",
        _ALL_CORES,
    ),
    "no block is asked for again": Mutant(
        "exact/all_cores.py",
        "index % _ASKED_AGAIN == 0 and not",
        "index < 0 and not",
        "a race of f that the trial does not meet",
        _ALL_CORES,
    ),
    "every loss bears threads": Mutant(
        "exact/interruption.py",
        "if not all(map(torch.equal, (result, *found), (alone, beside))):",
        "if not torch.equal(result, result):",
        "a loss that keeps something between two steps is swept by several threads",
        ("tests/exact/test_interruption.py", *_ALL_CORES),
    ),
    # ---- moments and Monte Carlo --------------------------------------------------------------
    "variance over n": Mutant(
        "moments.py",
        "(square / max(n - 1, 1)).sum(-1), n, groups)",
        "(square / max(n, 1)).sum(-1), n, groups)",
        "the variance of draws leans by 1 / n",
        _SUMS,
    ),
    "squared bias with its noise": Mutant(
        "moments.py",
        "bias2 = distance2 - float(self.variance_per_variable.sum()) / self.n",
        "bias2 = distance2",
        "the squared bias of an unbiased estimator is var / n",
        _SUMS,
    ),
    "noise of the truth forgotten": Mutant(
        "moments.py",
        "bias2 -= float(truth.variance_per_variable.sum()) / truth.n",
        "pass",
        "a measured truth counts as exact",
        _SUMS,
    ),
    "groups merged by halves": Mutant(
        "draw_sums.py",
        "self.mean + share * delta,",
        "self.mean + 0.5 * delta,",
        "the mean over blocks of different lengths",
        _SUMS,
    ),
    "jackknife without its factor": Mutant(
        "moments.py",
        "((GROUPS - 1) * left.var(correction=0)).sqrt()",
        "left.var(correction=0).sqrt()",
        "standard errors four times too small",
        (*_MONTE_CARLO, "tests/verification/test_coverage.py"),
    ),
    "one seed for all blocks": Mutant(
        "reproducible.py",
        "np.random.SeedSequence([seed, block, *words.tolist()])",
        "np.random.SeedSequence([seed, *words.tolist()])",
        "each block repeats the draws of the first",
        _MONTE_CARLO,
    ),
    "one stream for all rows": Mutant(
        "reproducible.py",
        "np.random.SeedSequence([seed, block, *words.tolist()])",
        "np.random.SeedSequence([seed, block])",
        "rows share their random numbers",
        _MONTE_CARLO,
    ),
    "purpose without a stream": Mutant(
        "reproducible.py",
        'f"{purpose}:{seed}"',
        'f"{seed}"',
        "a problem and its logits share their random numbers",
        ("tests/problems/test_problems.py",),
    ),
}

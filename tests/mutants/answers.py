"""Mutants of what answers rest on: the gate, verdicts, the ranking, the store of a sweep."""

from .mutant import Mutant

__all__ = ["ANSWERS"]

_RANKING = ("tests/comparison/test_recommending.py", "tests/comparison/test_comparing.py")
_OF_ROWS = ("tests/comparison/test_from_rows.py",)
_MEAN_TEST = (
    "tests/verification/test_mean_test.py",
    "tests/verification/test_sequential_test.py",
)
_SEQUENTIAL = (
    "tests/verification/test_sequential_test.py",
    "tests/verification/test_verifying.py",
)
_STORE = ("tests/sweep/test_store.py",)
_GATE = ("tests/loss/test_gate.py", "tests/loss/test_contract.py")

ANSWERS = {
    # ---- the gate -----------------------------------------------------------------------------
    "f is not asked alone": Mutant(
        "loss/gate.py",
        "seen = torch.cat([several, *alone])",
        "seen = torch.cat([several, values[:2]])",
        "an f that depends on the size of the batch passes",
        (*_GATE, "tests/loss/test_batches.py"),
    ),
    "f may draw": Mutant(
        "loss/gate.py",
        "if global_states() != before:",
        "if False:",
        "an f that draws random numbers passes",
        _GATE,
    ),
    "f may hold the logits": Mutant(
        "loss/gate.py",
        "return any(grad is not None for grad in grads)",
        "return False",
        "an f with a graph to the logits passes",
        _GATE,
    ),
    # ---- verdicts -----------------------------------------------------------------------------
    "kurtosis not seen": Mutant(
        "verification/mean_test.py",
        "return min(2 * self.sums.n / max(kurtosis - 1, 1e-9), self.sums.n - 1.0)",
        "return self.sums.n - 1.0",
        "heavy tails count as normal",
        _MEAN_TEST,
    ),
    "no Bonferroni": Mutant(
        "verification/mean_test.py",
        "return min(1.0, p * len(self.statistics))",
        "return min(1.0, p)",
        "the least of many p-values",
        (*_MEAN_TEST, "tests/verification/test_calibration.py"),
    ),
    "evidence summed": Mutant(
        "verification/mean_test.py",
        "return float(np.logaddexp.reduce(each)) - math.log(len(each))",
        "return float(np.logaddexp.reduce(each))",
        "the e-value of coordinates is their sum",
        _MEAN_TEST,
    ),
    "dependence at 20 %": Mutant(
        "verification/evidence.py",
        "_DEPENDENT = 0.1",
        "_DEPENDENT = 0.2",
        "independent draws are refused too often",
        _SEQUENTIAL,
    ),
    "biased below alpha only": Mutant(
        "verification/sequential_test.py",
        "return self.log_e_value >= -math.log(self.question.alpha)",
        "return self.log_e_value >= 1",
        "a verdict at e instead of 1 / alpha",
        (*_SEQUENTIAL, "tests/verification/test_calibration.py"),
    ),
    "unmet states count as met": Mutant(
        "verification/sequential_test.py",
        "return UNBIASED if decided and not self.unmet else INCONCLUSIVE",
        "return UNBIASED if decided else INCONCLUSIVE",
        "unbiased before rare states were met",
        _SEQUENTIAL,
    ),
    "the margin doubled": Mutant(
        "verification/sequential_test.py",
        "return self.question.delta * self.length",
        "return 2 * self.question.delta * self.length",
        "unbiased up to twice what was asked",
        _SEQUENTIAL,
    ),
    "squared bias of pairs": Mutant(
        "verification/deviation_sums.py",
        "float((2 * self.scatter.square().sum()).sqrt()) / max(self.n - 1, 1) / self.n",
        "float(self.scatter.square().sum().sqrt()) / max(self.n - 1, 1) / self.n",
        "its standard error is too small",
        _MEAN_TEST,
    ),
    "calls ignored": Mutant(
        "verification/deviation_sums.py",
        "_FEWEST = 8",
        "_FEWEST = 10**9",
        "noise that draws of a call share",
        _SEQUENTIAL,
    ),
    # ---- ranking ------------------------------------------------------------------------------
    "variance not averaged": Mutant(
        "comparison/means_of_draws.py",
        "return bias2 + variance / n, np.sqrt(square.clip(min=0.0))",
        "return bias2 + variance, np.sqrt(square.clip(min=0.0))",
        "the error of a mean of n draws",
        _RANKING,
    ),
    "budget not divided by the cost": Mutant(
        "comparison/ranking.py",
        "np.maximum(budget // costs, 1)",
        "np.maximum(budget // np.ones_like(costs), 1)",
        "dear estimators rank as cheap ones",
        _RANKING,
    ),
    "ties at one error": Mutant(
        "comparison/ranking.py",
        "noise = 2 * np.hypot(se, se[first])",
        "noise = 0 * np.hypot(se, se[first])",
        "what cannot be told from the first is not rank 1",
        _RANKING,
    ),
    "exact rows not preferred": Mutant(
        "comparison/ranking.py",
        'is_exact | ~measured["estimator"]',
        '~is_exact | ~measured["estimator"]',
        "measured rows replace exact ones",
        _RANKING,
    ),
    "a run is its first step": Mutant(
        "comparison/over_steps.py",
        "return value.mean(-1),",
        "return value[..., 0],",
        "the ranking of a run is that of its first step",
        _OF_ROWS,
    ),
    "momentum without its variance": Mutant(
        "comparison/averaging.py",
        "return batch * (1 + momentum) / (1 - momentum)",
        "return batch / (1 - momentum)",
        "a momentum averages half of what it does",
        ("tests/comparison/test_averaging.py",),
    ),
    # ---- the store of a sweep -----------------------------------------------------------------
    "checksums not read": Mutant(
        "sweep/database.py",
        "if _checksum(tuple(values)) != checksum:",
        "if False:",
        "damaged rows are read",
        _STORE,
    ),
    "versions mixed": Mutant(
        "sweep/store.py",
        "if there != here:",
        "if False:",
        "rows of two versions in one store",
        _STORE,
    ),
    "failed rows stay": Mutant(
        "sweep/store.py",
        "DELETE FROM cells WHERE error IS NOT NULL",
        "DELETE FROM cells WHERE error IS NULL",
        "the good rows are removed",
        (*_STORE, "tests/sweep/test_faults.py"),
    ),
    "seed of a cell": Mutant(
        "sweep/cells.py",
        "return seed_of(self.id)",
        "return seed_of(self.id, bits=6)",
        "cells share their seeds",
        (*_STORE, "tests/sweep/test_grid.py"),
    ),
}

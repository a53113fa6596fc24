"""Mutants of what x is drawn from: laws of structures, their exact moments, their rows."""

from .mutant import Mutant

__all__ = ["STRUCTURES"]

_LAWS = ("tests/distributions/test_distributions.py",)
_THEOREM = ("tests/distributions/test_theorem.py",)
_AT_ONE_CATEGORICAL = ("tests/distributions/test_peers.py",)
_VERDICTS = ("tests/verification/test_on_structures.py",)

STRUCTURES = {
    # ---- laws ---------------------------------------------------------------------------------
    "a structure's DARN counted twice": Mutant(
        "distributions/gradient.py",
        "(mean - mean.detach()) + alpha / 2 * away * score",
        "(mean - mean.detach()) + alpha * away * score",
        "the backward of samples is not exact on linear losses",
        _AT_ONE_CATEGORICAL,
    ),
    "the score without its mean": Mutant(
        "distributions/base.py",
        "self._score(x) - self._linear([m.detach() for m in means])",
        "self._score(x)",
        "the score of a structure is not centred",
        _AT_ONE_CATEGORICAL,
    ),
    "entropy with the wrong sign": Mutant(
        "distributions/base.py",
        "return self.log_partition - self._linear(self.means())",
        "return self.log_partition + self._linear(self.means())",
        "the entropy of a structure",
        _LAWS,
    ),
    "all samples in one block": Mutant(
        "distributions/base.py",
        "at_once = max(1, _ELEMENTS // max(1, self._numbers_per_draw()))",
        "at_once = max(1, n)",
        "the memory of many samples has no bound",
        _LAWS,
    ),
    "a subset splits by its left half": Mutant(
        "distributions/k_subset.py",
        "weight = torch.where(usable, left + right, -torch.inf)",
        "weight = torch.where(usable, left, -torch.inf)",
        "the law of sampled subsets",
        _LAWS,
    ),
    "a permutation without its row": Mutant(
        "distributions/permutation.py",
        "weight = levels[row][..., before] + theta[..., row, :][..., column]",
        "weight = levels[row][..., before]",
        "the law of sampled permutations",
        _LAWS,
    ),
    "a chain walks back by the wrong transition": Mutant(
        "distributions/chain.py",
        "into = pairwise[..., t, :, :].transpose(-1, -2)",
        "into = pairwise[..., t, :, :]",
        "the law of sampled chains",
        _LAWS,
    ),
    "trees of equal weights": Mutant(
        "distributions/spanning_tree.py",
        "p = self._weights(theta).double().softmax(-1)",
        "p = self._weights(0 * theta).double().softmax(-1)",
        "the law of sampled trees",
        _LAWS,
    ),
    "a table's spread for its variance": Mutant(
        "distributions/table.py",
        "(weight * away.square()).sum(len(self.batch_shape))",
        "(weight * away.abs()).sum(len(self.batch_shape))",
        "the variance of a table of states",
        _LAWS,
    ),
    # ---- exact moments ------------------------------------------------------------------------
    "an offset costs digits": Mutant(
        "exact/structures.py",
        "weight = self.p * (self.values - self.value)",
        "weight = self.p * self.values",
        "the gradient of a loss with a large offset loses digits",
        _THEOREM,
    ),
    "RF(m) of a structure without m - 2": Mutant(
        "exact/structures.py",
        "first = (both - g.square()) / 4",
        "first = (both - g.square()) / 2",
        "the exact variance of RF(m) on a structure",
        _THEOREM,
    ),
    "scores of a draw over m": Mutant(
        "exact/structures.py",
        "weight = (of_draw - of_draw.mean(1, keepdim=True)) / (m - 1)",
        "weight = (of_draw - of_draw.mean(1, keepdim=True)) / m",
        "draws of RF(m) on a structure are too short",
        _THEOREM,
    ),
    "normalized at one place only": Mutant(
        "exact/finite_states.py",
        "if not float(mean_score.abs().max()) < allowed:",
        "if False:",
        "a log_prob that is normalized at these parameters alone passes",
        _THEOREM,
    ),
    "every block is the first": Mutant(
        "exact/structures.py",
        "slice(start, min(start + size, count)) for",
        "slice(0, min(size, count)) for",
        "states of later blocks get the probabilities of the first",
        _THEOREM,
    ),
    # ---- rows ---------------------------------------------------------------------------------
    "one seed for rows of structures": Mutant(
        "comparison/of_structures.py",
        "moments = drawn_moments(estimator, on, draws, seed)",
        "moments = drawn_moments(estimator, on, draws, 0)",
        "the seed of compare is ignored",
        _THEOREM,
    ),
    "progress of structures at 10 draws": Mutant(
        "comparison/of_structures.py",
        "row |= measure(moments, truth, averaged)",
        "row |= measure(moments, truth, 10.0)",
        "`averaged` of compare is ignored",
        _THEOREM,
    ),
    "one way for both": Mutant(
        "comparison/of_structures.py",
        '{"both": ["exact", "monte carlo"], ',
        '{"both": ["exact"], ',
        "the method both gives one row",
        _THEOREM,
    ),
    # ---- verdicts on structures ---------------------------------------------------------------
    "every tuple is two of the same": Mutant(
        "verification/structure_bias.py",
        "place // count**k % count for k in range(m)",
        "place // count % count for k in range(m)",
        "estimators of several samples are proved on samples that are equal",
        _VERDICTS,
    ),
    "what trains is not put to all states": Mutant(
        "verification/of_structures.py",
        "if judge == DRAW or not trains(estimator, on):\n        return verdict",
        "if judge != TRAINING or not trains(estimator, on):\n        return verdict",
        "a wrong backward beside a right draw is proved unbiased",
        _VERDICTS,
    ),
    "any law of samples will do": Mutant(
        "verification/law_of_samples.py",
        "p_value = 2 * torch.minimum(torch.from_numpy(of_less), torch.from_numpy(of_more))",
        "p_value = 2 * torch.maximum(torch.from_numpy(of_less), torch.from_numpy(of_more))",
        "samples that do not follow log_prob are judged",
        _VERDICTS,
    ),
}

"""A tabular policy small enough to enumerate: 3 tokens, up to 3 steps, token 0 ends; 15 sequences.

The truth here is written in plain loops and sums, apart from the package.
"""

import itertools

import torch

from gradlab.sequences import Group

VOCABULARY, HORIZON, END = 3, 3, 0


def _sequences():
    found = []
    for n in range(1, HORIZON + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=n):
            ends = tokens[-1] == END or n == HORIZON
            if ends and END not in tokens[:-1]:
                found.append(tokens)
    return found


SEQUENCES = _sequences()
PREFIXES = sorted({s[:t] for s in SEQUENCES for t in range(len(s))}, key=lambda p: (len(p), p))
LENGTHS = torch.tensor([len(s) for s in SEQUENCES])


def table(seed, scale=1.0):
    """Return logits of the next token after each prefix."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(len(PREFIXES), VOCABULARY, generator=generator, dtype=torch.float64)


class Small:
    """All sequences of the policy with a table of logits: probabilities and scores."""

    def __init__(self, logits):
        p = logits.softmax(-1)
        shape = (len(SEQUENCES), HORIZON)
        self.log_prob = torch.zeros(shape, dtype=torch.float64)
        self.logits = torch.zeros(*shape, VOCABULARY, dtype=torch.float64)
        self.score = torch.zeros(*shape, *logits.shape, dtype=torch.float64)
        self.place = torch.zeros(shape, dtype=torch.int64)
        for row, tokens in enumerate(SEQUENCES):
            for t, token in enumerate(tokens):
                at = PREFIXES.index(tokens[:t])
                self.log_prob[row, t] = p[at, token].log()
                self.logits[row, t] = logits[at]
                self.score[row, t, at] = -p[at]
                self.score[row, t, at, token] += 1
                self.place[row, t] = at
        self.probability = self.log_prob.sum(-1).exp()
        self.whole_score = self.score.sum(1)

    def gradient(self, values):
        """Return the gradient of E values."""
        return torch.einsum("s,s,spv->pv", self.probability, values, self.whole_score)

    def kl_gradient(self, reference):
        """Return the gradient of KL(pi || ref) of the sequence."""
        return self.gradient((self.log_prob - reference.log_prob).sum(-1))


def groups(estimator, policy, rewards, g, rollout=None, reference=None, prompts=None, greedy=None):
    """Return all groups of g sequences, with their probabilities."""
    rollout = rollout or policy
    rows = torch.tensor(list(itertools.product(range(len(SEQUENCES)), repeat=g)))
    group = Group(
        rewards[rows],
        LENGTHS[rows],
        policy.log_prob[rows],
        rollout.log_prob[rows],
        None if reference is None else reference.log_prob[rows],
        logits=policy.logits[rows],
        reference_logits=None if reference is None else reference.logits[rows],
        greedy_rewards=None if greedy is None else greedy.expand(len(rows)),
    )
    return rows, group, rollout.probability[rows].prod(-1)


def mean_of(estimator, policy, rewards, g=None, **given):
    """Return the mean of an estimate over all groups, one by one."""
    rows, group, chance = groups(estimator, policy, rewards, g or estimator.g, **given)
    kept = estimator.kept(group.rewards)
    chance = chance * kept / (chance * kept).sum()
    mean = torch.einsum(
        "n,ngt,ngtpv->pv", chance, estimator.coefficients(group), policy.score[rows]
    )
    extra = estimator.logit_coefficients(group)
    if extra is not None:
        for at in range(len(PREFIXES)):
            here = (policy.place[rows] == at) & group.mask
            mean[at] += torch.einsum("n,ngt,ngtv->v", chance, here.double(), extra)
    return mean


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


POLICY, ROLLOUT, REFERENCE = Small(table(0)), Small(table(0) + 0.4 * table(1)), Small(table(2))
REAL = torch.randn(len(SEQUENCES), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
# Short right, long wrong, and one long one right.
BINARY = torch.tensor([float(len(s) < 3 or s == (1, 2, 1)) for s in SEQUENCES]).double()
BINARY[1] = 0.0

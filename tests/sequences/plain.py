"""A table of logits enumerated in plain loops, apart from the engine: what the engine must give."""

import itertools

import numpy as np
import torch

from gradlab.sequences import Group, Tabular


def sequences(task):
    """Return all sequences of a task, each a tuple that ends with its end token."""
    found = []
    for n in range(1, task.horizon + 1):
        for tokens in itertools.product(range(task.vocabulary), repeat=n):
            ends = tokens[-1] == task.end or n == task.horizon
            if ends and (task.end is None or task.end not in tokens[:-1]):
                found.append(tokens)
    return found


def prefix_number(vocabulary, prefix):
    """Return the row of a prefix in the table: by length, then in lexicographic order."""
    shorter = sum(vocabulary**t for t in range(len(prefix)))
    return shorter + sum(v * vocabulary ** (len(prefix) - 1 - t) for t, v in enumerate(prefix))


class Plain:
    """A tabular policy on a task: sequences, probabilities, rewards and scores, by loops."""

    def __init__(self, policy: Tabular, task, rollout=None, reference=None):
        self.task, self.found = task, sequences(task)
        log_p, log_mu, log_ref = (
            None if p is None else np.log(_softmax(p.table.detach().numpy()))
            for p in (policy, rollout or policy, reference)
        )
        count, horizon, vocabulary = len(self.found), task.horizon, task.vocabulary
        self.lengths = np.array([len(y) for y in self.found])
        self.log_prob = np.zeros((count, horizon))
        self.log_mu, self.log_ref = np.zeros((count, horizon)), np.zeros((count, horizon))
        self.logits = np.zeros((count, horizon, vocabulary))
        self.ref_logits = np.zeros((count, horizon, vocabulary))
        self.scores = np.zeros((count, horizon, *log_p.shape))
        self.rows = np.zeros((count, horizon), dtype=int)
        for i, y in enumerate(self.found):
            for t, v in enumerate(y):
                at = prefix_number(vocabulary, (*task.prompt, *y[:t]))
                self.rows[i, t] = at
                self.log_prob[i, t], self.log_mu[i, t] = log_p[at, v], log_mu[at, v]
                self.logits[i, t] = log_p[at]
                if reference is not None:
                    self.log_ref[i, t], self.ref_logits[i, t] = log_ref[at, v], log_ref[at]
                self.scores[i, t, at] = -np.exp(log_p[at])
                self.scores[i, t, at, v] += 1
        self.reference = reference
        self.p = np.exp(self.log_prob.sum(1))
        self.mu = np.exp(self.log_mu.sum(1))
        pad = 0 if task.end is None else task.end
        tokens = torch.tensor([[*y, *[pad] * (horizon - len(y))] for y in self.found])
        reward = task.reward(tokens, torch.tensor(self.lengths)).double().numpy()
        self.dense = None
        if reward.ndim == 2:
            self.dense = reward * (np.arange(horizon) < self.lengths[:, None])
            reward = self.dense.sum(1)
        self.rewards = reward
        greedy, prefix = None, ()
        while greedy is None:
            at = prefix_number(vocabulary, (*task.prompt, *prefix))
            prefix = (*prefix, int(np.argmax(log_p[at])))
            greedy = self.found.index(prefix) if prefix in self.found else None
        self.greedy = reward[greedy]

    def gradient(self, worth=None):
        """Return sum_y p(y) worth(y) score(y)."""
        worth = self.rewards if worth is None else worth
        found = np.zeros(self.scores.shape[2:])
        for i in range(len(self.found)):
            found += self.p[i] * worth[i] * self.scores[i].sum(0)
        return torch.tensor(found).flatten()

    def group(self, members):
        """Return the groups [m, G] of these sequences."""
        held = {name: torch.tensor(getattr(self, name)) for name in ("rewards", "lengths")}
        held |= {"log_prob": torch.tensor(self.log_prob), "logits": torch.tensor(self.logits)}
        held["rollout_log_prob"] = torch.tensor(self.log_mu)
        if self.reference is not None:
            held["reference_log_prob"] = torch.tensor(self.log_ref)
            held["reference_logits"] = torch.tensor(self.ref_logits)
        if self.dense is not None:
            held["token_rewards"] = torch.tensor(self.dense)
        chosen = {name: value[members] for name, value in held.items()}
        return Group(**chosen, greedy_rewards=torch.tensor(self.greedy).expand(len(members)))

    def moments(self, estimator):
        """Return mean and variance over all ordered groups of G sequences."""
        members = torch.tensor(list(itertools.product(range(len(self.found)), repeat=estimator.g)))
        group = self.group(members)
        p = torch.tensor(self.mu)[members].prod(-1) * estimator.kept(group.rewards)
        p = p / p.sum()
        scores = torch.tensor(self.scores)
        mean = torch.zeros(scores.shape[2:], dtype=torch.float64)
        square = torch.zeros((), dtype=torch.float64)
        for part in torch.arange(len(members)).split(512):
            some = self.group(members[part])
            estimate = torch.einsum(
                "mgt,mgtrv->mrv", estimator.coefficients(some), scores[members[part]]
            )
            logits = estimator.logit_coefficients(some)
            if logits is not None:
                at = torch.tensor(self.rows)[members[part]]
                for m in range(len(part)):
                    estimate[m].index_add_(0, at[m].flatten(), logits[m].flatten(0, 1))
            mean += torch.einsum("m,mrv->rv", p[part], estimate)
            square += (p[part] * estimate.square().sum((1, 2))).sum()
        return mean.flatten(), float(square - mean.square().sum())


def _softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def by_differences(value, policy, step=1e-5):
    """Return the gradient of a value in the parameters of a policy, by central differences."""
    found = []
    with torch.no_grad():
        for parameter in policy.parameters():
            flat = parameter.view(-1)
            for place in range(flat.numel()):
                before = flat[place].item()
                ends = []
                for side in (1, -1):
                    flat[place] = before + side * step
                    ends.append(float(value()))
                flat[place] = before
                found.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)

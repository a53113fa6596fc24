"""Bounds by brute force in plain numpy: every tuple of samples, one after the other."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["BASELINES", "CASES", "Brute", "Case"]


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Brute:
    """A table of log p(x, z) over z of N variables of C classes, and q."""

    def __init__(self, log_p, logits):
        self.log_p, self.p = np.asarray(log_p), softmax(np.asarray(logits))
        n, c = self.p.shape
        self.n, self.c = n, c
        self.states = [s for s in itertools.product(range(c), repeat=n) if self.q(s) > 0]

    def q(self, z):
        return float(np.prod([self.p[i, a] for i, a in enumerate(z)]))

    def w(self, z):
        with np.errstate(divide="ignore"):
            return float(np.exp(self.log_p[tuple(z)]) / self.q(z))

    def score(self, z):
        return np.eye(self.c)[list(z)] - self.p

    def tuples(self, k):
        for zs in itertools.product(self.states, repeat=k):
            yield zs, np.prod([self.q(z) for z in zs])

    def value(self, k):
        return sum(p * np.log(np.mean([self.w(z) for z in zs])) for zs, p in self.tuples(k))

    def gradient(self, k):
        """The derivative of q(z_1) ... q(z_K) Z, term by term."""
        total = np.zeros_like(self.p)
        for zs, p in self.tuples(k):
            w = np.array([self.w(z) for z in zs])
            scores = np.array([self.score(z) for z in zs])
            direct = -np.einsum("k,kic->ic", w / w.sum(), scores)
            total += p * (np.log(w.mean()) * scores.sum(0) + direct)
        return total

    def moments(self, estimate, k):
        """Mean and total variance of a function of K samples that returns (mean, spread)."""
        first, second = np.zeros_like(self.p), 0.0
        for zs, p in self.tuples(k):
            mean, spread = estimate(zs)
            first += p * mean
            second += p * ((mean**2).sum() + spread)
        return first, second - (first**2).sum()

    def with_baseline(self, zs, baseline):
        w = np.array([self.w(z) for z in zs])
        z_hat, v = np.log(w.mean()), w / w.sum()
        terms = [
            (z_hat - v[k] - baseline(np.delete(w, k), v[k])) * self.score(zs[k])
            for k in range(len(zs))
        ]
        return sum(terms), 0.0

    def fresh(self, zs, s):
        """OVIS-MC: mean over the fresh samples, and what they add to the variance."""
        w = np.array([self.w(z) for z in zs])
        z_hat, v = np.log(w.mean()), w / w.sum()
        by_state = []
        for new in self.states:
            total = np.zeros_like(self.p)
            for k in range(len(zs)):
                changed = w.copy()
                changed[k] = self.w(new)
                c = np.log(changed.mean()) - changed[k] / changed.sum()
                total += (z_hat - v[k] - c) * self.score(zs[k])
            by_state.append(total)
        q = np.array([self.q(new) for new in self.states])
        by_state = np.array(by_state)
        mean = np.einsum("s,sic->ic", q, by_state)
        spread = (q * ((by_state - mean) ** 2).sum((1, 2))).sum()
        return mean, 0.0 if s is None else spread / s

    def local_expectation(self, zs):
        total = np.zeros_like(self.p)
        w = np.array([self.w(z) for z in zs])
        for k, z in enumerate(zs):
            for i in range(self.n):
                for c in range(self.c):
                    if self.p[i, c] == 0:
                        continue
                    moved = [*z[:i], c, *z[i + 1 :]]
                    changed = w.copy()
                    changed[k] = self.w(moved)
                    value = np.log(changed.mean()) - changed[k] / changed.sum()
                    total[i] += self.p[i, c] * value * self.score(moved)[i]
        return total, 0.0

    def pathwise(self, zs, alpha, slope):
        """The line through ST (0), ZGR (1) and DARN (2), of the bound with weights of log q."""
        w = np.array([self.w(z) for z in zs])
        v = w / w.sum()
        total = np.zeros_like(self.p)
        for k, z in enumerate(zs):
            x = np.eye(self.c)[list(z)]
            with np.errstate(divide="ignore"):
                to = v[k] * (slope(x) - np.where(self.p > 0, np.log(self.p), 0.0))
            for i in range(self.n):
                p, s = self.p[i], x[i] - self.p[i]
                st = (np.diag(p) - np.outer(p, p)) @ to[i]
                total[i] += (1 - alpha / 2) * st + alpha / 2 * s * (s @ to[i])
            total -= v[k] * self.score(z)
        return total, 0.0


BASELINES = {
    "PLAIN": lambda others, v: 0.0,
    "VIMCO": lambda o, v: np.log((o.sum() + np.exp(np.log(o).mean())) / (len(o) + 1)),
    "VIMCO-A": lambda o, v: np.log((o.sum() + o.mean()) / (len(o) + 1)),
    "OVIS": lambda o, v: np.log(o.mean()) + np.log(1 - 1 / (len(o) + 1)),
    "OVIS(gamma=1)": lambda o, v: np.log(o.mean()) - v,
    "OVIS(gamma=0.3)": lambda o, v: np.log(o.mean()) - 0.3 * v + 0.7 * np.log(1 - 1 / (len(o) + 1)),
}


@dataclass(frozen=True)
class Case:
    """A quadratic log p(x, z) = z.A z + b.z of N variables of C classes, and logits of q."""

    n: int
    c: int
    seed: int
    masked: bool = False

    def parts(self):
        source = np.random.default_rng(self.seed)
        size = self.n * self.c
        a, b = 0.5 * source.normal(size=(size, size)), source.normal(size=size)
        logits = source.normal(size=(self.n, self.c))
        if self.masked:
            logits[0, 1] = -np.inf
        return a, b, logits

    @property
    def logits(self):
        return torch.tensor(self.parts()[2])

    def log_joint(self, z):
        a, b, _ = self.parts()
        flat = z.flatten(-2)
        return ((flat @ torch.tensor(a).to(z)) * flat).sum(-1) + flat @ torch.tensor(b).to(z)

    def slope(self, x):
        a, b, _ = self.parts()
        return ((a + a.T) @ x.ravel() + b).reshape(self.n, self.c)

    def brute(self):
        a, b, logits = self.parts()
        table = np.zeros((self.c,) * self.n)
        for z in itertools.product(range(self.c), repeat=self.n):
            x = np.eye(self.c)[list(z)].ravel()
            table[z] = x @ a @ x + b @ x
        return Brute(table, logits)

    def estimate(self, text):
        """Return the brute-force formula of an estimator, a function of K samples."""
        brute = self.brute()
        if text in BASELINES:
            return lambda zs: brute.with_baseline(zs, BASELINES[text])
        if text.startswith("OVIS-MC"):
            s = text.removeprefix("OVIS-MC(s=").removesuffix(")")
            return lambda zs: brute.fresh(zs, None if s == "inf" else int(s))
        if text == "LE":
            return brute.local_expectation
        alpha = {"ST": 0.0, "ZGR": 1.0, "DARN": 2.0}[text]
        return lambda zs: brute.pathwise(zs, alpha, self.slope)


CASES = {
    "5 classes": Case(1, 5, 0),
    "2 x 2": Case(2, 2, 1),
    "2 x 3, one class masked": Case(2, 3, 2, masked=True),
}

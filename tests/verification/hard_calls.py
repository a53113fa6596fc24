"""Codes whose draws share noise within a call, and cold relaxations with a mean by an integral."""

from dataclasses import dataclass

import torch
from numpy.polynomial.legendre import leggauss
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from hard_codes import Code, Loss, chances, states

__all__ = ["Cold", "Repeated", "Reused", "Shared", "SharedBaseline"]


@dataclass(frozen=True, eq=False)
class Repeated(Code):
    """Half as many draws of another code, each of them twice: "near" each other, "far", "shuffled".

    With a `sign` of -1 the noise of the second is that of the first turned around.
    """

    inner: Code
    g: Tensor
    place: str = "near"
    sign: int = 1

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n draws, the last without its double if n is odd."""
        one = self.inner(f, logits, (n + 1) // 2, generator)
        other = one if self.sign > 0 else 2 * self.g - one
        draws = torch.stack([one, other], 1 if self.place == "near" else 0).flatten(0, 1)
        if self.place == "shuffled":
            draws = draws[torch.randperm(len(draws), generator=generator)]
        return draws[:n]

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean of the code: g, where the noise is turned around."""
        return self.inner.mean(f, logits)


@dataclass(frozen=True)
class Reused(Code):
    """Another code with a buffer: a call makes at most `size` draws, and then gives them again."""

    inner: Code
    size: int

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws, the first of them again if n is larger than the buffer."""
        made = min(n, self.size)
        draws = self.inner(f, logits, made, generator)
        return draws.repeat(-(-n // made), 1, 1)[:n]

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean of the code."""
        return self.inner.mean(f, logits)


@dataclass(frozen=True, eq=False)
class Shared(Code):
    """Another code with normal noise, `size` times g, that `block` draws or all of a call share."""

    inner: Code
    g: Tensor
    size: float
    block: int | None = None

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws with the noise."""
        block = n if self.block is None else self.block
        z = torch.randn(-(-n // block), 1, 1, generator=generator, dtype=torch.float64)
        noise = z.repeat_interleave(block, 0)[:n]
        return self.inner(f, logits, n, generator) + self.size * noise * self.g

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean of the code."""
        return self.inner.mean(f, logits)


@dataclass(frozen=True)
class SharedBaseline(Code):
    """(f(x) - b)(x - p) with a normal baseline b of `size` that the draws of a call share.

    Draws are uncorrelated, though not independent: the spread differs from call to call.
    """

    size: float
    factor: float = 1.0

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        p = probabilities(logits)
        b = self.size * torch.randn(1, generator=generator, dtype=torch.float64)
        x = draw_one_hot(p, generator, n)
        return self.factor * (f(x) - b)[:, None, None] * (x - p)

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the sum over states; whatever b is, it drops out."""
        p, x = probabilities(logits), states(logits)
        return self.factor * torch.einsum("s,s,snc->nc", chances(p, x), f(x), x - p)


@dataclass(frozen=True)
class Cold(Code):
    """Gumbel-softmax straight-through at a small tau, of two classes, as one writes it.

    The Jacobian (diag y - y y^T) / tau is 0 but in the rare draws where the Gumbels nearly tie.
    """

    tau: float
    factor: float = 1.0

    def _product(self, f: Loss, x: Tensor, weight: Tensor) -> Tensor:
        """Return weight times the difference of grad f(x) over the two classes, [.., N, 2]."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (v,) = torch.autograd.grad(f(leaf).sum(), leaf)
        along = self.factor * weight * (v[..., 0] - v[..., 1])
        return torch.stack([along, -along], -1)

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        u = torch.rand(n, len(logits), generator=generator, dtype=torch.float64)
        z = logits[:, 0] - logits[:, 1] + torch.logit(u.clamp(2.0**-54, 1 - 2.0**-53))
        y = torch.sigmoid(z / self.tau)
        x = torch.stack([z >= 0, z < 0], -1).to(logits.dtype)
        return self._product(f, x, y * torch.sigmoid(-z / self.tau) / self.tau)

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the sum over states, each with the integral of y (1 - y) / tau over its half.

        With y as the variable of the integral, only the logistic density is left below it.
        """
        nodes, weights = (torch.as_tensor(a) for a in leggauss(200))
        y = (nodes + 3) / 4
        z = self.tau * torch.logit(y)
        shift = (logits[:, 0] - logits[:, 1])[:, None]
        density = lambda at: torch.sigmoid(at) * torch.sigmoid(-at)  # noqa: E731
        halves = torch.stack([density(z - shift), density(-z - shift)], -1)
        integral = torch.einsum("k,nkc->nc", weights / 4, halves)
        p, x = probabilities(logits), states(logits)
        given = (x * (integral / p)).sum(-1)
        return torch.einsum("s,snc->nc", chances(p, x), self._product(f, x, given))

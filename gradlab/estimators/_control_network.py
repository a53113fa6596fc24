"""The small network that RELAX subtracts: one hidden layer, its gradient in closed form."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

__all__ = ["ControlNetwork"]


class ControlNetwork(nn.Module):
    r"""A function of relaxed samples of N variables of C classes, in units of f.

    .. math:: c(y) = m + d\,(w \cdot \tanh(W y + b) + u \cdot y + a)

    m and d (`shift`, `scale`) are mean and deviation of f, the others are trained. float64.
    """

    def __init__(self, size: tuple[int, int], hidden: int, shift: float, scale: float) -> None:
        super().__init__()
        self.size, self.shift, self.scale = size, shift, scale
        inputs = size[0] * size[1]

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=torch.float64))

        self.W, self.b, self.w = zeros(inputs, hidden), zeros(hidden), zeros(hidden)
        self.u, self.a = zeros(inputs), zeros(1)

    @staticmethod
    def random(
        logits: Float[Tensor, "N C"],
        hidden: int,
        values: Float[Tensor, " n"],
        generator: Generator | None = None,
    ) -> "ControlNetwork":
        """Return a network with random hidden units that is the mean of the values of f."""
        scale = float(values.std(unbiased=False)) or 1.0
        size = (logits.shape[0], logits.shape[1])
        network = ControlNetwork(size, hidden, float(values.mean()), scale).to(logits.device)
        with torch.no_grad():
            network.W.normal_(generator=generator).div_(size[0] ** 0.5)
            network.b.normal_(generator=generator)
        return network

    def value(self, y: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        """Return c(y), in the dtype of y."""
        flat = y.flatten(-2).to(torch.float64)
        inner = torch.tanh(flat @ self.W + self.b) @ self.w + flat @ self.u + self.a
        return (self.shift + self.scale * inner).to(y.dtype)

    def slope(self, y: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"]:
        """Return the gradient of c at y, in the dtype of y."""
        flat = y.flatten(-2).to(torch.float64)
        bent = (1 - torch.tanh(flat @ self.W + self.b).square()) * self.w
        slope = self.scale * (bent @ self.W.T + self.u)
        return slope.unflatten(-1, self.size).to(y.dtype)

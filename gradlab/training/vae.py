"""The discrete variational autoencoder: networks, evidence lower bound, importance-weighted bound.

Two hidden layers on each side, N categorical variables of C classes between them, a uniform prior.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gradlab.categorical import draw_one_hot, log_probabilities, probabilities
from gradlab.loss import Loss

__all__ = ["DiscreteVAE", "read_latent"]


def read_latent(text: str) -> tuple[int, int]:
    """Return (N, C), the numbers of variables and of classes, from a text.

    Args:
        text: Such as "30x10".

    Returns:
        N and C.

    Raises:
        ValueError: If the text has another form, or N < 1 or C < 2.

    Example:
        >>> read_latent("30x10")
        (30, 10)
    """
    parts = text.lower().split("x")
    try:
        variables, classes = map(int, parts)
        if variables < 1 or classes < 2:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"latent must be variables x classes such as '30x10', at least 1x2, not {text!r}"
        ) from None
    return variables, classes


class DiscreteVAE(nn.Module):
    r"""A VAE of binary images with N categorical latent variables of C classes.

    .. math:: -\mathrm{ELBO} = E_{q(z|x)}[-\log p(x|z)] + \mathrm{KL}(q(z|x) \| p(z)),
        \quad p(z) = C^{-N}

    The encoder 784-H-H-NC and the decoder NC-H-H-784 have LeakyReLU. Only the first term needs an
    estimator: the divergence is a function of the logits. Kingma & Welling 2014 (1312.6114), Jang
    et al. 2017 (1611.01144); sizes of Dong et al. 2021 (2106.10477).

    Args:
        variables: N, the number of latent variables.
        classes: C, the number of classes of each.
        mean: The mean training image [784]. The encoder sees the image minus it, and the decoder's
            bias starts at it.
        hidden: H, the units of each hidden layer.
        generator: The source of the initial weights; torch's global generator by default.

    Example:
        >>> model = DiscreteVAE(2, 3, mean=torch.full((784,), 0.5))
        >>> model.encode(torch.zeros(5, 784)).shape
        torch.Size([5, 2, 3])
    """

    mean: Tensor

    def __init__(
        self,
        variables: int,
        classes: int,
        mean: Float[Tensor, " 784"],
        hidden: int = 200,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.shape = variables, classes
        pixels, code = len(mean), variables * classes
        self.encoder = _network(pixels, hidden, code)
        self.decoder = _network(code, hidden, pixels)
        self.register_buffer("mean", mean)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _initialize(module, generator)
        with torch.no_grad():
            output = cast(nn.Linear, self.decoder[-1])
            # Away from 0 and 1, where a pixel that is always white or black has its mean.
            output.bias.copy_(torch.logit(mean.clamp(1e-3, 1 - 1e-3)))

    def encode(self, images: Float[Tensor, "B 784"]) -> Float[Tensor, "B N C"]:
        """Return the logits of q(z | image).

        Args:
            images: Images [B, 784].

        Returns:
            Logits [B, N, C].
        """
        logits: Tensor = self.encoder(images - self.mean)
        return logits.unflatten(-1, self.shape)

    def reconstruction(self, images: Float[Tensor, "B 784"]) -> Loss:
        """Return the loss f(z) = -log p(image | z), in nats.

        Args:
            images: Binary images [B, 784].

        Returns:
            A function f: z [..., B, N, C] -> [..., B].
        """

        def f(z: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
            pixels = self.decoder(z.flatten(-2))
            return (F.softplus(pixels) - images.to(pixels) * pixels).sum(-1)

        return f

    def log_joint(self, images: Float[Tensor, "B 784"]) -> Loss:
        """Return log p(image, z) of one-hot z, in nats: what bounds of several samples weigh.

        Args:
            images: Binary images [B, 784].

        Returns:
            A function: z [..., B, N, C] -> [..., B].
        """
        loss, prior = self.reconstruction(images), self.shape[0] * math.log(self.shape[1])

        def log_p(z: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
            return -loss(z) - prior

        return log_p

    def divergence(self, logits: Float[Tensor, "B N C"]) -> Float[Tensor, " B"]:
        """Return KL(q || p) of each image, in nats.

        Args:
            logits: Logits [B, N, C].

        Returns:
            Divergences [B].
        """
        log_q = logits.log_softmax(-1)
        return (log_q.exp() * log_q).sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])

    @torch.no_grad()
    def negative_elbo(
        self, images: Float[Tensor, "B 784"], generator: Generator | None = None
    ) -> Float[Tensor, " B"]:
        """Return an unbiased estimate of -ELBO of each image from one sample of z, in nats.

        Args:
            images: Binary images [B, 784].
            generator: The source of the sample; torch's global generator by default.

        Returns:
            Estimates [B].
        """
        logits = self.encode(images)
        z = draw_one_hot(probabilities(logits), generator).to(logits.dtype)
        return self.reconstruction(images)(z) + self.divergence(logits)

    @torch.no_grad()
    def bound(
        self, images: Float[Tensor, "B 784"], samples: int, generator: Generator | None = None
    ) -> Float[Tensor, " B"]:
        r"""Return the importance-weighted upper bound of -log p(image), in nats.

        .. math:: -\log \tfrac1K \sum_k p(x, z_k) / q(z_k | x), \quad z_k \sim q

        Burda et al. 2016 (1509.00519).

        Args:
            images: Binary images [B, 784].
            samples: K, the number of samples.
            generator: The source of the samples; torch's global generator by default.

        Returns:
            Estimates of the bound [B].
        """
        logits = self.encode(images)
        log_q = log_probabilities(logits)
        f = self.reconstruction(images)
        size = max(1, _LARGEST // (len(images) * images.shape[-1]))
        weights = []
        for start in range(0, samples, size):
            z = draw_one_hot(log_q.exp(), generator, min(size, samples - start))
            ratio = (z * log_q).sum((-2, -1)) + self.shape[0] * math.log(self.shape[1])
            weights.append(-f(z.to(logits.dtype)) - ratio.to(logits.dtype))
        return math.log(samples) - torch.cat(weights).logsumexp(0)


# Pixels of samples that are decoded at once: 16 MB of float32.
_LARGEST = 2**22


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, outputs),
    )


def _initialize(layer: nn.Linear, generator: Generator | None) -> None:
    """Draw weights and biases as torch does by default, but from this generator."""
    limit = 1 / math.sqrt(layer.in_features)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-limit, limit, generator=generator)

"""The tiny discrete VAE as a problem: a real loss on real digits, small enough for exact truth.

What an estimator meets when it trains an encoder, at several moments of the training: broad
posteriors at first, nearly deterministic ones in the end.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gradlab.data.digits import digits
from gradlab.problems.base import Problem
from gradlab.problems.tiny_vae_model import LATENT_C, LATENT_N, Weights, code_features, encode
from gradlab.problems.tiny_vae_weights import SNAPSHOTS, trained

__all__ = ["TinyVAE"]


@dataclass(frozen=True, eq=False, repr=False)
class TinyVAE(Problem):
    r"""The negative evidence lower bound of one digit as a loss on its latent code.

    .. math:: f(x) = -\log p(\mathrm{image} | x) + \sum_n x_n \cdot \log(C q_n)

    4 variables of 4 classes, uniform prior, q the encoder's probabilities at this image, frozen as
    constants of f. At `logits`, the encoder's output [4, 4], E f is exactly the negative ELBO in
    nats, and its gradient in the logits is exactly that of the negative ELBO: what is lost by
    freezing q, the mean of the score d log q / d logits, is zero.

    `snapshot` is a moment of training on 300 digits with the exact gradient ("initial", "little",
    "some", "long": see `SNAPSHOTS` for the steps); `image` is one of them, 0..299, and shows the
    digit image mod 10. The first use trains the model (seconds) and caches it. Model: Kingma and
    Welling 2014 (1312.6114) with the
    categorical code of Jang et al. 2017 (1611.01144).

    Args:
        snapshot: A name in `SNAPSHOTS`.
        image: The number of the image, 0 to 299.

    Raises:
        ValueError: If the snapshot or image is unknown.
    """

    snapshot: str = "some"
    image: int = 0
    logits: Float[Tensor, "4 4"] = field(init=False)
    log_ratio: Float[Tensor, "4 4"] = field(init=False)
    weights: Weights = field(init=False)
    kind: ClassVar[str] = "vae"

    def __post_init__(self) -> None:
        if self.snapshot not in SNAPSHOTS:
            raise ValueError(f"unknown snapshot {self.snapshot!r} (known: {', '.join(SNAPSHOTS)})")
        images = digits()[0]
        if not hasattr(self.image, "__index__") or not 0 <= self.image < len(images):
            raise ValueError(
                f"image must be a whole number from 0 to {len(images) - 1}, not {self.image!r}"
            )
        if not self.name:
            name = f"{self.kind}(snapshot={self.snapshot}, image={self.image})"
            object.__setattr__(self, "name", name)
        self._declare(LATENT_N, LATENT_C, degree=math.inf)
        weights = trained()[self.snapshot]
        pixels = images[self.image].to(torch.float64)
        logits = encode(weights, pixels.unsqueeze(0))[0]
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "log_ratio", logits.log_softmax(-1) + math.log(LATENT_C))
        # log p of a pixel is log sigmoid(+-l): the signs of the image go into the last layer.
        sign = 2 * pixels - 1
        signed = weights._replace(
            decoder_out=weights.decoder_out * sign,
            decoder_out_bias=weights.decoder_out_bias * sign,
        )
        object.__setattr__(self, "weights", signed)

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        weights = Weights(*(weight.to(x) for weight in self.weights))
        h = code_features(weights, x)
        signed = torch.matmul(h, weights.decoder_out) + weights.decoder_out_bias
        divergence = (x * self.log_ratio.to(x)).sum((-2, -1))
        return divergence - F.logsigmoid(signed).sum(-1)

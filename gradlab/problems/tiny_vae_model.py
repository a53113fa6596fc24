"""The network of the tiny discrete variational autoencoder, and its exact evidence lower bound.

The latent code has 4 variables of 4 classes: 256 states, few enough to decode all of them, so
that nothing about the model has to be sampled.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import configurations
from gradlab.problems.base import normal
from gradlab.reproducible import seeded

__all__ = ["LATENT_C", "LATENT_N", "Weights", "code_features", "elbo", "encode", "initial_weights"]

LATENT_N, LATENT_C, PIXELS = 4, 4, 784


class Weights(NamedTuple):
    """Encoder 784-H-16 and decoder 16-H-784, one hidden tanh layer of H units each; float64."""

    encoder_in: Float[Tensor, "784 H"]
    encoder_in_bias: Float[Tensor, " H"]
    encoder_out: Float[Tensor, "H 16"]
    encoder_out_bias: Float[Tensor, " 16"]
    decoder_in: Float[Tensor, "16 H"]
    decoder_in_bias: Float[Tensor, " H"]
    decoder_out: Float[Tensor, "H 784"]
    decoder_out_bias: Float[Tensor, " 784"]


def initial_weights(hidden: int, images: Float[Tensor, "B 784"], seed: int) -> Weights:
    """Draw normal weights of unit gain; the decoder starts at the mean image of `images`.

    From there the posterior is broad and narrows as the code becomes useful; a decoder that
    starts at random images makes it collapse onto single states within a few steps.
    """
    generator = seeded("tiny vae", seed)
    code = LATENT_N * LATENT_C

    def layer(inputs: int, outputs: int, scale: float) -> tuple[Tensor, Tensor]:
        weight = scale * normal(generator, inputs, outputs)
        return weight, torch.zeros_like(weight[0])

    mean_image = (images.sum(0) + 1) / (len(images) + 2)
    return Weights(
        *layer(PIXELS, hidden, 1 / math.sqrt(PIXELS)),
        *layer(hidden, code, 1 / math.sqrt(hidden)),
        *layer(code, hidden, 1 / math.sqrt(LATENT_N)),
        layer(hidden, PIXELS, 0.1 / math.sqrt(hidden))[0],
        torch.logit(mean_image),
    )


def encode(weights: Weights, images: Float[Tensor, "B 784"]) -> Float[Tensor, "B 4 4"]:
    """Return the logits of q(x | image)."""
    h = torch.tanh(images @ weights.encoder_in + weights.encoder_in_bias)
    code = h @ weights.encoder_out + weights.encoder_out_bias
    return code.unflatten(-1, (LATENT_N, LATENT_C))


def code_features(weights: Weights, x: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch H"]:
    """Return the hidden layer h of the decoder, from which the pixel logits are linear.

    The logits of p(pixel = 1 | x) are h @ decoder_out + decoder_out_bias.
    """
    return torch.tanh(torch.matmul(x.flatten(-2), weights.decoder_in) + weights.decoder_in_bias)


def elbo(weights: Weights, images: Float[Tensor, "B 784"]) -> Float[Tensor, " B"]:
    r"""Return the evidence lower bound of each image in nats, by summing over all 256 states.

    .. math:: \sum_x q(x) [\log p(\mathrm{image} | x) - \log q(x)] - N \log C
    """
    classes = configurations(LATENT_N, LATENT_C)
    states = F.one_hot(classes, LATENT_C).to(images)
    h = code_features(weights, states)
    pixels = h @ weights.decoder_out + weights.decoder_out_bias
    # images @ pixels.mT, in the cheaper order.
    fit = (images @ weights.decoder_out.mT) @ h.mT + (images @ weights.decoder_out_bias)[:, None]
    log_likelihood = fit + F.logsigmoid(-pixels).sum(-1)
    log_q = encode(weights, images).log_softmax(-1).flatten(1) @ states.flatten(1).mT
    bound = (log_q.exp() * (log_likelihood - log_q)).sum(-1)
    return bound - LATENT_N * math.log(LATENT_C)

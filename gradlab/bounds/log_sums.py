"""Sums over samples in the log domain: the bound itself, and sums that leave one sample out."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["log_mean", "log_sum_of_others", "mean_of_others", "shares"]


def log_mean(log_w: Float[Tensor, " K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Return the bound of K samples, Z = log (1/K) sum_k w_k.

    Args:
        log_w: Logarithms of the weights [K, ...]; -inf for a weight of 0.

    Returns:
        The values [...]; -inf where all weights are 0.

    Example:
        >>> log_mean(torch.tensor([0.0, -math.inf]))
        tensor(-0.6931)
    """
    return log_w.logsumexp(0) - math.log(len(log_w))


def shares(log_w: Float[Tensor, " K *batch"]) -> Float[Tensor, " K *batch"]:
    """Return v_k = w_k / sum_l w_l.

    Args:
        log_w: Logarithms of the weights [K, ...].

    Returns:
        The shares [K, ...], which sum to 1; NaN where all weights are 0.

    Example:
        >>> shares(torch.tensor([0.0, -math.inf]))
        tensor([1., 0.])
    """
    return log_w.softmax(0)


def log_sum_of_others(log_w: Float[Tensor, " K *batch"]) -> Float[Tensor, " K *batch"]:
    """Return log sum_{l != k} w_l for each k, without a difference of large numbers.

    Args:
        log_w: Logarithms of the weights [K, ...].

    Returns:
        The logarithms [K, ...]; -inf for K = 1.

    Example:
        >>> log_sum_of_others(torch.tensor([0.0, -math.inf, 0.0]))
        tensor([0.0000, 0.6931, 0.0000])
    """
    total = log_w.logsumexp(0, keepdim=True)
    largest = log_w.argmax(0, keepdim=True)
    without = log_w.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True)
    # Of the others each has at most half of the sum, so that log(1 - v) keeps its digits.
    share = (log_w - total).exp().nan_to_num(0.0)
    return (total + torch.log1p(-share)).scatter(0, largest, without)


def mean_of_others(values: Float[Tensor, " K *batch"]) -> Float[Tensor, " K *batch"]:
    """Return the mean over l != k of the values, for each k; -inf where one of them is.

    Args:
        values: Numbers [K, ...] with K at least 2; -inf is allowed.

    Returns:
        The means [K, ...].

    Example:
        >>> mean_of_others(torch.tensor([-math.inf, 1.0, 3.0]))
        tensor([2., -inf, -inf])
    """
    none = values == -math.inf
    held = torch.where(none, 0.0, values)
    means = (held.sum(0) - held) / (len(values) - 1)
    return torch.where(none.sum(0) - none.int() > 0, -math.inf, means)

"""Samples of categorical variables: class indices, one-hot, and relaxed given the sample.

Every random number of the package is made here, from the torch.Generator that the caller gives.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

__all__ = [
    "class_first",
    "configurations",
    "draw_classes",
    "draw_exponentials",
    "draw_one_hot",
    "one_hot",
    "relaxed_given",
]


def draw_classes(
    p: Float[Tensor, "*batch C"], generator: Generator | None = None, n: int | None = None
) -> Int[Tensor, "*shape"]:
    """Draw class indices by inverting the cumulated probabilities.

    The uniform is float64: a float32 one would distort probabilities below 1e-4. A masked class is
    never drawn.

    Args:
        p: Probabilities [..., C].
        generator: The source of the randomness; torch's global generator by default.
        n: The number of independent draws of every row, or None for one without a new axis.

    Returns:
        Class indices [...], or [n, ...] for n draws; int64.

    Example:
        >>> source = torch.Generator().manual_seed(0)
        >>> draw_classes(torch.tensor([0.5, 0.5, 0.0]), source, n=6)
        tensor([1, 1, 0, 1, 1, 1])
    """
    cumulated = p.detach().cumsum(-1, dtype=torch.float64)
    shape = [*p.shape[:-1], 1 if n is None else n]
    u = torch.rand(shape, generator=generator, dtype=torch.float64, device=p.device)
    # As u <= 1 - 2^-53, the product stays below the last entry, also after rounding.
    u = u * cumulated[..., -1:]
    if n is None:
        return (cumulated <= u).sum(-1)
    if p.shape[-1] > _FEW_CLASSES:
        return torch.searchsorted(cumulated, u, right=True).movedim(-1, 0)
    bounds = cumulated[..., :-1].movedim(-1, 0).unsqueeze(-1)
    return (u >= bounds).to(torch.uint8).sum(0, dtype=torch.uint8).movedim(-1, 0).long()


def draw_one_hot(
    p: Float[Tensor, "*batch C"], generator: Generator | None = None, n: int | None = None
) -> Float[Tensor, "*shape C"]:
    """Draw one-hot samples x ~ Categorical(p).

    Args:
        p: Probabilities [..., C].
        generator: The source of the randomness; torch's global generator by default.
        n: The number of independent draws of every row, or None for one without a new axis.

    Returns:
        Samples [..., C], or [n, ..., C] for n draws, in the dtype of p.

    Example:
        >>> source = torch.Generator().manual_seed(0)
        >>> draw_one_hot(torch.tensor([0.5, 0.5, 0.0]), source, n=2)
        tensor([[0., 1., 0.],
                [0., 1., 0.]])
    """
    return one_hot(draw_classes(p, generator, n), p)


def one_hot(classes: Int[Tensor, "*shape"], like: Float[Tensor, "*batch C"]) -> Tensor:
    """Return the one-hot form of class indices.

    Args:
        classes: Class indices [...], int64.
        like: A tensor [..., C], whose dtype and number of classes the result has.

    Returns:
        One-hot rows [..., C].

    Example:
        >>> one_hot(torch.tensor([1]), torch.zeros(1, 3))
        tensor([[0., 1., 0.]])
    """
    if classes.ndim == like.ndim and like.shape[-1] <= _TABLE_CLASSES:
        return F.embedding(classes, torch.eye(like.shape[-1], dtype=like.dtype, device=like.device))
    zeros = like.new_zeros(*classes.shape, like.shape[-1])
    return zeros.scatter(-1, classes.unsqueeze(-1), 1.0)


# Where comparing with each class beats bisection, and copying unit rows beats scattering ones.
_FEW_CLASSES = 32
_TABLE_CLASSES = 64


def configurations(variables: int, classes: int) -> Int[Tensor, "S N"]:
    """Return the classes of all C^N configurations, the last variable running fastest.

    Args:
        variables: N, the number of variables, at least 1.
        classes: C, the number of classes of each.

    Returns:
        Class indices [C^N, N], int64.

    Example:
        >>> configurations(2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    places = classes ** torch.arange(variables - 1, -1, -1)
    return torch.arange(classes**variables).unsqueeze(-1) // places % classes


def draw_exponentials(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw Exp(1) variables, which are never exactly 0.

    Args:
        like: A tensor with the shape, dtype and memory layout of the result.
        generator: The source of the randomness; torch's global generator by default.

    Returns:
        Independent draws in the shape of `like`.

    Example:
        >>> source = torch.Generator().manual_seed(0)
        >>> draw_exponentials(torch.empty(3), source)
        tensor([0.7007, 0.2637, 2.4250])
    """
    return _draw_logs(like, generator).neg_()


def _draw_logs(like: Tensor, generator: Generator | None) -> Tensor:
    """Draw log u, u uniform in (0, 1): minus an Exp(1) variable."""
    u = torch.empty_like(like).uniform_(generator=generator)
    # A draw of exactly 0 stands for the lower half of its cell.
    return u.clamp_min_(torch.finfo(like.dtype).eps / 4).log_()


def class_first(tensor: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return the tensor with the class axis slowest in memory: reductions over it become fast.

    Args:
        tensor: A tensor [..., C].

    Returns:
        The same values and shape in another memory layout.

    Example:
        >>> class_first(torch.zeros(4, 3)).stride()
        (1, 4)
    """
    return tensor.movedim(-1, 0).contiguous().movedim(0, -1)


def relaxed_given(
    p: Float[Tensor, "*#batch C"],
    x: Float[Tensor, "*#batch C"],
    tau: float,
    generator: Generator | None = None,
) -> Float[Tensor, "*batch C"]:
    r"""Draw a Gumbel-softmax sample y given that its largest entry is the class of x.

    .. math:: y_c \propto (1 + E_c / (p_c E_x))^{-1/\tau}, \quad y_x \propto 1, \quad E \sim Exp(1)

    The ratio form keeps float32 accuracy at every temperature and does not change when logits
    shift. Masked classes get weight exactly 0. `class_first` tensors are fastest. Source: Maddison
    et al. 2014 (A* sampling, 1411.0030); Paulus et al. 2021 (2010.04838).

    Args:
        p: Probabilities [..., C].
        x: One-hot samples [..., C]; the batch axes of p and x broadcast.
        tau: The temperature, positive.
        generator: The source of the randomness; torch's global generator by default.

    Returns:
        Relaxed samples [..., C], in the memory layout of x.

    Example:
        >>> source = torch.Generator().manual_seed(0)
        >>> p, x = torch.tensor([0.2, 0.8]), torch.tensor([1.0, 0.0])
        >>> relaxed_given(p, x, 1.0, source)
        tensor([0.5952, 0.4048])
    """
    noise = _draw_logs(x, generator)
    of_winner = (noise * x).sum(-1, keepdim=True)
    # A ratio of logarithms is the ratio of exponentials; the winner's is 0, also where p is 0.
    ratio = noise.mul_(1 - x).div_(torch.maximum(p, x)).div_(of_winner)
    weight = ratio.log1p_().mul_(-1 / tau).exp_()
    return weight / weight.sum(-1, keepdim=True)

"""Samples of categorical variables: class indices, one-hot, and relaxed given the sample.

Every random number of the package is made here, from the torch.Generator that the caller gives.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.passes import count_reached, keep_memory, one_hot

__all__ = [
    "class_first",
    "configurations",
    "configurations_at",
    "draw_classes",
    "draw_exponentials",
    "draw_one_hot",
    "joint_of_all",
    "log_noise_ratio",
    "noise_ratio",
    "one_hot",
    "probabilities_of",
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
    if p.shape[-1] > _FEW_CLASSES:
        if n is None:
            return (cumulated <= u).sum(-1)
        return torch.searchsorted(cumulated, u, right=True).movedim(-1, 0).contiguous()
    bounds = cumulated[..., :-1].movedim(-1, 0)
    if n is None:
        return count_reached(u.squeeze(-1), bounds).long()
    keep_memory()
    return count_reached(u, bounds.unsqueeze(-1)).movedim(-1, 0).contiguous().long()


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


# Where comparing with each class beats bisection.
_FEW_CLASSES = 32


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
    return configurations_at(torch.arange(classes**variables), [torch.arange(classes)] * variables)


def configurations_at(
    number: Int[Tensor, "*shape"], allowed: Sequence[Int[Tensor, " _"]]
) -> Int[Tensor, "*shape N"]:
    """Return the classes of the configurations with these numbers, the last variable fastest.

    Args:
        number: Which configurations, from 0 to the product of the numbers of classes.
        allowed: For each of the N variables the classes that it may have.

    Returns:
        Class indices [..., N], int64.

    Example:
        >>> import torch
        >>> allowed = [torch.tensor([0, 2]), torch.tensor([1, 3, 4])]
        >>> configurations_at(torch.arange(4), allowed).tolist()
        [[0, 1], [0, 3], [0, 4], [2, 1]]
    """
    columns = []
    for classes in reversed(allowed):
        columns.append(classes[number % len(classes)])
        number = number // len(classes)
    return torch.stack(columns[::-1], -1) if columns else number.new_empty(*number.shape, 0)


def probabilities_of(
    p: Float[Tensor, "N C"], classes: Int[Tensor, "*shape N"]
) -> Float[Tensor, "*shape"]:
    """Return p(x) of each configuration, the product over its variables.

    Args:
        p: Probabilities [N, C].
        classes: Class indices [..., N].

    Returns:
        The joint probabilities [...].

    Example:
        >>> p = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
        >>> probabilities_of(p, torch.tensor([[0, 1], [1, 0]])).tolist()
        [0.375, 0.125]
    """
    return p[torch.arange(len(p)), classes].prod(-1)


def joint_of_all(
    rows: Float[Tensor, "*batch N C"], *, logs: bool = False
) -> Float[Tensor, "*batch S"]:
    """Return the joint probabilities of all C^N configurations, in the order of `configurations`.

    Args:
        rows: Probabilities [..., N, C], or their logarithms.
        logs: Whether they are logarithms, as are the joint ones then.

    Returns:
        The joint probabilities [..., C^N], differentiable in the rows.

    Example:
        >>> import torch
        >>> joint_of_all(torch.tensor([[0.5, 0.5], [0.25, 0.75]])).tolist()
        [0.125, 0.375, 0.125, 0.375]
    """
    first, *others = rows.unbind(-2)
    joint = first
    for row in others:
        before, of_one = joint.unsqueeze(-1), row.unsqueeze(-2)
        joint = (before + of_one if logs else before * of_one).flatten(-2)
    return joint


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


def noise_ratio(
    p: Float[Tensor, "*#batch C"], x: Float[Tensor, "*#batch C"], generator: Generator | None = None
) -> Float[Tensor, "*batch C"]:
    r"""Draw the Gumbel noise given that x is the class with the largest z = log p + G.

    .. math:: z_c - z_x = -\log(1 + r_c), \quad r_c = \frac{E_c}{p_c E_x}, \quad E \sim Exp(1)

    Args:
        p: Probabilities [..., C].
        x: One-hot samples [..., C]; the ratio has their layout.
        generator: Source of the noise.

    Returns:
        The ratios r [..., C]: 0 at the class of x, also where its p is 0; infinite where p is 0.

    Example:
        >>> import torch
        >>> p, x = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.0])
        >>> noise_ratio(p, x)[[0, 2]].tolist()
        [0.0, inf]
    """
    # A ratio of logarithms of uniforms is the ratio of exponentials.
    noise = _draw_logs(x, generator)
    ratio = noise * x
    of_winner = ratio.sum(-1, keepdim=True).neg_()
    ratio.sub_(noise)  # exactly -noise, and 0 at the class of x
    del noise  # its memory, still in the cache, is taken for what follows
    return ratio.div_(torch.maximum(p, x)).div_(of_winner)


def log_noise_ratio(
    log_p: Float[Tensor, "*#batch C"] | float,
    x: Float[Tensor, "*#batch C"],
    log_e: Float[Tensor, "*#batch C"],
) -> Float[Tensor, "*batch C"]:
    r"""Return the logarithm of `noise_ratio`, as if x were any class, from noise that is drawn.

    .. math:: \log r_c = \log E_c - \log p_c - \log E_x

    Args:
        log_p: Log probabilities [..., C]; 0 leaves them out.
        x: One-hot samples [..., C].
        log_e: Logarithms of `draw_exponentials` [..., C].

    Returns:
        The log ratios [..., C]; at the class of x it is -log p, not -inf.

    Example:
        >>> log_e = torch.tensor([0.0, 1.0])
        >>> log_noise_ratio(0.0, torch.tensor([1.0, 0.0]), log_e).tolist()
        [0.0, 1.0]
    """
    return log_e - log_p - (log_e * x).sum(-1, keepdim=True)


def relaxed_given(
    p: Float[Tensor, "*#batch C"],
    x: Float[Tensor, "*#batch C"],
    tau: float,
    generator: Generator | None = None,
) -> Float[Tensor, "*batch C"]:
    r"""Draw a Gumbel-softmax sample y given that its largest entry is the class of x.

    .. math:: y_c \propto (1 + r_c)^{-1/\tau}, \quad r_c = E_c / (p_c E_x), \quad r_x = 0

    The form by `noise_ratio` keeps float32 accuracy at every temperature and does not change when
    logits shift. Masked classes get weight exactly 0.

    Source: Maddison et al. 2014 (A* sampling, 1411.0030); Paulus et al. 2021 (2010.04838).

    Args:
        p: Probabilities [..., C].
        x: One-hot samples [..., C]; `class_first` tensors are the fastest.
        tau: Temperature, positive.
        generator: Source of the noise.

    Returns:
        The relaxed samples y [..., C], in the layout of x.

    Example:
        >>> p, x = torch.tensor([0.7, 0.3, 0.0]), torch.tensor([0.0, 1.0, 0.0])
        >>> y = relaxed_given(p, x, tau=0.5)
        >>> int(y.argmax()), float(y[2])
        (1, 0.0)
    """
    weight = noise_ratio(p, x, generator).log1p_().mul_(-1 / tau).exp_()
    return weight.div_(weight.sum(-1, keepdim=True))

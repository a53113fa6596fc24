"""N independent categorical variables of C classes: checked logits, probabilities, and draws.

Every random number of the package is made here, from the torch.Generator that the caller gives.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

__all__ = [
    "check_finite",
    "check_floating",
    "check_logits",
    "check_one_hot",
    "check_tau",
    "class_first",
    "configurations",
    "configurations_at",
    "draw_classes",
    "draw_exponentials",
    "draw_one_hot",
    "is_masked",
    "is_readable",
    "joint_of_all",
    "log_noise_ratio",
    "log_probabilities",
    "masked_logits",
    "noise_ratio",
    "one_hot",
    "probabilities",
    "probabilities_of",
    "relaxed_given",
    "row_dot",
    "softmax_vjp",
    "tempered",
]


def check_logits(logits: Tensor, *, ndim: int | None = None) -> Tensor:
    """Return `logits` if they describe categorical variables along the last axis.

    -inf masks a class, and so does every logit so low that its probability rounds to 0. Raises
    TypeError if `logits` is not a floating tensor, ValueError if it has no class axis or not `ndim`
    axes, or holds NaN, +inf, or a row in which every class is -inf.
    """
    check_floating(logits)
    if logits.ndim == 0 or logits.shape[-1] == 0 or (ndim is not None and logits.ndim != ndim):
        wanted = {2: "[N, C]", 3: "[B, N, C]"}.get(ndim or 0, "[..., C]")
        raise ValueError(
            f"logits must have shape {wanted} with C >= 1, not {list(logits.shape)}"
            + ("; use unsqueeze(0) for one variable" if ndim == 2 and logits.ndim == 1 else "")
        )
    if not is_readable(logits) or logits.numel() == 0:
        return logits
    if torch.isfinite(torch.stack(torch.aminmax(logits.detach()))).all():
        return logits
    top = logits.detach().amax(-1)
    if torch.isfinite(top).all():
        return logits
    if torch.isnan(top).any():
        raise ValueError("logits contain NaN; allowed are finite numbers and -inf (masked class)")
    if (top == math.inf).any():
        raise ValueError("logits contain +inf; allowed are finite numbers and -inf (masked class)")
    row = (top == -math.inf).nonzero()[0].tolist()
    raise ValueError(f"logits row {row} masks every class (all -inf); leave at least one finite")


def check_floating(logits: Tensor) -> None:
    """Raise TypeError unless `logits` is a floating-point tensor."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = f"{logits.dtype} tensor" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a floating-point torch.Tensor, not a {kind}")


def is_readable(tensor: Tensor) -> bool:
    """Return whether Python may branch on the values: not under torch.func or torch.compile."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not (wrapped or torch.compiler.is_compiling())


def check_tau(tau: float, dtype: torch.dtype = torch.float64) -> None:
    """Raise ValueError unless `tau` is positive and both it and 1/tau are finite in `dtype`."""
    if not isinstance(tau, int | float) or not (0 < tau < math.inf):
        raise ValueError(f"tau must be a positive finite number, not {tau!r}")
    if tau < 1 / torch.finfo(dtype).max:
        raise ValueError(
            f"tau = {tau!r} is so small that 1/tau overflows in {dtype}; use a larger tau, "
            "or ZGR, the limit of Gumbel-Rao at tau = 0"
        )


def check_finite(name: str, value: float) -> None:
    """Raise ValueError unless the argument of this name is a finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")


def check_one_hot(x: Tensor, logits: Tensor) -> Tensor:
    """Return `x` in the dtype of `logits` if it is one-hot and shaped as they are."""
    if x.shape != logits.shape:
        raise ValueError(
            f"x must have the shape of logits {list(logits.shape)}, not {list(x.shape)}"
        )
    if is_readable(x) and not (((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()):
        raise ValueError("x must be one-hot along the class axis: one 1 a row, all else 0")
    return x.to(logits.dtype)


def log_probabilities(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return log softmax(logits) over classes; half precision is raised to float32."""
    return torch.log_softmax(logits, -1, dtype=_working_dtype(logits))


def probabilities(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return p = softmax(logits) over classes; half precision is raised to float32."""
    return torch.softmax(logits, -1, dtype=_working_dtype(logits))


def is_masked(p: Float[Tensor, "*batch C"]) -> Bool[Tensor, "*batch C"]:
    """Return which classes are masked: those of probability 0, whatever their logits are.

    A mask of -1e8, or of -1e4, leaves no more of a class than -inf does.
    """
    return p == 0


def masked_logits(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return the logits with -inf at every class whose probability is 0 in their precision."""
    return logits.masked_fill(is_masked(probabilities(logits.detach())), -math.inf)


def tempered(p: Float[Tensor, "*batch C"], tau: float) -> Float[Tensor, "*batch C"]:
    """Return softmax(logits / tau) for p = softmax(logits): proportional to p^(1 / tau)."""
    return torch.softmax(p.log() / tau, -1)


def softmax_vjp(
    q: Float[Tensor, "*#batch C"], v: Float[Tensor, "*#batch C"], *, short_rows: bool = False
) -> Float[Tensor, "*batch C"]:
    r"""Return the product of v with the Jacobian of softmax at its value q.

    .. math:: V(q)\,v = (diag(q) - q q^T)\,v = q \circ (v - q \cdot v)

    Args:
        q: Probabilities [..., C], one row for each variable.
        v: Cotangents [..., C]; its batch axes broadcast with those of q.
        short_rows: Add up by a product with ones, which is several times faster for short rows and
            differs in the last bits.

    Returns:
        The products [..., C].

    Example:
        >>> import torch
        >>> softmax_vjp(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
        tensor([ 0.2500, -0.2500])
    """
    return q * (v - (row_dot(q, v) if short_rows else (q * v).sum(-1, keepdim=True)))


def row_dot(a: Float[Tensor, "*#batch C"], b: Float[Tensor, "*#batch C"]) -> Tensor:
    """Return a.b along the classes, [..., 1], by a product with ones: fast for short rows."""
    return (a * b) @ a.new_ones(a.shape[-1], 1)


def _working_dtype(logits: Tensor) -> torch.dtype:
    return logits.dtype if logits.dtype in (torch.float32, torch.float64) else torch.float32


def draw_classes(
    p: Float[Tensor, "*batch C"], generator: Generator | None = None, n: int | None = None
) -> Int[Tensor, "*shape"]:
    """Draw class indices by inverting the cumulated probabilities.

    Returns [*batch], or [n, *batch] for n independent draws of every row. The uniform is float64:
    a float32 one would distort probabilities below 1e-4. A masked class is never drawn.
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
    """Draw one-hot samples x ~ Categorical(p): [*batch, C], or [n, *batch, C]; dtype of `p`."""
    return one_hot(draw_classes(p, generator, n), p)


def one_hot(classes: Int[Tensor, "*shape"], like: Float[Tensor, "*batch C"]) -> Tensor:
    """Return the one-hot form [*shape, C] of class indices, in the dtype and classes of `like`."""
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
    """Return p(x) of each configuration, the product over its variables."""
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
    """Draw Exp(1) variables with shape, dtype and memory layout of `like`, never exactly 0."""
    return _draw_logs(like, generator).neg_()


def _draw_logs(like: Tensor, generator: Generator | None) -> Tensor:
    """Draw log u, u uniform in (0, 1): minus an Exp(1) variable."""
    u = torch.empty_like(like).uniform_(generator=generator)
    # A draw of exactly 0 stands for the lower half of its cell.
    return u.clamp_min_(torch.finfo(like.dtype).eps / 4).log_()


def class_first(tensor: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return the tensor with the class axis slowest in memory: reductions over it become fast."""
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
    of_winner = (noise * x).sum(-1, keepdim=True)
    return noise.mul_(1 - x).div_(torch.maximum(p, x)).div_(of_winner)


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
    """
    weight = noise_ratio(p, x, generator).log1p_().mul_(-1 / tau).exp_()
    return weight / weight.sum(-1, keepdim=True)

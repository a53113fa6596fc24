"""N independent categorical variables of C classes: checked logits, probabilities, and draws.

The draws themselves are in `gradlab.samples`, whose names are also here.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.samples import (
    class_first,
    configurations,
    configurations_at,
    draw_classes,
    draw_exponentials,
    draw_one_hot,
    joint_of_all,
    log_noise_ratio,
    noise_ratio,
    one_hot,
    probabilities_of,
    relaxed_given,
)

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

    -inf masks a class. So does every logit so low that its probability rounds to 0.

    Args:
        logits: A tensor [..., C].
        ndim: The number of axes that it must have, or None for any.

    Returns:
        The logits as they are.

    Raises:
        TypeError: If `logits` is not a floating-point tensor.
        ValueError: If it has no class axis or not `ndim` axes, or if it holds NaN, +inf, or a row
            in which every class is -inf.

    Example:
        >>> check_logits(torch.tensor(0.5))
        Traceback (most recent call last):
        ValueError: logits must have shape [..., C] with C >= 1, not []
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
    if math.isfinite(logits.detach().sum().item()):
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
    """Raise TypeError unless `logits` is a floating-point tensor.

    Args:
        logits: The tensor to check.

    Raises:
        TypeError: If it is not one; the message says what it is.

    Example:
        >>> check_floating(torch.zeros(3, dtype=torch.int64))
        Traceback (most recent call last):
        TypeError: logits must be a floating-point torch.Tensor, not a torch.int64 tensor
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = f"{logits.dtype} tensor" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a floating-point torch.Tensor, not a {kind}")


def is_readable(tensor: Tensor) -> bool:
    """Return whether Python may branch on the values: not under torch.func or torch.compile.

    Args:
        tensor: Any tensor.

    Returns:
        Whether its values can be read.

    Example:
        >>> is_readable(torch.zeros(2))
        True
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not (wrapped or torch.compiler.is_compiling())


def check_tau(tau: float, dtype: torch.dtype = torch.float64) -> None:
    """Raise ValueError unless `tau` is positive and both it and 1/tau are finite.

    Args:
        tau: The temperature.
        dtype: The floating-point type in which 1/tau must be finite.

    Raises:
        ValueError: If it is not such a number.

    Example:
        >>> check_tau(0.0)
        Traceback (most recent call last):
        ValueError: tau must be a positive finite number, not 0.0
    """
    if not isinstance(tau, int | float) or not (0 < tau < math.inf):
        raise ValueError(f"tau must be a positive finite number, not {tau!r}")
    if tau < 1 / torch.finfo(dtype).max:
        raise ValueError(
            f"tau = {tau!r} is so small that 1/tau overflows in {dtype}; use a larger tau, "
            "or ZGR, the limit of Gumbel-Rao at tau = 0"
        )


def check_finite(name: str, value: float) -> None:
    """Raise ValueError unless an argument is a finite number.

    Args:
        name: The name of the argument, for the message.
        value: The value to check.

    Raises:
        ValueError: If it is not a finite number.

    Example:
        >>> check_finite("eta", math.nan)
        Traceback (most recent call last):
        ValueError: eta must be a finite number, not nan
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")


def check_one_hot(x: Tensor, logits: Tensor) -> Tensor:
    """Return `x` in the dtype of `logits` if it is one-hot and has their shape.

    Args:
        x: Samples [..., N, C].
        logits: The logits [..., N, C] that they were drawn from.

    Returns:
        The same samples.

    Raises:
        ValueError: If the shapes differ, or if a row of x is not one 1 among zeros.

    Example:
        >>> check_one_hot(torch.tensor([[0, 1]]), torch.zeros(1, 2))
        tensor([[0., 1.]])
    """
    if x.shape != logits.shape:
        raise ValueError(
            f"x must have the shape of logits {list(logits.shape)}, not {list(x.shape)}"
        )
    if is_readable(x) and not (((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()):
        raise ValueError("x must be one-hot along the class axis: one 1 a row, all else 0")
    return x.to(logits.dtype)


def log_probabilities(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return log softmax(logits) over classes; half precision is raised to float32.

    Args:
        logits: Logits [..., C].

    Returns:
        The logarithms of the probabilities, [..., C].

    Example:
        >>> log_probabilities(torch.tensor([0.0, 0.0]))
        tensor([-0.6931, -0.6931])
    """
    return torch.log_softmax(logits, -1, dtype=_working_dtype(logits))


def probabilities(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return p = softmax(logits) over classes; half precision is raised to float32.

    Args:
        logits: Logits [..., C].

    Returns:
        The probabilities, [..., C].

    Example:
        >>> probabilities(torch.tensor([0.0, 0.0, -math.inf]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    return torch.softmax(logits, -1, dtype=_working_dtype(logits))


def is_masked(p: Float[Tensor, "*batch C"]) -> Bool[Tensor, "*batch C"]:
    """Return which classes are masked: those of probability 0, whatever their logits are.

    A mask of -1e8, or of -1e4, leaves no more of a class than -inf does.

    Args:
        p: Probabilities [..., C].

    Returns:
        A tensor of bools, [..., C].

    Example:
        >>> is_masked(probabilities(torch.tensor([0.0, 0.0, -1e8])))
        tensor([False, False,  True])
    """
    return p == 0


def masked_logits(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
    """Return the logits with -inf at every class whose probability is 0 in their precision.

    Args:
        logits: Logits [..., C].

    Returns:
        Logits [..., C] of the same distribution.

    Example:
        >>> masked_logits(torch.tensor([0.0, 0.0, -1e8]))
        tensor([0., 0., -inf])
    """
    return logits.masked_fill(is_masked(probabilities(logits.detach())), -math.inf)


def tempered(p: Float[Tensor, "*batch C"], tau: float) -> Float[Tensor, "*batch C"]:
    """Return softmax(logits / tau) for p = softmax(logits): proportional to p^(1 / tau).

    Args:
        p: Probabilities [..., C].
        tau: The temperature, positive.

    Returns:
        The tempered probabilities, [..., C].

    Example:
        >>> tempered(torch.tensor([0.8, 0.2]), tau=0.5)
        tensor([0.9412, 0.0588])
    """
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
    """Return a.b along the classes, by a product with ones, which is fast for short rows.

    Args:
        a: A tensor [..., C].
        b: A tensor [..., C]; its batch axes broadcast with those of a.

    Returns:
        The inner products, [..., 1].

    Example:
        >>> row_dot(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        tensor([11.])
    """
    return (a * b) @ a.new_ones(a.shape[-1], 1)


def _working_dtype(logits: Tensor) -> torch.dtype:
    return logits.dtype if logits.dtype in (torch.float32, torch.float64) else torch.float32

"""Passes over the memory of tensors that numpy makes faster than torch, to the same bits.

They compare and copy numbers and compute nothing. Tensors that numpy cannot see, such as those of a
GPU, of torch.func or of torch.compile, go through torch.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["count_reached", "keep_memory", "one_hot", "seen_by_numpy"]

# Where copying unit rows beats scattering ones.
_TABLE_CLASSES = 64

# Less than the 32 MB above which the GNU allocator no longer learns; several blocks of draws.
_KEPT = 24 * 2**20


def seen_by_numpy(*tensors: Tensor) -> bool:
    """Return whether numpy may work on the memory of these tensors.

    Args:
        *tensors: Any tensors.

    Returns:
        Whether all are plain tensors of float32, float64 or integers on the CPU that record no
        gradient.

    Example:
        >>> seen_by_numpy(torch.zeros(2)), seen_by_numpy(torch.zeros(2, requires_grad=True))
        (True, False)
    """
    if torch.compiler.is_compiling():
        return False
    return all(
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not tensor.requires_grad
        and tensor.dtype not in (torch.bfloat16, torch.float16)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in tensors
    )


def count_reached(
    u: Float[Tensor, "*batch"], bounds: Float[Tensor, "K *#batch"]
) -> Int[Tensor, "*batch"]:
    """Return how many of K bounds each number reaches: bounds that are not above it.

    Args:
        u: Numbers [...].
        bounds: K <= 255 bounds of each, [K, ...].

    Returns:
        Counts [...], uint8.

    Example:
        >>> count_reached(torch.tensor([0.5, 0.1]), torch.tensor([[0.2], [0.5]]))
        tensor([2, 0], dtype=torch.uint8)
    """
    if seen_by_numpy(u, bounds):
        reached = np.greater_equal(u.numpy(), bounds.numpy())
        return torch.from_numpy(np.asarray(reached.view(np.uint8).sum(0, dtype=np.uint8)))
    return (u >= bounds).to(torch.uint8).sum(0, dtype=torch.uint8)


def one_hot(classes: Int[Tensor, "*shape"], like: Float[Tensor, "*batch C"]) -> Tensor:
    """Return the one-hot form of class indices.

    Args:
        classes: Class indices [...], int64.
        like: A tensor [..., C], whose dtype and number of classes the result has.

    Returns:
        One-hot rows [..., C].

    Raises:
        IndexError: If a class is not one of C.

    Example:
        >>> one_hot(torch.tensor([1]), torch.zeros(1, 3))
        tensor([[0., 1., 0.]])
    """
    size = like.shape[-1]
    seen = seen_by_numpy(classes, like.detach())
    if size > _TABLE_CLASSES or not (seen or classes.ndim == like.ndim):
        zeros = like.new_zeros(*classes.shape, size)
        return zeros.scatter(-1, classes.unsqueeze(-1), 1.0)
    if not seen:
        return F.embedding(classes, torch.eye(size, dtype=like.dtype, device=like.device))
    of = classes.numpy()
    if of.size and (of.min() < 0 or of.max() >= size):
        raise IndexError(f"classes must lie in [0, {size - 1}], not in [{of.min()}, {of.max()}]")
    # Memory of torch, whose alignment the matrix products of f see.
    out = like.new_empty(*classes.shape, size)
    into = out.numpy()
    np.take(_identity(size, into.dtype), of, axis=0, out=into, mode="clip")
    return out


@cache
def _identity(size: int, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    return np.eye(size, dtype=dtype)


@cache
def keep_memory() -> None:
    """Let the GNU allocator keep what one block of draws has freed, for the next block.

    It learns from the largest piece that is freed how much to keep. Else it returns a block's
    memory to the system each time, and every page of it costs a fault again: up to a third of the
    time of a draw. Other allocators keep memory, or not, as before.

    Example:
        >>> keep_memory()
    """
    np.empty(_KEPT, np.uint8)  # no page of it is touched

"""A value whose backward is a product of an estimator's own."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["with_product"]


def with_product(
    out: Float[Tensor, "*batch C"],
    logits: Float[Tensor, "*batch C"],
    product: Callable[..., Tensor],
    *saved: Tensor,
) -> Float[Tensor, "*batch C"]:
    """Return `out` with the backward logits.grad += product(grad, *saved), under torch.func too.

    The product works in the dtype of `saved`, which may be finer than that of the logits.
    """
    if torch._C._are_functorch_transforms_active():
        return _MappedWithProduct.apply(out.to(logits.dtype), logits, product, *saved)
    return _WithProduct.apply(out.to(logits.dtype), logits, product, *saved)


class _Backward(torch.autograd.Function):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        to_logits = ctx.product(grad.to(saved[0].dtype), *saved).to(grad.dtype)
        return None, to_logits, *[None] * (1 + len(saved))


class _WithProduct(_Backward):
    @staticmethod
    def forward(
        ctx: Any, out: Tensor, logits: Tensor, product: Callable[..., Tensor], *saved: Tensor
    ) -> Any:
        ctx.product = product
        ctx.save_for_backward(*saved)
        return out.clone()


class _MappedWithProduct(_Backward):
    """The same in the form that torch.func asks for, whose calls read a signature each time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(out: Tensor, logits: Tensor, product: Callable[..., Tensor], *saved: Tensor) -> Any:
        return out.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.product = inputs[2]
        ctx.save_for_backward(*inputs[3:])

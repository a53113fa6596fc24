r"""The optimization toys: independent bits whose expected loss is known, descended by Adam.

Tucker's toy is one bit, E (b - t)^2; polynomial programming is E sum_i |b_i - c|^p / L with L bits.
Both have targets below 1/2, so that b = 0 is best.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits, probabilities
from gradlab.checks import check_int
from gradlab.estimators import Estimator
from gradlab.loss import Loss
from gradlab.loss.gate import checked
from gradlab.problems import NormPower
from gradlab.reproducible import block_generator, check_seed

__all__ = ["TOYS", "expected_loss", "optimize"]

TOYS: dict[str, NormPower] = {
    "Tucker, t = 0.45": NormPower(1, 2, 2, 0.45),
    "Tucker, t = 0.499": NormPower(1, 2, 2, 0.499),
    "polynomial, p = 1.5": NormPower(128, 2, 1.5, 0.45),
    "polynomial, p = 2": NormPower(128, 2, 2, 0.45),
    "polynomial, p = 3": NormPower(128, 2, 3, 0.45),
}
"""By name; Tucker et al. 2017 (1703.07370), Grathwohl et al. 2018 (1711.00123), Liu et al. 2023
(2304.08612)."""


def expected_loss(f: NormPower, logits: Float[Tensor, "*runs N C"]) -> Float[Tensor, "*runs"]:
    """Return E f(x) exactly, float64: the variables are independent and f is a sum over them."""
    p = probabilities(check_logits(logits.detach().to(torch.float64)))
    levels = torch.linspace(0.0, 1.0, f.C, dtype=torch.float64, device=p.device)
    target = torch.as_tensor(f.target, dtype=torch.float64, device=p.device)
    each = (levels - target.unsqueeze(-1)).abs() ** f.p
    return (p * each).sum((-2, -1)) / f.N


def optimize(
    estimator: Estimator,
    f: Loss,
    logits: Float[Tensor, "*runs N C"],
    steps: int = 150,
    lr: float = 0.08,
    batch: int = 64,
    seed: int = 0,
    *,
    every: int = 1,
) -> Float[Tensor, "records *runs N C"]:
    """Descend E f(x) by Adam from `logits`; return the logits at steps 0, every, 2 every, ...

    The gradient of a step is the mean of `batch` estimates at the same logits. Runs are independent
    but for a moving average (EMA), which is one for all of them. f sees x of shape [..., *runs,
    batch, N, C]. Raises ValueError if the estimator does not support f or a count is no positive
    int, and what f raises.
    """
    check_logits(logits)
    check_seed(seed)
    for name, count in (("steps", steps), ("batch", batch), ("every", every)):
        check_int(name, count, 1)
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr!r}")
    reason = estimator.supports(f, logits.flatten(0, -3)[0] if logits.ndim > 2 else logits)
    if reason is not None:
        raise ValueError(f"{estimator} cannot be used: {reason}")
    generator = block_generator(seed, f"optimize|{estimator}|{getattr(f, 'name', '')}")
    repeated = logits.unsqueeze(-3).expand(*logits.shape[:-2], batch, *logits.shape[-2:])
    checked(f, repeated, any_batch=True)
    logits = logits.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=lr, foreach=False)
    records = [logits.detach().clone()]
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        repeated = logits.unsqueeze(-3).expand(*logits.shape[:-2], batch, *logits.shape[-2:])
        values = estimator.surrogate(f, repeated, generator)
        values.mean(-1).sum().backward()
        estimator = estimator.updated(values)
        optimizer.step()
        if step % every == 0:
            records.append(logits.detach().clone())
    return torch.stack(records)

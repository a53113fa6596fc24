"""What other packages offer for the same jobs, used as their documentation shows it.

pyro and storchastic change torch when they are imported. So they are timed in processes of their
own: `python -m benchmarks.rivals JOB PROBLEM N C` prints the seconds of a job.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import OneHotCategorical, RelaxedOneHotCategorical

from benchmarks.ratios import Work, measure_all
from gradlab.loss import Loss
from gradlab.problems import problem, regime

__all__ = ["JOBS", "LAYERS", "Absent", "backward", "elsewhere", "layers", "loop", "per_draw"]

_ABSENT = 3


class Absent(Exception):
    """A package is not installed; the message names it."""


def gumbel_softmax(logits: Tensor) -> Tensor:
    """Return a sample by torch's function: GS-ST(1)."""
    return F.gumbel_softmax(logits, hard=True)


def relaxed(logits: Tensor) -> Tensor:
    """Return a relaxed sample by torch's distribution: GS(1)."""
    return RelaxedOneHotCategorical(torch.tensor(1.0), logits=logits).rsample()


def gumbel_rao(logits: Tensor, tau: float = 1.0, k: int = 10) -> Tensor:
    """Return a sample by Gumbel-Rao as scripts have it: k conditional Gumbels for each class."""
    x = OneHotCategorical(logits=logits.detach()).sample()
    with torch.no_grad():
        noise = torch.empty(k, *logits.shape, dtype=logits.dtype).exponential_()
        total = logits.exp().sum(-1, keepdim=True)
        largest = (noise * x).sum(-1, keepdim=True) / total
        others = noise / logits.exp() + largest
        perturbed = -torch.where(x > 0, largest, others).log() - logits
    y = ((logits + perturbed) / tau).softmax(-1).mean(0)
    return x + y - y.detach()


def reinmax_layer() -> Callable[[Tensor], Tensor]:
    """Return the sample of the package reinmax."""
    try:
        from reinmax import reinmax
    except ModuleNotFoundError as error:
        raise Absent("reinmax is not installed") from error
    return lambda logits: reinmax(logits, 1.0)[0]


LAYERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "F.gumbel_softmax(hard=True)": lambda: gumbel_softmax,
    "RelaxedOneHotCategorical": lambda: relaxed,
    "reinmax": reinmax_layer,
    "conditional Gumbels": lambda: gumbel_rao,
}
"""Samples with a gradient, by the name of the line."""


def layers() -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, str]]:
    """Return the layers that can be imported, and why the others cannot."""
    found, absent = {}, {}
    for name, make in LAYERS.items():
        try:
            found[name] = make()
        except Absent as error:
            absent[name] = str(error)
    return found, absent


def backward(out: Tensor, logits: Tensor, v: Tensor) -> None:
    torch.autograd.grad(out, logits, v)


def loop(layer: Callable[[Tensor], Tensor], f: Loss, logits: Tensor) -> Tensor:
    """Return one estimate [N, C], as in training: one sample, one backward."""
    leaf = logits.detach().clone().requires_grad_()
    f(layer(leaf)).backward()
    assert leaf.grad is not None
    return leaf.grad


def per_draw(layer: Callable[[Tensor], Tensor], f: Loss, logits: Tensor, n: int) -> Tensor:
    """Return n estimates [n, N, C] at once, for logits that are repeated."""
    leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
    return torch.autograd.grad(f(layer(leaf)).sum(), leaf)[0]


def elsewhere(job: str, name: str, variables: int, classes: int) -> float:
    """Return the CPU seconds of a job of another package, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.rivals", job, name, str(variables), str(classes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == _ABSENT:
        raise Absent(done.stdout.splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def _storchastic_rloo(f: Loss, logits: Tensor) -> Work:
    """RLOO(2), one backward."""
    import storch

    def step() -> Tensor | None:
        leaf = logits.to(torch.float32).requires_grad_()
        method = storch.method.ScoreFunction("x", n_samples=2, baseline_factory="batch_average")
        x = method(OneHotCategorical(logits=leaf))
        storch.add_cost(storch.deterministic(lambda x: f(x))(x), "f")
        storch.backward()
        return leaf.grad

    return step


def _storchastic_expect(f: Loss, logits: Tensor) -> Work:
    """The exact gradient, every variable enumerated."""
    import storch

    def step() -> Tensor | None:
        leaf = logits.clone().requires_grad_()
        rows = [
            storch.method.Expect(f"x{i}")(OneHotCategorical(logits=row))
            for i, row in enumerate(leaf)
        ]
        whole = storch.deterministic(lambda *rows: f(_stacked(*rows)))
        storch.add_cost(whole(*rows), "f")
        storch.backward()
        return leaf.grad

    return step


def _stacked(*rows: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*rows), -2)


def _pyro(f: Loss, leaf: Tensor) -> tuple[Work, Work]:
    """Return model and guide whose ELBO is E f: x has the same law in both."""
    import pyro
    from pyro.distributions import OneHotCategorical as Categorical

    def guide() -> list[Any]:
        return [
            pyro.sample(f"x{i}", Categorical(logits=row, validate_args=False))
            for i, row in enumerate(leaf)
        ]

    def model() -> None:
        pyro.factor("f", f(_stacked(*guide())))

    return model, guide


def _pyro_exact(f: Loss, logits: Tensor) -> Work:
    """The exact gradient by TraceEnum_ELBO, every variable enumerated in parallel."""
    from pyro.infer import TraceEnum_ELBO, config_enumerate

    def step() -> Tensor:
        leaf = logits.clone().requires_grad_()
        model, guide = _pyro(f, leaf)
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        (-elbo.differentiable_loss(model, config_enumerate(guide, "parallel"))).backward()
        assert leaf.grad is not None
        return leaf.grad

    return step


def _pyro_reinforce(f: Loss, logits: Tensor) -> Work:
    """One draw of REINFORCE by Trace_ELBO, for one variable in the model: the whole x."""
    import pyro
    from pyro.distributions import OneHotCategorical as Categorical
    from pyro.infer import Trace_ELBO

    def step() -> Tensor:
        leaf = logits.to(torch.float32).requires_grad_()

        def guide() -> Any:
            return pyro.sample("x", Categorical(logits=leaf, validate_args=False).to_event(1))

        def model() -> None:
            pyro.factor("f", f(guide()))

        (-Trace_ELBO().differentiable_loss(model, guide)).backward()
        assert leaf.grad is not None
        return leaf.grad

    return step


def _pyro_straight_through(f: Loss, logits: Tensor) -> Work:
    """One draw through RelaxedOneHotCategoricalStraightThrough, one backward."""
    from pyro.distributions import RelaxedOneHotCategoricalStraightThrough as Relaxed

    def layer(leaf: Tensor) -> Tensor:
        return Relaxed(torch.tensor(1.0), logits=leaf, validate_args=False).rsample()

    return lambda: loop(layer, f, logits.to(torch.float32))


JOBS: dict[str, tuple[str, Callable[[Loss, Tensor], Work]]] = {
    "RLOO(2) of storchastic": ("storch", _storchastic_rloo),
    "Expect of storchastic": ("storch", _storchastic_expect),
    "TraceEnum_ELBO of pyro": ("pyro", _pyro_exact),
    "Trace_ELBO of pyro": ("pyro", _pyro_reinforce),
    "RelaxedOneHotCategoricalStraightThrough of pyro": ("pyro", _pyro_straight_through),
}
"""Jobs of packages that change torch: the module that they import, and what makes the work."""


def main(job: str, name: str, variables: str, classes: str) -> None:
    module, make = JOBS[job]
    torch.set_num_threads(1)
    logits = regime("moderate", int(variables), int(classes), 0)
    try:
        work = make(problem(name, int(variables), int(classes)), logits)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        package = {"storch": "storchastic"}.get(module, module)
        print(f"{package} is not installed")
        sys.exit(_ABSENT)
    print(measure_all({job: work})[job])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Passes over memory by numpy: the bits of torch, whatever the shape, dtype and mask."""

import platform
import subprocess
import sys

import pytest
import torch

from gradlab import passes, samples
from gradlab.passes import count_reached, seen_by_numpy
from gradlab.samples import draw_classes, noise_ratio, one_hot

SIZES = [(1, 1), (2, 2), (8, 4), (3, 10), (2, 32), (2, 33), (2, 100)]
with_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(variables: int, classes: int, dtype: torch.dtype) -> torch.Tensor:
    """Return probabilities, where there is a third class with one that is masked."""
    logits = torch.randn(variables, classes, generator=source(1), dtype=dtype)
    if classes > 2:
        logits[0, 1] = -torch.inf
    return logits.softmax(-1)


@pytest.fixture
def by_torch(monkeypatch):
    """Return what computes something with numpy shut out."""

    def compute(work):
        with monkeypatch.context() as patch:
            patch.setattr(passes, "seen_by_numpy", lambda *tensors: False)
            return work()

    return compute


@pytest.mark.parametrize("n", [None, 1, 7])
@pytest.mark.parametrize("size", SIZES, ids=str)
@with_dtypes
@pytest.mark.few(9)
def test_draws_are_those_of_torch(by_torch, dtype, size, n):
    p = masked(*size, dtype)
    p = p.expand(5, *p.shape) if n is None else p
    found = draw_classes(p, source(), n)
    assert torch.equal(found, by_torch(lambda: draw_classes(p, source(), n)))
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    rows = one_hot(found, p)
    assert torch.equal(rows, by_torch(lambda: one_hot(found, p)))
    assert torch.equal(rows.argmax(-1), found)
    assert rows.dtype == dtype
    assert rows.is_contiguous()


@with_dtypes
def test_a_bound_that_is_met_is_reached(by_torch, dtype):
    bounds = torch.tensor([0.25, 0.5, 0.75], dtype=dtype)[:, None]
    u = torch.tensor([0.0, 0.25, 0.5, 0.6, 0.75], dtype=dtype)
    assert count_reached(u, bounds).tolist() == [0, 1, 2, 2, 3]
    assert torch.equal(count_reached(u, bounds), by_torch(lambda: count_reached(u, bounds)))
    steps = torch.rand(3, 4, 1, generator=source(), dtype=dtype)
    numbers = torch.rand(6, 4, generator=source(1), dtype=dtype).T  # not contiguous
    found = count_reached(numbers, steps)
    assert torch.equal(found, by_torch(lambda: count_reached(numbers, steps)))
    assert torch.equal(found, (numbers >= steps).sum(0).to(torch.uint8))


@pytest.mark.parametrize("number", [-1, 3])
def test_a_class_that_does_not_exist_is_refused(number):
    with pytest.raises(IndexError, match=r"classes must lie in \[0, 2\], not in"):
        one_hot(torch.tensor([[0, number]]), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, requires_grad=True),
        torch.zeros(2, dtype=torch.bfloat16),
        torch.zeros(2, device="meta"),
        torch.nn.Parameter(torch.zeros(2)),
    ],
    ids=["records a gradient", "half precision", "not on the CPU", "a subclass"],
)
def test_what_numpy_cannot_see_goes_through_torch(tensor):
    assert seen_by_numpy(torch.zeros(2))
    assert not seen_by_numpy(torch.zeros(2), tensor)


def test_tensors_of_torch_func_go_through_torch():
    seen = []
    torch.func.vmap(lambda row: seen.append(seen_by_numpy(row)) or row)(torch.zeros(3, 2))
    assert seen == [False]


@pytest.mark.parametrize("size", [(8, 4), (3, 10)], ids=str)
@pytest.mark.parametrize("layout", [samples.class_first, torch.Tensor.contiguous])
@with_dtypes
@pytest.mark.few(4)
def test_noise_given_the_sample_is_the_plain_ratio(dtype, layout, size):
    p = masked(*size, dtype).expand(50, *size)
    x = one_hot(draw_classes(p, source(2)), p)
    x[0, 0] = one_hot(torch.tensor(1), p)  # a class of probability 0
    p, x = layout(p), layout(x)
    noise = samples._draw_logs(x, source(3))
    plain = noise * (1 - x) / torch.maximum(p, x) / (noise * x).sum(-1, keepdim=True)
    found = noise_ratio(p, x, source(3))
    assert torch.equal(found, plain)
    assert found.stride() == x.stride()
    assert not torch.signbit(found).any()  # 0.0, not -0.0, at the class of x


FAULTS = """
import resource, torch
from gradlab import GumbelSoftmaxST
from gradlab.problems import problem, regime
torch.set_num_threads(1)
f, logits = problem("mlp", 8, 4), regime("moderate", 8, 4).to(torch.float32)
draw = lambda: GumbelSoftmaxST(0.5).draw(f, logits, 4096)
for _ in range(5):
    draw()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    draw()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks about the GNU allocator")
def test_memory_of_a_block_is_kept_for_the_next():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100  # about 500 where each block returns its memory

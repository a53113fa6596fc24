"""Problems: golden values and gradients, declared degrees, logits, the digits, the tiny VAE."""

import gzip
import itertools
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

import gradlab.data
import gradlab.problems
from cases import all_states
from gradlab.data.cache import cache_folder
from gradlab.data.digits import digit_rows, digits
from gradlab.problems import (
    MLP,
    PROBLEMS,
    REGIMES,
    SNAPSHOTS,
    Cubic,
    Linear,
    LookupTable,
    NormPower,
    Polynomial,
    Quadratic,
    TinyVAE,
    problem,
    regime,
)
from gradlab.problems.tiny_vae_model import elbo, encode
from gradlab.problems.tiny_vae_weights import Training, trained

DATA = Path(gradlab.data.__file__).parent
TEXTS = [*PROBLEMS, *(f"polynomial:{d}" for d in range(7)), "norm:1.5", "norm:3", "norm:4"]
DIFFERENTIABLE = [text for text in TEXTS if text != "table"]
SIZES = {"vae": (4, 4)}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    """Train the VAE in a folder of this run; the user's cache is neither used nor touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        trained.cache_clear()
        yield
        trained.cache_clear()


def make(text, N=4, C=3, seed=0):
    return problem(text, *SIZES.get(text, (N, C)), seed)


def relaxed(f, *batch, seed=0):
    """Points off the one-hot corners, where polynomials differ most."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, f.N, f.C, generator=generator, dtype=torch.float64)


def enumerated_gradient(f, logits):
    """The mean of f(x) (x - p) over all states, independent of the exact engine."""
    x, p = all_states(*logits.shape), logits.softmax(-1)
    weight = (x * p).sum(-1).prod(-1) * f(x)
    return (weight[:, None, None] * (x - p)).sum(0)


def gradient(f, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


# --- The contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.few(4)
def test_batch_axes(text):
    f = make(text)
    x = relaxed(f, 2, 3)
    one_by_one = torch.stack([torch.stack([f(row) for row in block]) for block in x])
    torch.testing.assert_close(f(x), one_by_one, rtol=1e-12, atol=1e-12)
    assert f(x[0, 0]).shape == ()
    assert f(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("text", DIFFERENTIABLE)
def test_class_axis_first_in_memory(text):
    f = make(text)
    x = relaxed(f, 5)
    strided = x.movedim(-1, 0).contiguous().movedim(0, -1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(f(strided), f(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(f, strided), gradient(f, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.few(15)
def test_dtype_follows_x(text, dtype):
    f = make(text)
    x = all_states(f.N, f.C)[:50]
    values = f(x.to(dtype))
    assert values.dtype == dtype
    scale = f(x).abs().max().item() + 1
    error = (values.double() - f(x)).abs().max().item()
    assert error < 50 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("text", DIFFERENTIABLE)
@pytest.mark.few(7)
def test_gradient_is_that_of_the_values(text):
    f = make(text)
    assert f.differentiable
    assert torch.autograd.gradcheck(f, relaxed(f, 2, seed=1).requires_grad_())


@pytest.mark.parametrize("text", TEXTS)
def test_pickle(text):
    f = make(text)
    g = pickle.loads(pickle.dumps(f))
    x = relaxed(f, 4)
    assert torch.equal(f(x), g(x))
    assert (f.name, f.degree, f.N, f.C) == (g.name, g.degree, g.N, g.C)


@pytest.mark.parametrize("text", TEXTS)
def test_seed_decides(text):
    f, again, other = make(text, seed=1), make(text, seed=1), make(text, seed=2)
    x = relaxed(f, 4)
    assert torch.equal(f(x), again(x))
    fixed = text.startswith("norm")
    assert torch.equal(f(x), other(x)) == fixed
    assert (f.name == other.name) == fixed


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("quadratic", "quadratic(N=4, C=3, seed=0)"),
        ("polynomial:5", "polynomial(degree=5, N=4, C=3, seed=0)"),
        ("norm:1.5", "norm(p=1.5, target=0.45, N=4, C=3)"),
        ("mlp", "mlp(N=4, C=3, seed=0)"),
        ("vae:long", "vae(snapshot=long, image=0)"),
    ],
)
def test_readable_name(text, name):
    f = problem(text, 4, 4 if text.startswith("vae") else 3)
    assert f.name == repr(f) == name


def test_streams_of_one_seed_are_independent():
    b = Linear.random(4, 3, seed=0).b
    logits = regime("moderate", 4, 3, seed=0)
    plain = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.allclose(b, logits)
    assert not torch.allclose(b, plain)
    assert not torch.allclose(logits, plain)


# --- Declared degree --------------------------------------------------------------------------


def relative_difference(f, variable, order):
    """The largest finite difference of this order along random directions in one variable."""
    generator = torch.Generator().manual_seed(variable)
    along = torch.zeros(16, f.N, f.C, dtype=torch.float64)
    along[:, variable] = torch.randn(16, f.C, generator=generator, dtype=torch.float64)
    steps = torch.arange(order + 1, dtype=torch.float64)[:, None, None, None]
    values = f(relaxed(f, seed=3) + steps * along)
    signs = [(-1.0) ** (order - j) * math.comb(order, j) for j in range(order + 1)]
    differences = torch.tensor(signs, dtype=torch.float64) @ values
    return (differences.abs().max() / values.abs().max()).item()


@pytest.mark.parametrize("variable", range(4))
@pytest.mark.parametrize("text", DIFFERENTIABLE)
@pytest.mark.few(28)
def test_declared_degree_is_the_measured_one(text, variable):
    f = make(text)
    order = 5 if f.degree == math.inf else f.degree
    assert relative_difference(f, variable, order) > 1e-7
    if f.degree < math.inf:
        assert relative_difference(f, variable, f.degree + 1) < 1e-12


@pytest.mark.parametrize(
    ("text", "degree"),
    [
        ("constant", 0),
        ("linear", 1),
        ("multilinear", 1),
        ("quadratic", 2),
        ("multiquadratic", 2),
        ("cubic", 3),
        ("polynomial:0", 0),
        ("polynomial:6", 6),
        ("norm:2", 2),
        ("norm:3", math.inf),
        ("softplus", math.inf),
        ("table", math.inf),
        ("mlp", math.inf),
        ("vae", math.inf),
    ],
)
def test_degree(text, degree):
    assert make(text).degree == degree


def test_polynomials_of_one_seed_are_nested():
    low, high = Polynomial.random(3, 3, 0, degree=2), Polynomial.random(3, 3, 0, degree=4)
    assert torch.equal(low.a, high.a[:2])


# --- Single problems --------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_norm_power_on_bits(p):
    targets = (0.6, 0.51, 0.48)
    f = NormPower(3, 2, p, targets)
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    expected = ((bits - torch.tensor(targets, dtype=torch.float64)).abs() ** p).mean(-1)
    torch.testing.assert_close(f(all_states(3, 2)), expected, rtol=0, atol=1e-15)


def test_table_order_and_missing_gradient():
    f = LookupTable.random(3, 4)
    x = all_states(3, 4).requires_grad_()
    assert torch.equal(f(x), f.table)
    assert not f(x).requires_grad
    assert not f.differentiable


@pytest.mark.parametrize("hidden", [(8,), (8, 8)])
def test_network_layers(hidden):
    f = MLP(2, 3, seed=1, hidden=hidden)
    h = all_states(2, 3).flatten(1)
    for layer in range(len(hidden)):
        h = torch.tanh(h @ f.weights[2 * layer] + f.weights[2 * layer + 1])
    torch.testing.assert_close(f(all_states(2, 3)), h @ f.weights[-1])


# --- Logits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1, 2, 3, 5])
@pytest.mark.parametrize("name", REGIMES)
def test_regimes_are_valid_logits(name, C):
    logits = torch.stack([regime(name, 6, C, seed) for seed in range(20)])
    assert logits.dtype == torch.float64
    assert torch.isfinite(logits).any(-1).all()
    assert torch.isfinite(logits.softmax(-1)).all()
    assert torch.equal(logits[3], regime(name, 6, C, 3))


@pytest.mark.parametrize("C", [3, 5])
def test_masked_regime(C):
    masked = torch.stack([regime("masked", 6, C, seed) for seed in range(20)]) == -math.inf
    lost = masked.sum(-1)
    assert (lost >= 1).all()
    assert (lost[:, 0] == 1).all()
    assert lost.max() == C - 1  # one class left: a deterministic variable
    assert (masked.flatten(0, 1).float().mean(0) < 1).all()


def test_masked_regime_of_bits_and_of_one_class():
    assert (regime("masked", 4, 2) == -math.inf).sum(-1).tolist() == [1, 0, 0, 0]
    assert torch.isfinite(regime("masked", 4, 1)).all()


def test_regimes_differ_in_peakedness():
    top = {
        name: torch.stack([regime(name, 50, 3, s).softmax(-1).amax(-1) for s in range(10)]).median()
        for name in REGIMES
    }
    assert top["uniform"] < 0.34 < top["moderate"] < 0.8 < 0.9 < top["peaked"] < 0.99


# --- Errors -----------------------------------------------------------------------------------

b32 = torch.zeros(3, 2, dtype=torch.float64)
lopsided = torch.arange(36, dtype=torch.float64).view(3, 2, 3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problem("quadratik", 2, 3), "did you mean 'quadratic'.*known: constant, linear"),
        (lambda: problem("cubic:3", 2, 3), "takes no argument.*polynomial:degree"),
        (lambda: problem("polynomial:x", 2, 3), "degree in 'polynomial:x' must be a number"),
        (lambda: problem("polynomial:-1", 2, 3), "degree must be a whole number from 0 to 20"),
        (lambda: problem("norm:0.5", 2, 3), "p must be a finite number of at least 1, not 0.5"),
        (lambda: problem("norm:nan", 2, 3), "p must be a finite number"),
        (lambda: problem("vae", 2, 3), "has N=4, C=4, not N=2, C=3"),
        (lambda: problem("vae:late", 4, 4), "unknown snapshot 'late'.*known: initial, little"),
        (lambda: problem("vae", 4, 4, seed=300), "image must be a whole number from 0 to 299"),
        (lambda: problem("table", 23, 2), "too many for N=23, C=2 .at most 4194304"),
        (lambda: problem("cubic", 100, 3), "N \\* C must be at most 128"),
        (lambda: problem("linear", 0, 3), "N must be a whole number of at least 1"),
        (lambda: problem("mlp", 2, 0), "C must be a whole number of at least 1"),
        (lambda: regime("peeked", 2, 3), "did you mean 'peaked'.*known: uniform, moderate"),
        (lambda: Quadratic(lopsided, b32), "Q must be symmetric"),
        (lambda: Cubic(torch.rand(1, 2, 1, 2, 1, 2)), "T must be symmetric"),
        (lambda: NormPower(3, 2, 2, (0.1, 0.2)), "target must be one number or N = 3 numbers"),
        (lambda: LookupTable(2, 2, torch.zeros(5)), r"table must have C\^N = 4 entries, not 5"),
        (lambda: MLP(2, 2, hidden=()), "hidden must be one or more positive widths"),
        (lambda: Linear(b32)(torch.zeros(5, 2, 3)), r"x must have shape \[..., 3, 2\]"),
    ],
)
def test_errors_name_argument_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Quadratic(torch.zeros(3, 2, 2, 2), b32),
        lambda: Cubic(torch.zeros(2, 2)),
        lambda: Linear(torch.zeros(3)),
        lambda: Polynomial(torch.zeros(2, 3)),
        lambda: Linear(b32)(torch.zeros(3, 2, dtype=torch.int64)),
    ],
)
def test_wrong_shapes_and_types_are_refused(call):
    # ValueError or TypeError of the package, or before it that of the type checker in tests.
    with pytest.raises((ValueError, TypeError)):
        call()


# --- Digits -----------------------------------------------------------------------------------


def test_digits():
    images, labels = digits()
    assert images.shape == (300, 784)
    assert images.unique().tolist() == [0, 1]
    assert labels.tolist() == [i % 10 for i in range(300)]
    assert len(set(digit_rows().tolist())) == 300
    assert len(images.unique(dim=0)) == 300


def test_digits_file_is_small_and_credited():
    assert (DATA / "digits.npz").stat().st_size < 100_000
    assert re.search("LeCun.*Cortes.*Burges", (DATA / "DIGITS.md").read_text())


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:99] + c[100:]])
def test_damaged_digits_are_refused(damage, tmp_path, monkeypatch):
    content = (DATA / "digits.npz").read_bytes()
    (tmp_path / "digits.npz").write_bytes(damage(content))
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(RuntimeError, match=r"digits\.npz is damaged"):
        digits()


@pytest.mark.full_data
def test_digits_against_full_mnist():
    path = Path(os.environ.get("GRADLAB_DATA", "")) / "mnist"
    source = path / "t10k-images-idx3-ubyte.gz"
    if "GRADLAB_DATA" not in os.environ or not source.exists():
        pytest.skip("GRADLAB_DATA names no folder with mnist/t10k-images-idx3-ubyte.gz")
    pixels = np.frombuffer(gzip.decompress(source.read_bytes())[16:], np.uint8).reshape(-1, 784)
    content = gzip.decompress((path / "t10k-labels-idx1-ubyte.gz").read_bytes())
    (images, labels), rows = digits(), digit_rows().numpy()
    assert np.array_equal(images.numpy(), pixels[rows] > 127)
    assert np.array_equal(labels.numpy(), np.frombuffer(content[8:], np.uint8)[rows])


# --- The tiny VAE -----------------------------------------------------------------------------


def negative_elbo(snapshot, image, logits):
    """The textbook form, from the unsigned weights: expected Bernoulli likelihood and KL."""
    w = trained()[snapshot]
    x = all_states(4, 4)
    h = torch.tanh(x.flatten(1) @ w.decoder_in + w.decoder_in_bias)
    pixels = Bernoulli(logits=h @ w.decoder_out + w.decoder_out_bias)
    likelihood = pixels.log_prob(digits()[0][image].double()).sum(-1)
    posterior = Categorical(logits=logits)
    weight = posterior.log_prob(x.argmax(-1)).sum(-1).exp()
    prior = Categorical(logits=torch.zeros(4, 4, dtype=torch.float64))
    return kl_divergence(posterior, prior).sum() - (weight * likelihood).sum()


@pytest.mark.parametrize("image", [0, 137])
@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_vae_is_the_negative_elbo(snapshot, image):
    f = TinyVAE(snapshot, image)
    weight = (all_states(4, 4) * f.logits.softmax(-1)).sum(-1).prod(-1)
    logits = f.logits.clone().requires_grad_()
    truth = negative_elbo(snapshot, image, logits)
    (truth_gradient,) = torch.autograd.grad(truth, logits)
    value = (weight * f(all_states(4, 4))).sum()
    bound = elbo(trained()[snapshot], digits()[0][image : image + 1].double())[0]
    torch.testing.assert_close(value, truth.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(value, -bound, rtol=0, atol=1e-10)
    found = enumerated_gradient(f, f.logits)
    torch.testing.assert_close(found, truth_gradient, rtol=0, atol=1e-10)


def test_vae_snapshots_are_different_regimes():
    images = digits()[0].double()
    bounds = [elbo(trained()[name], images).mean().item() for name in SNAPSHOTS]
    entropies = [
        Categorical(logits=encode(trained()[name], images)).entropy().sum(-1).mean().item()
        for name in SNAPSHOTS
    ]
    assert (np.diff(bounds) > 1).all()
    assert bounds[-1] > -145
    most = 4 * math.log(4)
    assert entropies[0] > 0.95 * most > 0.92 * most > entropies[1] > 0.7 * most
    assert 0.35 * most > entropies[2] > 0.15 * most > 0.05 * most > entropies[3]


QUICK = Training(hidden=2, snapshots=(("initial", 0), ("long", 2)))
load = trained.__wrapped__  # past the memory of this process


def same(one, other):
    return all(
        torch.equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True)
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse(*arguments):
    raise AssertionError("trained again")


def test_cache_is_read_back(cache, monkeypatch):
    first = load(QUICK)
    (file,) = cache.iterdir()
    assert file.suffix == ".npz"
    monkeypatch.setattr("gradlab.problems.tiny_vae_weights._train", refuse)
    assert same(load(QUICK), first)


@pytest.mark.parametrize(
    "changed", [Training(seed=1), Training(hidden=3), Training(batch=10), Training(snapshots=())]
)
def test_cache_key_depends_on_every_setting(changed):
    assert changed.key != Training().key


def forge(file):
    """A well-formed archive with other numbers."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(file, **{**arrays, "long.encoder_in": arrays["long.encoder_in"] + 1e-6})


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not an archive"),
        lambda file: file.write_bytes(file.read_bytes()[:-200]),
        lambda file: file.write_bytes(
            file.read_bytes()[:9000] + bytes(99) + file.read_bytes()[9099:]
        ),
        lambda file: np.savez(file, long=np.array([{}], dtype=object)),
        forge,
    ],
    ids=["empty", "garbage", "truncated", "flipped", "pickle", "forged"],
)
@pytest.mark.few(2)
def test_damaged_cache_is_replaced(damage, cache):
    first = load(QUICK)
    (file,) = cache.iterdir()
    damage(file)
    with pytest.warns(RuntimeWarning, match="cannot be used.*training again"):
        again = load(QUICK)
    assert same(again, first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load(QUICK), first)


def test_unwritable_cache_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="cannot be kept.*set GRADLAB_CACHE"):
        weights = load(QUICK)
    assert set(weights) == {"initial", "long"}


def test_interrupted_write_leaves_nothing(cache, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(QUICK)
    assert list(cache.iterdir()) == []


# Untrained weights stand for trained ones: it is about the cache, and the process starts sooner.
# Neither process goes on before both have found the cache empty.
SCRIPT = """
import os, pathlib, time, warnings
from gradlab.problems import vae_weights
warnings.simplefilter("error")
weights = vae_weights.initial_weights(2, vae_weights.digits()[0].double(), 0)
def meet(training):
    (pathlib.Path({folder!r}) / str(os.getpid())).touch()
    while len(os.listdir({folder!r})) < 2:
        time.sleep(0.01)
    return dict(initial=weights, long=weights)
vae_weights._train = meet
{fault}
vae_weights.trained(vae_weights.Training(hidden=2, snapshots=(("initial", 0), ("long", 2))))
"""


@pytest.mark.slow
def test_processes_share_a_cache_and_may_be_killed(cache, tmp_path, monkeypatch):
    """One process dies between write and rename while another writes the same weights."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    faults = ["os.replace = lambda *a: os._exit(9)", ""]
    scripts = [SCRIPT.format(folder=str(meeting), fault=fault) for fault in faults]
    running = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    try:
        assert [process.wait(timeout=600) for process in running] == [9, 0]
    finally:
        for process in running:
            process.kill()
    assert sorted(file.suffix for file in cache.iterdir()) == [".npz", ".part"]
    monkeypatch.setattr("gradlab.problems.tiny_vae_weights._train", refuse)
    found = load(QUICK)
    assert {name: len(weights) for name, weights in found.items()} == {"initial": 8, "long": 8}


def test_training_leaves_torch_as_it_was(cache):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.inference_mode():
        weights = load(QUICK)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not weights["long"].encoder_in.is_inference()


def test_cache_folder_without_own_setting(monkeypatch):
    monkeypatch.delenv("GRADLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cache_folder() == Path("/some/where/gradlab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "gradlab"

"""The codes that gradlab is timed against compute what the lines say."""

from importlib.util import find_spec

import pytest
import torch

from benchmarks import peers, rivals
from gradlab import exact_gradient, exact_moments
from gradlab.estimators import parse
from gradlab.problems import problem, regime

F, LOGITS = problem("mlp", 3, 4), regime("moderate", 3, 4)
N = 20_000


def mean_is(g, mean):
    """Return whether the mean of draws is a given one, within 5 standard errors."""
    error = g.std(0) / len(g) ** 0.5
    return bool(((g.mean(0) - mean).abs() <= 5 * error + 1e-12).all())


@pytest.mark.parametrize("name", ["F.gumbel_softmax(hard=True)", "reinmax", "conditional Gumbels"])
def test_layers_of_others_have_the_mean_and_variance_of_ours(name):
    if name == "reinmax":
        pytest.importorskip("reinmax")
    torch.manual_seed(0)
    g = rivals.per_draw(rivals.LAYERS[name](), F, LOGITS, N)
    same, other = (exact_moments(parse(text), F, LOGITS) for text in (peers._SAME[name], "ST"))
    assert mean_is(g, same.mean)
    assert not mean_is(g, other.mean)
    assert float(g.var(0).sum()) == pytest.approx(float(same.variance.value), rel=0.1)


def test_the_relaxed_layer_has_the_mean_of_ours():
    torch.manual_seed(0)
    g = rivals.per_draw(rivals.relaxed, F, LOGITS, N)
    source = torch.Generator().manual_seed(1)
    ours = parse("GS(tau=1)").draw(F, LOGITS, N, source)
    assert mean_is(g - ours, torch.zeros_like(LOGITS))
    assert not mean_is(g, exact_gradient(F, LOGITS))


def test_one_draw_of_the_loop_is_one_of_many():
    torch.manual_seed(0)
    g = torch.stack([rivals.loop(rivals.gumbel_rao, F, LOGITS) for _ in range(500)])
    assert mean_is(g, exact_moments(parse("GR(tau=1, k=10)"), F, LOGITS).mean)


def test_the_sum_by_hand_is_the_exact_gradient():
    assert torch.allclose(peers.exact_by_hand(F, LOGITS), exact_gradient(F, LOGITS))


def test_the_script_finds_bias_and_variance():
    torch.manual_seed(0)

    def draw(tau, n):
        return rivals.per_draw(lambda leaf: rivals.gumbel_rao(leaf, tau), F, LOGITS, n)

    truth = exact_gradient(F, LOGITS)
    found = peers.job_by_hand(draw, truth, [0.5, 2.0], N)
    for (bias, variance), tau in zip(found, (0.5, 2.0), strict=True):
        exact = exact_moments(parse(f"GR(tau={tau}, k=10)"), F, LOGITS)
        assert variance == pytest.approx(float(exact.variance.value), rel=0.05)
        assert bias == pytest.approx(float((exact.mean - truth).norm()), rel=0.1, abs=0.01)


@pytest.mark.parametrize("job", rivals.JOBS)
@pytest.mark.few(1)
def test_jobs_of_other_packages_run_in_processes_of_their_own(job, monkeypatch):
    monkeypatch.setenv("GRADLAB_BENCH_QUICK", "1")
    if find_spec(rivals.JOBS[job][0]) is None:  # storchastic changes torch where it is imported
        pytest.skip(f"{rivals.JOBS[job][0]} is not installed")
    assert 0 < rivals.elsewhere(job, "quadratic", 2, 2) < 60


def test_what_pyro_sums_is_the_exact_gradient():
    pytest.importorskip("pyro")
    g = rivals._pyro_exact(F, LOGITS)()
    assert torch.allclose(g, exact_gradient(F, LOGITS))


def test_one_draw_of_pyro_is_reinforce():
    pytest.importorskip("pyro")
    torch.manual_seed(0)
    work = rivals._pyro_reinforce(F, LOGITS)
    g = torch.stack([work() for _ in range(1500)])
    assert mean_is(g, exact_gradient(F, LOGITS).float())


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing():
        raise rivals.Absent("reinmax is not installed")

    monkeypatch.setitem(rivals.LAYERS, "reinmax", missing)
    monkeypatch.setattr(rivals, "JOBS", {"a job": ("nowhere", lambda *_: __import__("nowhere"))})
    found, absent = rivals.layers()
    assert set(found) == set(rivals.LAYERS) - {"reinmax"}
    assert absent == {"reinmax": "reinmax is not installed"}
    with pytest.raises(SystemExit) as exit_of:
        rivals.main("a job", "quadratic", "2", "2")
    assert exit_of.value.code == rivals._ABSENT


def test_a_line_of_a_missing_package_says_so(monkeypatch):
    def elsewhere(*_):
        raise rivals.Absent("pyro is not installed")

    monkeypatch.setattr(peers, "elsewhere", elsewhere)
    line = peers._beside("what", "a job", ("mlp", 2, 2), 1e-3)
    assert (line.note, line.met) == ("pyro is not installed", None)
    assert str(line).endswith("pyro is not installed")

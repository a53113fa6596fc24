"""What is wrong at one size, in one regime or in one dtype only is found, and said where."""

import dataclasses
import math

import pytest
import torch

import gradlab
from gradlab.categorical import probabilities
from gradlab.testing import assert_exact_to_degree
from gradlab.user_code.under_test import EstimatorError
from gradlab.verification.order import rungs, verify_order
from gradlab.verification.report import ladder_text
from gradlab.verification.rungs import SITES, binary
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED
from ladder_members import FORMS, MEMBERS, drawing, never, of_surrogate

pytestmark = pytest.mark.usefixtures("unchecked")

# Losses that no site tries are left out, so that the tests are short.
FEW = rungs(["linear", "mlp"], [(2, 3), (3, 2)], ["moderate"])
OPTIONS = {"on": FEW, "alpha": 1e-4, "delta": 0.3}
# One of each kind and form in every run; all of them, at all sites, with the slow tests.
QUICK = {
    *("N > 2", "N = 3", "C = 4", "class order, C = 5", "mask -inf", "equal logits"),
    *("float32, surrogate", "large f", "binary, N = 1"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MEMBERS]
)
@pytest.mark.few(1)
def test_a_code_that_is_wrong_somewhere_is_found(name):
    member = MEMBERS[name]
    near = next(k for k, site in enumerate(SITES) if member.told in told_at(site, member))
    sites = SITES[near : near + 1]
    ladder = verify_order(member.make(), sites=sites, **OPTIONS)
    assert ladder.degree < member.degree
    assert member.told in str(ladder.counterexamples[0])
    assert member.told in " ".join(ladder.explain().split())
    assert "Counterexample: " in ladder.explain()
    assert member.told in " ".join(ladder_text([ladder]).split())


def told_at(site, member):
    site = binary(site) if member.form == "binary" else site
    return site.rung("linear", 0).name


@pytest.mark.parametrize("name", ["N > 2", "float32"])
@pytest.mark.thorough  # test_a_code_that_is_wrong_somewhere_is_found reads it
def test_an_assertion_says_where(name):
    member = MEMBERS[name]
    with pytest.raises(AssertionError) as failed:
        assert_exact_to_degree(member.make(), member.degree, sites=SITES[1:3], **OPTIONS)
    assert member.told in " ".join(str(failed.value).split())


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_found_by_default(name):
    member = MEMBERS[name]
    with pytest.raises(AssertionError) as failed:
        assert_exact_to_degree(member.make(), member.degree)
    assert member.told in " ".join(str(failed.value).split())


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_right_code_passes_by_default(form):
    make, degree = FORMS[form]
    ladder = assert_exact_to_degree(make(never), degree)
    assert not ladder.counterexamples
    assert not ladder.undecided
    assert not ladder.refused
    assert len(ladder.elsewhere) == len(SITES)
    assert f"in {len(SITES)} trials elsewhere" in " ".join(ladder.explain().split())


# The other forms draw in the same way; the slow test above tries all of them at all sites.
@pytest.mark.thorough  # every wrong code below stands beside its right one
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(f, marks=pytest.mark.slow if f in ("estimator", "binary") else [])
        for f in FORMS
    ],
)
@pytest.mark.few(1)
def test_the_right_code_passes(form):
    make, degree = FORMS[form]
    ladder = assert_exact_to_degree(make(never), degree, sites=SITES[::3], **OPTIONS)
    assert not ladder.counterexamples
    assert not ladder.undecided


@pytest.mark.parametrize("name", MEMBERS)
def test_the_ladder_alone_does_not_find_it(name):
    member = MEMBERS[name]
    if member.form == "binary":
        pytest.skip("its base size is (3, 2)")
    wrong = [r for r in FEW if r.drawn and member.wrong(r.enumeration.logits, r.enumeration.logits)]
    assert not wrong


# ---- the level --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["N > 2", "never"])
@pytest.mark.thorough  # the next test has the level of one rung
def test_all_trials_share_the_level(name):
    code = drawing(never) if name == "never" else MEMBERS[name].make()
    ladder = verify_order(code, sites=SITES[:4], **OPTIONS)
    drawn = [v.alpha for v in ladder.verdicts if v.method == "monte carlo"]
    assert len(drawn) >= 2 + 4 - 1
    assert len(set(drawn)) == 1
    assert sum(drawn) <= OPTIONS["alpha"]


@pytest.mark.thorough  # its verdicts are those of test_verifying.py
def test_the_level_of_one_rung_is_alpha():
    verdict = verify_order(drawing(never), on=FEW[:1], alpha=1e-4).verdicts[0]
    assert verdict.alpha == 1e-4


# ---- what is not decided, refused or faulty ---------------------------------------------------


def reinforce(f, logits, n, generator):
    x = gradlab.categorical.draw_one_hot(logits.softmax(-1), generator, n)
    return f(x)[:, None, None] * (x - logits.softmax(-1))


def noisy(f, logits, n, generator):
    noise = torch.randn(n, *logits.shape, generator=generator).to(logits)
    noise = noise - noise.mean(-1, keepdim=True)
    return drawing(never)(f, logits, n, generator) + (50 if logits.shape[-2] == 1 else 0) * noise


noisy.order = math.inf


@pytest.mark.thorough  # test_verifying.py has the words
def test_what_is_not_decided_is_said_and_no_failure():
    ladder = verify_order(noisy, sites=SITES[:1], **OPTIONS | {"max_draws": 2**16})
    assert ladder.degree == math.inf
    assert ladder.holds
    assert ladder.outcome == "UNBIASED WHERE DECIDED"
    text = " ".join(ladder.explain().split())
    assert "which holds where decided" in text
    assert "No counterexample to noisy in 1 trial elsewhere" in text
    assert "not decided: 1." in text
    assert "Not decided: noisy on" in text
    assert "INCONCLUSIVE" in text
    assert "yes?" in ladder_text([ladder])
    assert "Not decided: noisy on" in ladder_text([ladder])


def test_a_rung_of_the_ladder_that_is_not_decided_fails_as_before():
    reinforce.order = math.inf
    ladder = verify_order(reinforce, sites=(), on=FEW, max_draws=256)
    assert ladder.outcome == INCONCLUSIVE
    assert ladder.holds is False


def no_masks(f, logits, n, generator):
    return drawing(never)(f, logits, n, generator) + 0 * logits.sum()


def test_masked_logits_may_be_refused():
    masked = [site for site in SITES if site.masks]
    ladder = verify_order(no_masks, sites=masked[:1], **OPTIONS)
    assert ladder.degree == math.inf
    assert len(ladder.refused) == 1
    assert "Cannot be used: at N = 3, C = 4, masked logits (-inf)" in " ".join(
        ladder.explain().split()
    )


def double_only(f, logits, n, generator):
    return drawing(never)(f, logits @ torch.eye(logits.shape[-1]).double(), n, generator)


@pytest.mark.thorough  # masked logits may be refused as well
def test_one_dtype_may_be_refused():
    single = [site for site in SITES if site.dtype == torch.float32]
    ladder = verify_order(double_only, sites=single[:1], **OPTIONS)
    assert ladder.degree == math.inf
    assert "works on logits of float64 but not of float32" in ladder.refused[0]


def one_size(f, logits, n, generator):
    return drawing(never)(f, logits, n, generator).reshape(n, 2, 3)


def test_code_that_fails_at_a_site_says_where():
    with pytest.raises(EstimatorError, match=r"at N = 1, C = 2, moderate logits, float64"):
        verify_order(one_size, sites=SITES[:1], **OPTIONS)


# ---- where -------------------------------------------------------------------------------------


@pytest.mark.thorough  # a wrong code is found at such a site below
def test_sites_are_tried_where_nothing_is_proved():
    assert verify_order("ZGR", sites=SITES, on=FEW).elsewhere == ()
    assert len(verify_order("ARSM", sites=SITES[:1], on=FEW, delta=0.3).elsewhere) == 1
    assert verify_order(drawing(never), on=FEW[:1]).elsewhere == ()

    @dataclasses.dataclass(frozen=True, repr=False)
    class Mine(gradlab.ZGR):
        name = "MINE"

        def pullback(self, p, x, v):
            g = super().pullback(p, x, v)
            return 2 * g if p.shape[-2] == 1 else g

    ladder = verify_order(Mine(), sites=SITES[:1], on=FEW)
    assert ladder.counterexamples[0].method == "exact"


@pytest.mark.thorough  # test_a_code_that_is_wrong_somewhere_is_found
def test_each_degree_is_tried_where_a_counterexample_is():
    on = rungs(sizes=[(2, 3)], regimes=["moderate"])
    ladder = verify_order(drawing(lambda a, _: a.shape[-2] == 1), on=on, sites=SITES[:1], delta=0.3)
    tried = [r for r in ladder.rungs if r.site is not None]
    assert [r.degree for r in tried] == [math.inf, 4, 3, 2, 1, 0]
    assert [v.outcome for v in ladder.elsewhere] == [BIASED] * 5 + [UNBIASED]
    assert ladder.outcome == "EXACT TO DEGREE 0"


def test_the_sites_cover_sizes_regimes_and_dtypes():
    assert {site.N for site in SITES} == {1, 2, 3, 4}
    assert {site.C for site in SITES} == {2, 3, 4, 5}
    pairs = {(site.regime, site.dtype) for site in SITES}
    assert len(pairs) == 2 * len({site.regime for site in SITES})
    assert {site.large for site in SITES} == {-1, 0, 1}


@pytest.mark.parametrize("two", [False, True], ids=["all", "binary"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.few(12)
def test_no_class_is_too_rare_at_a_site(site, seed, two):
    rung = (binary(site) if two else site).rung("mlp", seed)
    p = probabilities(rung.enumeration.logits)
    assert p[p > 0].min() > (0.002 if "peaked" in rung.regime else 0.03)
    assert torch.linalg.vector_norm(rung.enumeration.gradient) > 1e-2
    values = rung.enumeration.f(
        torch.eye(rung.enumeration.logits.shape[1]).double()[
            torch.zeros(1, rung.enumeration.logits.shape[0], dtype=torch.int)
        ]
    )
    assert (values.abs() >= 1000 - 1e-3).all() == bool(site.large)


@pytest.mark.thorough  # code_that_fails_at_a_site_says_where
def test_rows_say_where():
    rows = verify_order(of_surrogate(never), sites=SITES[2:3], **OPTIONS).rows()
    assert list(rows.iloc[-1][["N", "C", "regime", "dtype"]]) == [3, 5, "moderate", "float32"]
    assert rows.iloc[-1]["problem"] == "mlp(N=3, C=5, seed=0), moderate logits, float32"


def test_a_binary_estimator_is_tried_at_two_classes():
    ladder = verify_order("ARM", sites=SITES[:3], **OPTIONS)
    assert [v.target.shape for v in ladder.elsewhere] == [(1, 2), (4, 2), (3, 2)]
    assert NOT_APPLICABLE not in {v.outcome for v in ladder.elsewhere}

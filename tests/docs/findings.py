"""What pages say of committed rows: a sentence of a page, and what must hold of the rows.

`FINDINGS` holds the sentences without a test of their own elsewhere; `claimed.py` finds those that
have one, and names every number that has none. What a number defines, such as a version, is not a
result: `DEFINED` says so, with what it is.
"""

from collections.abc import Callable

import row_facts as facts
from benchmarks.pages import SENTENCES
from benchmarks.results import read
from sequence_facts import SEQUENCE_FINDINGS

__all__ = ["DEFINED", "FINDINGS", "GALLERY"]

GALLERY, CLI, RIGHT = "docs/gallery.md", "docs/command-line.md", "docs/is-my-gradient-right.md"

SPEED = read()

FINDINGS: list[tuple[str, str, Callable[[], bool]]] = [
    (
        GALLERY,
        "Monte Carlo points of nine estimators lie on their exact lines.",
        facts.points_on_lines,
    ),
    (
        GALLERY,
        "As tau falls, the variance of GS-ST and GR(k) grows like 1/(k tau), and their bias "
        "approaches that of ZGR, not zero.",
        facts.cold_laws,
    ),
    (
        GALLERY,
        "Halve tau, and the distance of the mean of GR and GS-ST to that of ZGR",
        facts.halves,
    ),
    (GALLERY, "halves:", facts.halves),
    (GALLERY, "On multilinear f it falls to a quarter", facts.halves),
    (GALLERY, "ST-ZGR is ahead on quadratics, networks and the VAE.", facts.trade_off_ahead),
    (GALLERY, "Over 160 small problems", lambda: len(facts.leads_of("trade-off")) == 160),
    (GALLERY, "f with its gradient counts as 3 evaluations", facts.constants),
    (GALLERY, "These two shares count differences as small as 1e-6.", facts.constants),
    (GALLERY, "The mean of 100 gradients of 12 evaluations each", facts.constants),
    (
        GALLERY,
        "LE wins on all of ||x - c||^1.5, because that loss is a sum over variables and the error "
        "of LE is then 0.",
        facts.norms,
    ),
    (
        GALLERY,
        "On 100 random quadratics",
        lambda: facts.rows("quadratics").query("method == 'exact'")["problem"].nunique() == 100,
    ),
    (GALLERY, "ST and DARN are exact up to degree 1, ZGR up to degree 2.", facts.degrees),
    (GALLERY, "GR and GS-ST are biased from degree 1 on.", facts.degrees),
    (
        GALLERY,
        "All 22 planted errors are found or refused, most of them at the first check, after about "
        "1,000 draws.",
        facts.first_look,
    ),
    (GALLERY, "A cell with 0 is a proof by enumeration.", facts.verdict_zeros),
    (
        GALLERY,
        "On the VAE 10,000 evaluations",
        lambda: round(facts.rows("budget")["evaluations"].max()) == 10_000,
    ),
    (
        GALLERY,
        "A layer of 32 variables with ST or ZGR takes about as long as "
        "`F.gumbel_softmax(hard=True)` at 2 classes, and less than a third of its time at 64.",
        facts.timing,
    ),
    (
        GALLERY,
        "16 estimators trained on eight tasks, with three seeds and the best of three learning "
        "rates each, and six on MNIST.",
        facts.studied,
    ),
    (
        GALLERY,
        "the latent 6x4 has 4096 states, so the bias is exact",
        lambda: 4**6 == 4096 and facts.rows("vae-probed")["truth"].eq("enumeration").all(),
    ),
    (GALLERY, "Full binarized MNIST, latent 30x10, 30 epochs", facts.mnist_settings),
    (GALLERY, "ARSM is the slowest and worse than RF(4).", facts.mnist_order),
    (GALLERY, "After 2 epochs (the paper trains 200) the test errors", facts.fashion),
    (GALLERY, "closer than the seeds of one estimator", facts.fashion),
    ("docs/how-to/paper-figures.md", 'is 3.25 inches, `width="page"` 6.75 inches', facts.widths),
    (RIGHT, "**UNBIASED within .05**", facts.defaults),
    (RIGHT, "below 5 % of the gradient's length (`delta`)", facts.defaults),
    ("docs/verdicts.md", "a probability of at most `alpha` (.001)", facts.defaults),
    (
        "docs/verdicts.md",
        "**UNBIASED within .05**: the bias is below 5 % of the gradient's length",
        facts.defaults,
    ),
    ("docs/report.md", "0.9 MB are the scripts of the pictures", facts.script_size),
    (
        "docs/which-estimator.md",
        "with a momentum of 0.9 some 10 to 20 gradients",
        lambda: round(1 / (1 - 0.9)) == 10 and round(1.9 / 0.1) == 19,
    ),
    ("docs/which-estimator.md", "has a cosine above .99 with the true gradient", facts.near_loss),
    (GALLERY, "5 problems, 4 sizes, 3 kinds of logits, 10 seeds", facts.atlas_size),
    (
        GALLERY,
        "Against it, on the raw scale, ST-ZGR leads on quadratics, networks and softplus ridges.",
        facts.atlas_raw,
    ),
    (
        GALLERY,
        "It trails on cubics and on ||x - c||^1.5, most at moderate logits.",
        facts.atlas_moderate,
    ),
    (
        GALLERY,
        "On the scale-free measure it trails only on ||x - c||^1.5.",
        lambda: set((lead := facts.leads("atlas", "scale-free"))[lead < 0].index) == {"norm:1.5"},
    ),
    (
        GALLERY,
        "Against GR(k=10), which is affordable, it leads nearly everywhere.",
        facts.atlas_k10,
    ),
    (
        GALLERY,
        "On Tucker's toy with t = 0.45, LE ends at P(b = 1) = 0.003 and ZGR at 0.02, but ST at "
        "0.46 and GS-ST at 0.43, close to where they began.",
        facts.toys,
    ),
    (
        GALLERY,
        "A biased estimator ends where its mean is 0, and that may be the worst point.",
        facts.toy_biased,
    ),
    (
        GALLERY,
        "From the first measurement to the last, the bias of ST grows from 19 % to 100 % of the "
        "gradient, and that of ZGR from 11 % to 16 %.",
        facts.vae_bias,
    ),
    (
        GALLERY,
        "At the end RF(4) makes the most progress, .63, and ARSM the next, .33.",
        facts.vae_progress,
    ),
    (
        GALLERY,
        "The median bias over the training is 114 % of the gradient for ST, 67 % for "
        "GS-ST(tau=0.5) and 25 % for ZGR.",
        facts.mnist_bias,
    ),
    (
        GALLERY,
        "At the first step ST makes the most progress, at every later one RF(4).",
        facts.mnist_progress,
    ),
    (GALLERY, "ZGR, which has no bias there,", facts.same_of_bits),
    (
        CLI,
        "In the figure *prediction* the default of 10 predicts training better than 1, 100 or 1000",
        facts.default_predicts,
    ),
    (CLI, "1 without momentum, 3 at 0.5, 19 at 0.9", facts.momentum),
    *SEQUENCE_FINDINGS,
    # test_benchmark_rows.py compares the numbers with the rows.
    *((one.page, one.said(SPEED), lambda: True) for one in SENTENCES if one.has_rows(SPEED)),
]
"""A page, what it says, and what must hold."""

_VERSION, _READ = "a version", "how to read a number"

DEFINED: dict[str, dict[str, str]] = {
    "README.md": {"Python 3.11 or newer": _VERSION},
    CLI: {"Until 2.0 write your own": _VERSION},
    GALLERY: {
        "alpha in [0, 1]": "a range that was tried",
        "tau in [0.01, 10]": "a range that was tried",
        "favours answers near 0": "the answer 0",
        "three bits of probability 1/2": "the toy",
        "the progress of 10 gradients": "the criterion",
        "the paper's settings (which has 500)": "what the paper says",
        "(the paper trains 200)": "what the paper says",
        "mean ± (max - min)/2": "a formula",
    },
    "docs/how-to/bounds.md": {"arXiv 1802.04537": "a paper"},
    "docs/policy.md": {
        "goes in 2.0, not before": _VERSION,
        "from 3.11 on, and torch from 2.4 on": _VERSION,
    },
    "docs/real-models.md": {
        "0.1 is small": _READ,
        "1 with a relative bias of 0.5": _READ,
        "0.5 means that training": _READ,
    },
    "docs/sequence-findings.md": {"a bias of 10 % is a tenth": _READ},
    "docs/start.md": {
        "You need Python 3.11 (from 3.11.5) or newer": _VERSION,
        "All tests run on Python 3.11. On 3.12 and 3.13 the pins": _VERSION,
    },
}
"""Numbers of a page that are no results, in their words, and what they are."""

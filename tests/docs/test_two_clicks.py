"""From the README every question of a newcomer is answered in at most two clicks."""

import pytest

from pages import ROOT, WRITTEN, is_generated, links, text

# Question -> the links to follow from the README, and what the last page says about it.
PATHS = {
    "How do I install it?": (["docs/start.md"], "pip install"),
    "Which torch do I get, with CUDA or without?": (["docs/start.md"], "CUDA build"),
    "Does it run on a GPU?": (["docs/how-to/gpu.md"], "What runs on a GPU"),
    "Do I need float64?": (["docs/faq.md"], "Must I use float64?"),
    "Why float64, and when?": (["docs/exact.md"], "## 3. A dtype"),
    "Which estimator should I use?": (["docs/which-estimator.md"], "Answer seven questions"),
    "What do the estimators cost?": (["docs/estimators.md"], "evaluations of f | needs grad f"),
    "What does bias2 mean?": (["docs/glossary.md"], "bias^2\n"),
    "What is progress?": (["docs/glossary.md"], "\nprogress\n"),
    "What are the arguments of compare?": (["docs/reference.md", "docs/api/index.rst"], ""),
    "What is the option called?": (
        ["docs/reference.md", "docs/command-line.md"],
        "each verb takes",
    ),
    "What does this column mean?": (["docs/rows.md"], "| column | type | unit | meaning |"),
    "My f is a convolution": (["docs/how-to/own-loss.md"], "## A convolution"),
    "My f is a transformer": (["docs/how-to/own-loss.md"], "## Text: a transformer"),
    "My model has two sampled layers": (["docs/how-to/own-loss.md"], "## Several sampled layers"),
    "My loss has a KL term": (["docs/how-to/own-loss.md"], "## KL terms"),
    "My x is a subset of k elements": (["docs/how-to/own-loss.md"], "## Subsets, permutations"),
    "How do I read the rows of a probe?": (["docs/real-models.md"], "### How to read the rows"),
    "How do I plot from Python?": (["docs/how-to/paper-figures.md"], "width="),
    "How do I cite gradlab?": (["docs/citing.md"], "CITATION.cff"),
    "Why is bias2 negative?": (["docs/faq.md"], "### Why is bias² negative?"),
    "What does exact need?": (["docs/exact.md"], "## 1. A fixed f"),
    "Why is my straight-through biased?": (["docs/faq.md", "docs/is-my-gradient-right.md"], "ST"),
    "Is my gradient right?": (["docs/is-my-gradient-right.md"], "# Is my gradient right?"),
    "Why is it NaN?": (["docs/faq.md"], "### NaN:"),
    "What happens for tau -> 0?": (["docs/faq.md"], "### What happens for tau"),
    "Do masks work?": (["docs/faq.md"], "### Masked classes"),
    "How do I plot my own rows?": (["docs/how-to/paper-figures.md"], "gradlab.plot.temperature("),
    "How do I get the same numbers again?": (["docs/how-to/reproducibility.md"], "seed"),
    "My x is a tree or a permutation": (["docs/how-to/structures.md"], "# "),
    "How do I send the result to a colleague?": (["docs/report.md"], "# Reports"),
    "What stays the same between versions?": (["docs/policy.md"], "# What stays"),
    "Which temperature?": (["docs/temperature.md"], "needs a number"),
    "How do I write my own estimator?": (["docs/how-to/own-estimator.md"], "pullback"),
    "How do I run it on a cluster?": (["docs/how-to/cluster.md"], "## A cluster"),
    "Where are the tutorials?": (["notebooks"], ""),
    "My loss is GRPO. What does it estimate?": (["docs/how-to/own-policy-loss.md"], "What is it?"),
    "Why is my GRPO loss biased?": (
        ["docs/faq.md"],
        "### Why is my GRPO or PPO loss called biased?",
    ),
    "I train on an IWAE bound": (["docs/how-to/bounds.md"], "# Bounds of several samples"),
    "Which Python is tested?": (["docs/start.md"], "**What is tested.**"),
    "Which data sets are there?": (["docs/real-models.md"], "## Data sets"),
    "What do the figures say?": (["docs/gallery.md"], "# Gallery"),
}


@pytest.mark.parametrize("question", PATHS)
def test_two_clicks_lead_there(question: str) -> None:
    clicks, says = PATHS[question]
    assert 1 <= len(clicks) <= 2
    page = "README.md"
    for target in clicks:
        assert target in links(page), f"{page} has no link to {target}"
        page = target
    if page in WRITTEN:
        assert says
        assert says in text(page)
    else:
        assert (ROOT / page).is_dir() or is_generated(page)

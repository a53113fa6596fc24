"""The published estimators under their names, and the reading of text forms."""

import difflib
from dataclasses import fields, replace
from typing import Any

from gradlab.checks import did_you_mean
from gradlab.sequences.choices import bare, read_call, read_value
from gradlab.sequences.policy_gradient import PolicyGradient

__all__ = ["ALIASES", "ESTIMATORS", "parse"]

_DEEPSEEK = "Shao et al. 2024, arXiv 2402.03300"
_DR_GRPO = "Liu et al. 2025, arXiv 2503.20783"
_PPO = "Schulman et al. 2017, arXiv 1707.06347"
_PLUS_PLUS = "Hu 2025, arXiv 2501.03262"

# Name, what differs from RLOO without a ratio, and source.
_PUBLISHED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("REINFORCE", {"advantage": "raw", "g": 1}, "Williams 1992"),
    ("RLOO", {"advantage": "loo"}, "Ahmadian et al. 2024, arXiv 2402.14740"),
    (
        "RLOO-TRL",
        {"advantage": "loo", "loss": "PPO-sequence", "aggregation": "SEQ"},
        "Ahmadian et al. 2024, arXiv 2402.14740",
    ),
    ("centred", {"advantage": "centred"}, _DR_GRPO),
    ("GRPO", {"advantage": "group-std", "aggregation": "SEQ", "loss": "PPO"}, _DEEPSEEK),
    ("Dr.GRPO", {"advantage": "centred", "aggregation": "CONST", "loss": "PPO"}, _DR_GRPO),
    (
        "DAPO",
        {
            "advantage": "group-std",
            "aggregation": "TOK",
            "loss": "PPO(high=0.28)",
            "resample": True,
        },
        "Yu et al. 2025, arXiv 2503.14476",
    ),
    (
        "LitePPO",
        {"advantage": "batch-std", "aggregation": "TOK", "loss": "PPO"},
        "Liu et al. 2025, arXiv 2508.08221",
    ),
    (
        "REINFORCE++",
        {"advantage": "whitened", "aggregation": "TOK", "loss": "PPO"},
        _PLUS_PLUS,
    ),
    (
        "REINFORCE++-baseline",
        {"advantage": "whitened(centred=true)", "aggregation": "TOK", "loss": "PPO"},
        _PLUS_PLUS,
    ),
    ("ReMax", {"advantage": "greedy", "g": 1}, "Li et al. 2023, arXiv 2310.10505"),
    ("OPO", {"advantage": "length-weighted"}, "Hao et al. 2025, arXiv 2505.23585"),
    ("GPG", {"advantage": "nonzero-scaled"}, "Chu et al. 2025, arXiv 2504.02546"),
    ("OTB", {"advantage": "optimal-token"}, "Li et al. 2026, arXiv 2602.07078"),
    ("JSPO", {"advantage": "shrunk"}, "Zeng et al. 2025, arXiv 2511.03710"),
    ("max-second", {"advantage": "max-second"}, "Tang et al. 2025, arXiv 2503.19595"),
    ("PKPO", {"advantage": "pass@k"}, "Walder & Karkhanis 2025, arXiv 2505.15201"),
    ("MaxRL", {"advantage": "max-likelihood"}, "Tajwar et al. 2026, arXiv 2602.02710"),
    ("PPO", {"loss": "PPO", "aggregation": "TOK"}, _PPO),
    (
        "dual-clip",
        {"loss": "PPO(dual=3)", "aggregation": "TOK"},
        "Ye et al. 2019, arXiv 1912.09729",
    ),
    (
        "two-sided",
        {"advantage": "group-std", "loss": "PPO(cap=4)", "aggregation": "TOK"},
        "Prime Intellect 2025, arXiv 2505.07291",
    ),
    (
        "CISPO-TRL",
        {"advantage": "group-std", "loss": "CISPO-TRL", "aggregation": "TOK"},
        "MiniMax 2025, arXiv 2506.13585",
    ),
    (
        "CISPO-verl",
        {"advantage": "group-std", "loss": "CISPO-verl", "aggregation": "TOK"},
        "MiniMax 2025, arXiv 2506.13585",
    ),
    (
        "SAPO",
        {"advantage": "group-std", "loss": "SAPO", "aggregation": "SEQ"},
        "Gao et al. 2025, arXiv 2511.20347",
    ),
    (
        "GSPO",
        {"advantage": "group-std", "loss": "GSPO", "aggregation": "SEQ"},
        "Zheng et al. 2025, arXiv 2507.18071",
    ),
    (
        "GSPO-TOK",
        {"advantage": "group-std", "loss": "GSPO", "aggregation": "TOK"},
        "Zheng et al. 2025, arXiv 2507.18071",
    ),
    (
        "LUSPO",
        {"advantage": "group-std", "loss": "LUSPO", "aggregation": "SEQ"},
        "Liu et al. 2026, arXiv 2602.05261",
    ),
    (
        "GMPO",
        {"advantage": "group-std", "loss": "GMPO", "aggregation": "SEQ"},
        "Zhao et al. 2025, arXiv 2507.20673",
    ),
    (
        "VESPO",
        {"advantage": "group-std", "loss": "VESPO", "aggregation": "TOK"},
        "Shen et al. 2026, arXiv 2602.10693",
    ),
    ("DPPO-TV", {"loss": "DPPO", "aggregation": "TOK"}, "Qi et al. 2026, arXiv 2602.04879"),
    (
        "DPPO-KL",
        {"loss": "DPPO(divergence=kl)", "aggregation": "TOK"},
        "Qi et al. 2026, arXiv 2602.04879",
    ),
    (
        "Clip-Cov",
        {"advantage": "group-std", "loss": "Clip-Cov", "aggregation": "TOK"},
        "Cui et al. 2025, arXiv 2505.22617",
    ),
    (
        "KL-Cov",
        {"advantage": "group-std", "loss": "KL-Cov", "aggregation": "TOK"},
        "Cui et al. 2025, arXiv 2505.22617",
    ),
    (
        "OPSM",
        {"advantage": "group-std", "loss": "OPSM", "aggregation": "SEQ"},
        "DeepSeek 2025, arXiv 2512.02556",
    ),
    ("DRO", {"loss": "DRO", "aggregation": "TOK"}, "Richemond et al. 2024, arXiv 2405.19107"),
    ("IS", {"loss": "score(ratio=sequence)"}, "Precup et al. 2000"),
    ("CTPO", {"loss": "score(ratio=prefix)"}, "Zhang et al. 2026, arXiv 2605.07331"),
    ("TIS", {"loss": "score(ratio=token, high=2)"}, "Munos et al. 2016, arXiv 1606.02647"),
    (
        "MIS",
        {"loss": "score(ratio=token, low=0.5, high=2, beyond=mask)"},
        "Ling Team 2025, arXiv 2510.18855",
    ),
)

ESTIMATORS: dict[str, PolicyGradient] = {
    name: PolicyGradient(**choices, name=name, source=source)
    for name, choices, source in _PUBLISHED
}
"""The published estimators by their names, each at its defaults."""

ALIASES: dict[str, str] = {
    **{"leave-one-out": "RLOO", "Dr. GRPO": "Dr.GRPO", "DrGRPO": "Dr.GRPO", "mean": "centred"},
    **{"centered": "centred", "batch-normalized": "LitePPO", "RF++": "REINFORCE++"},
    **{"RF++-baseline": "REINFORCE++-baseline", "vanilla": "PPO", "pass@k": "PKPO"},
    **{"max minus second": "max-second", "passk": "PKPO", "CISPO": "CISPO-verl"},
    **{"geo-mean": "GMPO", "DPPO": "DPPO-TV", "sequence-ratio": "IS", "prefix-ratio": "CTPO"},
    **{"shrinkage": "JSPO", "shrunk": "JSPO", "James-Stein": "JSPO"},
}
"""Other names that `parse` reads."""


def parse(text: str) -> PolicyGradient:
    """Return the policy gradient that a text names.

    Names are read in any letter case, with or without spaces, dots and hyphens. Arguments replace
    choices: `advantage`, `aggregation`, `loss`, `kl`, `g` and `resample`. `PG` is the name of a
    composition without a published one. The arguments of the advantage, of the loss and of the
    aggregation may be given directly where only one of them has that name: `PKPO(k=4)`.

    Args:
        text: Such as `RLOO(g=8)` or `GRPO(loss=PPO(high=0.28), kl=k3(beta=0.04))`.

    Returns:
        The estimator. `str(estimator)` is its text form.

    Raises:
        ValueError: A name, an argument or a value is unknown; the message names the nearest one.

    Example:
        >>> parse("GRPO(loss=PPO(high=0.28), kl=k3, g=8)")
        GRPO(loss=PPO(high=0.28), kl=k3, g=8)
        >>> parse("PKPO(k=4)")
        PKPO(advantage=pass@k(k=4))
        >>> parse("rlo")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: unknown policy gradient 'rlo'; did you mean 'RLOO'? Known: REINFORCE, ...
    """
    name, arguments = read_call(text)
    base = _find(name)
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in arguments.items():
        if key in _CHOICES:
            changes[key] = value
        elif key in _PLAIN:
            changes[key] = read_value(value)
        else:
            inner.setdefault(_owner(base, key, text), {})[key] = read_value(value)
    for part, given in inner.items():
        if part in changes:
            raise ValueError(f"give {', '.join(given)} inside {part}=... in {text!r}")
        changes[part] = replace(getattr(base, part), **given)
    return base.with_(**changes)


_CHOICES = ("advantage", "aggregation", "loss", "kl")
_PLAIN = ("g", "resample")


def _owner(base: PolicyGradient, key: str, text: str) -> str:
    """Return the choice of the estimator that has an argument of this name."""
    owned = {part: [f.name for f in fields(getattr(base, part))] for part in _CHOICES}
    found = [part for part in _CHOICES if key in owned[part]]
    if len(found) == 1:
        return found[0]
    known = [*_CHOICES, *_PLAIN, *dict.fromkeys(n for names in owned.values() for n in names)]
    raise ValueError(
        f"{base.name} has no argument {key!r}{did_you_mean(key, known)} in {text!r}; "
        f"it takes {', '.join(known)}"
    )


def _find(name: str) -> PolicyGradient:
    known = {**{n: n for n in ESTIMATORS}, **ALIASES}
    spelled = {bare(n): known[n] for n in reversed(known)}
    if bare(name) in ("pg", "policygradient"):
        return PolicyGradient()
    found = spelled.get(bare(name))
    if found is not None:
        return ESTIMATORS[found]
    near = difflib.get_close_matches(bare(name), spelled, n=1, cutoff=0.5)
    hint = f"; did you mean {spelled[near[0]]!r}?" if near else "."
    raise ValueError(f"unknown policy gradient {name!r}{hint} Known: {', '.join(ESTIMATORS)}")

"""Unbiased forms of the choices of a policy gradient, and the nearest unbiased estimator."""

import itertools
from typing import Any

from gradlab.sequences.kl_terms import NoKL
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.spellings import nearest_name

__all__ = ["changes_of", "nearest_unbiased", "replacements"]

_PARTS = ("advantage", "aggregation", "loss", "kl", "resample")


def changes_of(old: PolicyGradient, new: PolicyGradient) -> list[tuple[str, str]]:
    """Return which choices differ, each with the text of what it became.

    Args:
        old: An estimator.
        new: Another one.

    Example:
        >>> from gradlab.sequences import parse
        >>> changes_of(parse("GRPO"), parse("Dr.GRPO"))
        [('advantage', 'centred'), ('aggregation', 'CONST')]
    """
    differ = [part for part in _PARTS if getattr(old, part) != getattr(new, part)]
    return [
        (part, str(getattr(new, part)).lower() if part == "resample" else str(getattr(new, part)))
        for part in differ
    ]


def replacements(estimator: PolicyGradient, off_policy: bool) -> list[dict[str, Any]]:
    """Return the unbiased form of each choice that can bias the mean, one change at a time.

    Args:
        estimator: The configuration.
        off_policy: Whether another policy samples.

    Example:
        >>> from gradlab.sequences import parse
        >>> replacements(parse("GRPO"), off_policy=True)
        [{'advantage': 'loo'}, {'aggregation': 'SUM'}, {'loss': 'score(ratio=sequence)'}]
    """
    e = estimator
    found: list[dict[str, Any]] = []
    if e.advantage.factor(e.g) is None or (off_policy and e.advantage.target != "J"):
        found.append({"advantage": "loo" if e.g > 1 else "raw"})
    if not e.aggregation.keeps and not e.loss.length_power:
        found.append({"aggregation": "SUM"})
    if off_policy and not e.loss.exact_off_policy:
        found.append({"loss": "score(ratio=sequence)"})
    elif e.loss.selects:
        found.append({"loss": "score"})
    elif e.loss.length_power and not _is_sequence_mean(e):
        found.append({"aggregation": "SEQ"})
    if not isinstance(e.kl, NoKL) and not e.kl.exact(not off_policy):
        found.append({"kl": _unbiased_kls(e, off_policy)[0]})
    if e.resample:
        found.append({"resample": False})
    return found


def _is_sequence_mean(estimator: PolicyGradient) -> bool:
    return estimator.aggregation.name == "SEQ"


def nearest_unbiased(estimator: PolicyGradient, off_policy: bool = False) -> PolicyGradient | None:
    """Return the estimator with the fewest other choices whose mean is a multiple of its target.

    Args:
        estimator: The configuration.
        off_policy: Whether it must be so under every rollout policy.

    Returns:
        The estimator, or None where no replacement of choices is known to do.

    Example:
        >>> from gradlab.sequences import parse
        >>> nearest_unbiased(parse("GRPO(kl=k3)"))
        RLOO(loss=PPO, kl=k2(per=sequence))
    """
    forms: dict[str, list[Any]] = {
        "aggregation": ["SUM", "SEQ"],
        "kl": _unbiased_kls(estimator, off_policy),
        "loss": ["score(ratio=sequence)" if off_policy else "score"],
        "advantage": ["loo" if estimator.g > 1 else "raw"],
        "resample": [False] if estimator.resample else [],
    }
    for number in range(len(forms) + 1):
        for parts in itertools.combinations(forms, number):
            for values in itertools.product(*(forms[part] for part in parts)):
                tried = estimator.with_(**dict(zip(parts, values, strict=True)))
                # The constant of CONST is a factor, whatever the horizon is.
                claim = tried.claim(horizon=1)
                if (claim.off_policy if off_policy else claim.on_policy) is not None:
                    return nearest_name(tried)
    return None


def _unbiased_kls(estimator: PolicyGradient, off_policy: bool) -> list[str]:
    """Return the unbiased forms of a KL term, first the one in the loss."""
    if isinstance(estimator.kl, NoKL):
        return []
    beta = f"beta={getattr(estimator.kl, 'beta', 0.04)!r}"
    in_loss = f"k1-prefix({beta})" if off_policy else f"k2({beta}, per=sequence)"
    return [in_loss, f"k1({beta}, place=reward, per=sequence)"]

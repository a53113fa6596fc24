"""Two verdicts on one estimator, on what is analysed and on what trains, as one."""

from dataclasses import replace

from gradlab.user_code.under_test import DRAW, TRAINING
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED, Verdict

__all__ = ["of_both", "together"]


def of_both(verdict: Verdict) -> Verdict:
    """Return the verdict as one on what is analysed and on what trains."""
    return replace(verdict, judged=f"{DRAW} and {TRAINING}")


_ORDER = (NOT_APPLICABLE, UNBIASED, INCONCLUSIVE, BIASED)


def together(of_draw: Verdict, of_training: Verdict) -> Verdict:
    """Return the less favourable of two verdicts, which says what was judged."""
    first, second = _ORDER.index(of_draw.outcome), _ORDER.index(of_training.outcome)
    if first == second:
        return replace(of_both(of_draw), notes=of_draw.notes + of_training.notes)
    worse, better = (of_draw, of_training) if first > second else (of_training, of_draw)
    sentence = f"This is its {worse.judged}; its {better.judged} alone is {better.outcome}."
    return replace(worse, notes=(sentence, *worse.notes, *better.notes))

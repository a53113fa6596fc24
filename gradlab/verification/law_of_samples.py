"""Do samples of a distribution follow its own log_prob? Counts of states against their probability.

A proof enumerates states by `log_prob`. What trains draws them by `sample`.
"""

import torch
from scipy.special import bdtr, bdtrc
from torch.distributions import Distribution

from gradlab.distributions.gradient import base_of
from gradlab.exact.sampled_structures import SampledStructure
from gradlab.exact.structures import Structured
from gradlab.reproducible import block_generator

__all__ = ["check_law"]

# Samples that are counted, and the rate at which right ones are refused.
_SAMPLES, _ALPHA = 2**14, 1e-7
# States that are counted one by one: the most probable.
_COUNTED = 2**12


def check_law(on: Structured, seed: int = 0) -> None:
    """Raise ValueError unless samples of the distribution have the probabilities of log_prob.

    The classes of gradlab and torch are not asked: their tests are elsewhere.

    Args:
        on: The loss, the parameters and the distribution.
        seed: Of the samples.

    Raises:
        ValueError: If a state, or none of those in enumerate_support(), comes too often or too
            rarely.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> check_law(Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2)))
    """
    drawn = on.distribution(on.parameters)
    if isinstance(on, SampledStructure) or _is_known(drawn):
        return
    name = type(base_of(drawn)).__name__
    x = on.sample(_SAMPLES, block_generator(seed, f"{name}|law"))[:, 0]
    states = on.states[:, 0]
    both, place = torch.cat([states, x]).unique(dim=0, return_inverse=True)
    count = torch.bincount(place[len(states) :], minlength=len(both))[place[: len(states)]]
    outside = _SAMPLES - int(count.sum())
    if outside:
        raise ValueError(
            f"samples of {name} are not among its states: {outside / _SAMPLES:.1%} of {_SAMPLES:,} "
            "samples are missing in enumerate_support(), or have probability 0"
        )
    likely = on.p.argsort(descending=True)[:_COUNTED]
    n, p = count[likely].numpy(), on.p[likely].clamp(0, 1).numpy()
    # scipy.stats has the same tails of the binomial law, and takes half a second to import.
    of_less, of_more = bdtr(n, _SAMPLES, p), bdtrc(n - 1, _SAMPLES, p)
    p_value = 2 * torch.minimum(torch.from_numpy(of_less), torch.from_numpy(of_more))
    worst = int(p_value.argmin())
    if float(p_value[worst]) * len(likely) > _ALPHA:
        return
    state = on.states[likely[worst], 0].reshape(on.shape).tolist()
    raise ValueError(
        f"samples of {name} do not follow its log_prob: {state} comes in "
        f"{n[worst] / _SAMPLES:.2%} of {_SAMPLES:,} samples and has probability {p[worst]:.2%}; "
        "is it another law, such as sampling without replacement (Gumbel top-k) instead of "
        "exactly k of n?"
    )


def _is_known(drawn: Distribution) -> bool:
    home = type(base_of(drawn)).__module__
    return home.partition(".")[0] in ("gradlab", "torch")

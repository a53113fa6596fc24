"""Random groups for the tests of estimators and of losses."""

import torch

from gradlab.sequences import Group


def random_group(
    *shape, seed=0, g=4, t=6, on_policy=False, prompts=False, binary=False, spread=0.2
):
    """Return a group with everything an estimator may ask for."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size, scale=1.0):
        return scale * torch.randn((*shape, *size), generator=generator, dtype=torch.float64)

    logits = draw(g, t, 5)
    log_prob = logits.log_softmax(-1)[..., 0]
    rollout = log_prob if on_policy else log_prob + draw(g, t, scale=spread)
    lengths = torch.randint(1, t + 1, (*shape, g), generator=generator)
    lengths[..., 0] = t
    rewards = draw(g)
    group = Group(
        rewards,
        lengths,
        log_prob,
        rollout,
        log_prob + draw(g, t, scale=0.3),
        logits=logits,
        reference_logits=logits + draw(g, t, 5, scale=0.3),
        greedy_rewards=draw(),
        prompts=prompts,
    )
    return group

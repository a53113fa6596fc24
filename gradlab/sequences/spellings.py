"""Choices as trainers write them, put together to an estimator."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from gradlab.checks import did_you_mean
from gradlab.sequences.advantages import Advantage
from gradlab.sequences.aggregation import AGGREGATIONS
from gradlab.sequences.catalogue import ESTIMATORS, parse
from gradlab.sequences.choices import bare, read_call, read_choice
from gradlab.sequences.kl_terms import KLS, KLTerm, NoKL
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.ratios import PPO, PolicyLoss, Score
from gradlab.sequences.sequence_losses import GSPO, LOSSES
from gradlab.sequences.success_advantages import ADVANTAGES

__all__ = ["SPELLINGS", "configured", "nearest_name", "read_advantage", "spelled"]

SPELLINGS: dict[str, dict[str, str]] = {
    "advantage": {
        # huggingface/trl, trl/trainer/grpo_config.py
        "scale_rewards=group": "group-std",
        "scale_rewards=true": "group-std",
        "scale_rewards=batch": "batch-std",
        "scale_rewards=none": "centred",
        "scale_rewards=false": "centred",
        # OpenRLHF/OpenRLHF, openrlhf/cli/train_ppo_ray.py (--algo.advantage.estimator) and
        # openrlhf/trainer/ppo_utils/experience_maker.py, which whitens over tokens
        "group_norm": "group-std",
        "dr_grpo": "centred",
        "reinforce_baseline": "whitened(centred=true)",
        "algo.advantage.estimator=reinforce": "whitened",
        "advantage_estimator=reinforce": "whitened",
        # volcengine/verl, verl/trainer/ppo/core_algos.py and verl/trainer/config/algorithm.py; its
        # grpo_passk is max-second with norm_adv_by_std_in_grpo=false only
        "reinforce_plus_plus": "whitened",
        "reinforce_plus_plus_baseline": "whitened(centred=true)",
        "grpo_vectorized": "group-std",
        "rloo_vectorized": "loo",
        "optimal_token_baseline": "optimal-token",
        "norm_adv_by_std_in_grpo=true": "group-std",
        "norm_adv_by_std_in_grpo=false": "centred",
        # THUDM/slime, slime/utils/arguments.py
        "disable_grpo_std_normalization": "centred",
        # NVIDIA-NeMo/RL, nemo_rl/algorithms/advantage_estimator.py: minus_baseline is on; GRPO
        # without normalize_rewards has the mean of the others as its baseline
        "adv_estimator.name=reinforce_plus_plus": "whitened(centred=true)",
        "adv_estimator.name=raw_reward": "raw",
        "normalize_rewards=false": "loo",
    },
    "aggregation": {
        # huggingface/trl, trl/trainer/grpo_trainer.py
        "loss_type=grpo": "SEQ",
        "loss_type=sapo": "SEQ",
        "loss_type=luspo": "SEQ",
        "loss_type=dapo": "TOK",
        "loss_type=cispo": "TOK",
        "loss_type=vespo": "TOK",
        "loss_type=bnpo": "TOK-local",
        "loss_type=dr_grpo": "CONST",
        # volcengine/verl, verl/trainer/ppo/core_algos.py
        "loss_agg_mode=token-mean": "TOK",
        "loss_agg_mode=seq-mean-token-sum": "SUM",
        "loss_agg_mode=seq-mean-token-mean": "SEQ",
        "loss_agg_mode=seq-mean-token-sum-norm": "CONST",
        # OpenRLHF/OpenRLHF, openrlhf/models/loss.py; NVIDIA-NeMo/RL,
        # nemo_rl/algorithms/loss/loss_functions.py
        "token_level_loss=true": "TOK",
        "token_level_loss=false": "SEQ",
        # THUDM/slime, slime/utils/arguments.py
        "calculate_per_token_loss": "TOK",
        "calculate_per_token_loss=false": "SEQ",
    },
    "ratio": {
        # huggingface/trl, trl/trainer/grpo_config.py
        "importance_sampling_level=token": "token",
        "importance_sampling_level=sequence": "GSPO",
        "loss_type=cispo": "CISPO-TRL",
        "loss_type=sapo": "SAPO",
        "loss_type=vespo": "VESPO",
        "loss_type=luspo": "LUSPO",
        "off_policy_mask_threshold": "OPSM",
        # volcengine/verl, verl/trainer/ppo/core_algos.py (policy_loss.loss_mode)
        "loss_mode=vanilla": "PPO(dual=3)",
        "loss_mode=gspo": "GSPO",
        "loss_mode=sapo": "SAPO",
        "loss_mode=gpg": "score",
        "loss_mode=clip_cov": "Clip-Cov",
        "loss_mode=kl_cov": "KL-Cov",
        "loss_mode=geo_mean": "GMPO",
        "loss_mode=cispo": "CISPO-verl",
        # OpenRLHF/OpenRLHF, openrlhf/cli/train_ppo_ray.py
        "policy_loss_type=ppo": "PPO",
        "policy_loss_type=gspo": "GSPO",
        # THUDM/slime, slime/utils/arguments.py
        "use_opsm": "OPSM",
        # NVIDIA-NeMo/RL, nemo_rl/algorithms/loss/loss_functions.py
        "sequence_level_importance_ratios=true": "GSPO",
        "use_cispo=true": "CISPO-verl",
        "disable_ppo_ratio=true": "score",
        "force_on_policy_ratio=true": "score",
    },
    "kl": {
        # volcengine/verl, verl/trainer/config/algorithm.py and verl/workers/config/actor.py, where
        # kl_loss_type is low_var_kl; NVIDIA-NeMo/RL has use_kl_in_reward too
        "use_kl_in_reward": "k1(place=reward)",
        "use_kl_in_reward=true": "k1(place=reward)",
        "use_kl_loss": "k3",
        "use_kl_loss=true": "k3",
        "kl_loss_type=low_var_kl": "k3",
        # huggingface/trl, trl/trainer/grpo_config.py
        "use_bias_correction_kl": "k3-ratio",
        "use_bias_correction_kl=true": "k3-ratio",
        # THUDM/slime, slime/utils/arguments.py, with kl_loss_type=low_var_kl
        "use_unbiased_kl": "k3-ratio",
        # OpenRLHF/OpenRLHF, openrlhf/cli/train_ppo_ray.py, without --algo.kl.use_loss
        "algo.kl.estimator=k1": "k1(place=reward)",
        "algo.kl.estimator=k2": "k2(place=reward)",
        "algo.kl.estimator=k3": "k3(place=reward)",
        # NVIDIA-NeMo/RL, nemo_rl/algorithms/loss/loss_functions.py: the term is weighted by
        # exp(x - sg(x)), which on policy is the ratio
        "reference_policy_kl_type=k1": "k1-ratio",
        "reference_policy_kl_type=k3": "k3-ratio",
    },
}
"""Further spellings of the four choices, beside the names of the catalogue and their aliases.

A comment says in which repository and file each was read.
"""

_HOUSEHOLD = ("REINFORCE", "RLOO", "centred", "GRPO", "Dr.GRPO", "DAPO", "PPO", "GSPO")
_RATIOS = ("none", "token", "prefix", "sequence", "geometric")


def spelled(what: str, text: str) -> str:
    """Return the name of the catalogue that a trainer's spelling stands for.

    Args:
        what: A key of `SPELLINGS`.
        text: A spelling; one that is not listed is returned as it is.

    Example:
        >>> spelled("aggregation", "loss_type=dapo")
        'TOK'
    """
    known = {bare(key): value for key, value in SPELLINGS[what].items()}
    return known.get(bare(text), text)


def read_advantage(text: str) -> Advantage:
    """Return the advantage that a text names, also in a trainer's spelling.

    Args:
        text: Such as "group-std", "none" or "scale_rewards=batch".

    Raises:
        ValueError: It is unknown.

    Example:
        >>> read_advantage("scale_rewards=none")
        centred
    """
    found: Advantage = read_choice("advantage", spelled("advantage", text), ADVANTAGES)
    return found


def configured(
    base: PolicyGradient | str = "PG",
    *,
    advantage: str | None = None,
    aggregation: str | None = None,
    ratio: str | None = None,
    clip: tuple[float, float] | None = None,
    kl: str | None = None,
    beta: float | None = None,
    group: int | None = None,
) -> PolicyGradient:
    """Return the estimator of a trainer's configuration.

    Args:
        base: What is not given is that of this estimator.
        advantage: "group-std", "batch-std", "loo", "centred", "none", ...; or a spelling of
            TRL, verl, OpenRLHF or slime.
        aggregation: "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", ...
        ratio: "none", "token", "prefix", "sequence" or "geometric", or the name of a loss of the
            catalogue, such as "CISPO-verl" or "GSPO". A token ratio with a clip is the loss of PPO,
            a geometric one that of GSPO; prefix and sequence ratios are truncated.
        clip: How far the ratio may fall below 1 and rise above it.
        kl: "none", "k1", "k2", "k3", "k1(place=reward)", ...
        beta: The weight of the KL term; 0 is no KL term.
        group: G.

    Returns:
        The estimator, under the published name that is nearest.

    Raises:
        ValueError: A choice is unknown, or two of them do not go together.

    Example:
        >>> configured(advantage="group-std", aggregation="token-mean", ratio="token",
        ...            clip=(0.2, 0.28), kl="k3", beta=0.04, group=8)
        GRPO(aggregation=TOK, loss=PPO(high=0.28), kl=k3, g=8)
        >>> configured("GRPO", aggregation="dr_grpo", advantage="scale_rewards=none")
        Dr.GRPO
    """
    found = parse(base) if isinstance(base, str) else base
    changes: dict[str, Any] = {}
    if advantage is not None:
        with _about("advantage"):
            changes["advantage"] = read_advantage(advantage)
    if aggregation is not None:
        name = spelled("aggregation", aggregation)
        with _about("aggregation"):
            changes["aggregation"] = read_choice("aggregation", name, AGGREGATIONS)
    if ratio is not None:
        with _about("ratio"):
            changes["loss"] = _loss(spelled("ratio", ratio), clip)
    elif clip is not None:
        changes["loss"] = _clipped(found.loss, clip)
    if kl is not None or beta is not None:
        with _about("kl"):
            term = found.kl if kl is None else read_choice("kl", spelled("kl", kl), KLS)
        changes["kl"] = _weighted(term, beta)
    if group is not None:
        changes["g"] = group
    return nearest_name(found.with_(**changes))


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Let an error from the block say which choice it is about."""
    try:
        yield
    except ValueError as error:
        if what in str(error):
            raise
        raise ValueError(f"{what}: {error}") from None


def _loss(ratio: str, clip: tuple[float, float] | None) -> PolicyLoss:
    """Return the loss that weighs with a ratio."""
    name, _ = read_call(ratio)
    if bare(name) not in map(bare, _RATIOS):
        known = {bare(n) for c in LOSSES.values() for n in (*c.aliases, c.__name__, c.name)}
        if bare(name) not in known:
            names = (*_RATIOS, *LOSSES)
            hint = did_you_mean(name, names)
            raise ValueError(f"unknown ratio {name!r}{hint} (known: {', '.join(names)})")
        loss: PolicyLoss = read_choice("ratio", ratio, LOSSES)
        return loss if clip is None else _clipped(loss, clip)
    if clip is None:
        return Score(bare(ratio))
    low, high = clip
    if bare(ratio) == "none":
        raise ValueError("clip needs a ratio: give --ratio token, for instance")
    if bare(ratio) == "token":
        return PPO(low, high)
    if bare(ratio) == "geometric":
        return GSPO(low, high)
    return Score(bare(ratio), 1 - low, 1 + high)


def _clipped(loss: PolicyLoss, clip: tuple[float, float]) -> PolicyLoss:
    named = {field.name for field in fields(loss)}  # type: ignore[arg-type]
    if isinstance(loss, Score) or not {"low", "high"} <= named:
        raise ValueError(f"clip has no meaning for {loss}: give a ratio, or its own arguments")
    return replace(loss, low=clip[0], high=clip[1])  # type: ignore[type-var]


def _weighted(term: KLTerm, beta: float | None) -> KLTerm:
    if beta is None:
        return term
    if isinstance(term, NoKL) and beta:
        raise ValueError("beta needs a KL term: give --kl k3, for instance")
    return replace(term, beta=float(beta)) if beta else NoKL()  # type: ignore[type-var]


def nearest_name(estimator: PolicyGradient) -> PolicyGradient:
    """Return the same estimator under the published name that needs the fewest changes.

    Args:
        estimator: Any composition.

    Example:
        >>> nearest_name(PolicyGradient("group-std", "SEQ", "PPO", "k3"))
        GRPO(kl=k3)
        >>> nearest_name(PolicyGradient("group-std", "SEQ", "SAPO", "k3"))
        SAPO(kl=k3)
    """

    def changes(name: str) -> tuple[int, int]:
        count = len(read_call(str(replace(estimator, name=name)))[1])
        # Two more changes of a name that readers know beat one that they do not.
        known = 0 if name in _HOUSEHOLD or count < 2 else 2
        return count + known, list(ESTIMATORS).index(name)

    # A name that draws equal groups again says more than was asked.
    names = [name for name, one in ESTIMATORS.items() if one.resample == estimator.resample]
    best = min(names or list(ESTIMATORS), key=changes)
    return replace(estimator, name=best, source=ESTIMATORS[best].source)

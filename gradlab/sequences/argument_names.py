"""The names by which trainers call what a loss function is given, and the values behind them.

No trainer is imported: a function is called with what its arguments are named after.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.checks import did_you_mean
from gradlab.sequences.loss_calls import Form, forward_of

__all__ = [
    "KNOWN_ARGUMENTS",
    "Batch",
    "Settings",
    "bound_arguments",
    "has_meaning",
    "known_arguments",
]

KNOWN_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "log_prob": (
        *("log_prob", "log_probs", "logprob", "logprobs", "logps", "logp", "per_token_logps"),
        *("new_log_prob", "new_log_probs", "new_logprobs", "policy_log_prob", "policy_log_probs"),
        *("policy_logprobs", "current_log_probs", "current_logprobs", "curr_logprobs"),
        *("action_log_probs", "next_token_logprobs", "logp_curr", "token_logprobs"),
    ),
    "rollout_log_prob": (
        *("rollout_log_prob", "rollout_log_probs", "old_log_prob", "old_log_probs", "old_logprob"),
        *("old_logprobs", "old_logps", "old_logp", "old_per_token_logps", "prev_logprobs"),
        *("sampling_per_token_logps", "behavior_log_probs", "generation_logprobs", "logp_old"),
        *("inference_logprobs", "sampler_log_probs", "rollout_logprobs"),
    ),
    "reference_log_prob": (
        *("reference_log_prob", "reference_log_probs", "ref_log_prob", "ref_log_probs"),
        *("ref_logprob", "ref_logprobs", "ref_logps", "ref_per_token_logps", "log_probs_base"),
        *("reference_logprobs", "reference_policy_logprobs", "base_log_probs"),
    ),
    "advantages": ("advantages", "advantage", "adv", "advs"),
    "rewards": ("rewards", "reward", "scores", "outcome_rewards", "sequence_rewards"),
    "token_rewards": ("token_level_rewards", "token_rewards", "token_level_scores"),
    "mask": (
        *("mask", "response_mask", "completion_mask", "action_mask", "loss_mask", "loss_masks"),
        *("token_mask", "response_masks", "padding_mask", "masks"),
    ),
    "lengths": ("lengths", "response_lengths", "sequence_lengths", "seq_lengths"),
    "index": ("index", "uid", "uids"),
    "group_index": ("group_ids", "group_index", "prompt_index", "group_id", "group_indices"),
    "group_size": (
        *("group_size", "num_generations", "n_samples_per_prompt", "num_samples_per_prompt"),
        *("rollouts_per_prompt", "G"),
    ),
    "tokens": (
        *("num_items_in_batch", "batch_num_tokens", "num_tokens", "global_num_tokens"),
        *("total_tokens", "global_valid_toks", "token_count", "global_token_count"),
    ),
    "sequences": ("global_batch_size", "num_sequences", "global_valid_seqs"),
    "horizon": ("max_completion_length", "max_length", "max_tokens", "horizon", "max_response_len"),
    "log_ratio": ("log_ratio", "log_ratios", "logratio", "log_importance_weights"),
    "negative_log_ratio": ("ppo_kl", "approx_kl_per_token"),
    "everything": ("inputs", "batch", "data", "experience", "sample", "samples"),
    "settings": ("config", "args", "cfg", "algo_config", "actor_config"),
}
"""What a loss is given, each with the names that are understood."""

_MEANING = {name: kind for kind, names in KNOWN_ARGUMENTS.items() for name in names}


def has_meaning(name: str, kind: str) -> bool:
    """Return whether an argument of this name is of a kind.

    Args:
        name: Of the argument.
        kind: A key of `KNOWN_ARGUMENTS`.

    Example:
        >>> has_meaning("cfg", "settings"), has_meaning("cfg", "mask")
        (True, False)
    """
    return _MEANING.get(name) == kind


class Settings(Mapping[str, Any]):
    """The configuration that a copied function reads: attributes, items and `get`.

    Args:
        **given: Values in place of the defaults, which are those of PPO with a clip of 0.2.

    Example:
        >>> settings = Settings(clip_ratio_high=0.28)
        >>> settings.clip_ratio, settings["clip_ratio_high"], settings.get("clip_ratio_c", 3.0)
        (0.2, 0.28, 3.0)
    """

    def __init__(self, **given: Any) -> None:
        self._values = {**_DEFAULTS, **given}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        if name in _SECTIONS:
            return self
        raise AttributeError(
            f"the loss reads the setting {name!r}{did_you_mean(name, values)}; give it in settings "
            f"(--set {name}=VALUE)"
        )

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


# The kind of an argument whose value is that of a setting.
_SETTING = "setting"
# Parts of a configuration, whose fields are looked up in the whole.
_SECTIONS = ("policy_loss", "loss", "algo", "actor", "algorithm")

_DEFAULTS: dict[str, Any] = {
    **{"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0},
    **{"eps_clip": 0.2, "eps_clip_high": 0.2, "eps_clip_c": None, "gamma": 1.0, "cliprange": 0.2},
    **{"epsilon": 0.2, "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": None, "beta": 0.0},
    **{"tau_pos": 1.0, "tau_neg": 1.05, "global_batch_info": {}, "loss_agg_mode": "token-mean"},
    **{"clip_cov_ratio": 2e-4, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0},
    **{"kl_cov_ratio": 2e-4, "ppo_kl_coef": 0.1, "opsm_delta": 1e-4},
    **{"loss_type": "dapo", "importance_sampling_level": "token", "scale_rewards": "group"},
    **{"use_bias_correction_kl": False, "off_policy_mask_threshold": None},
    **{"top_entropy_quantile": 1.0, "gradient_accumulation_steps": 1, "temperature": 1.0},
    **{"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
    **{"vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0},
}

# Arguments without a value that get these defaults; others change what a loss is.
_FILLED = set(_DEFAULTS) - {"beta", "delta", "scale_rewards", "loss_type"}


@dataclass(frozen=True, eq=False)
class Batch:
    """What one call of a loss is about: N sequences, flat, as trainers have them.

    Args:
        log_prob: The leaf, [N, T].
        rollout_log_prob: [N, T].
        reference_log_prob: [N, T].
        mask: [N, T].
        rewards: [N].
        advantages: [N].
        group_size: G.
        tokens: Tokens of the whole training batch, of which this may be a part.
        sequences: Sequences of the whole training batch.
        horizon: T of the training batch.
        form: How the loss takes masks and indices.

    Example:
        >>> x = torch.zeros(2, 3)
        >>> Batch(x, x, x, x + 1, x[:, 0], x[:, 0], 2, 6, 2, 3).token_rewards.shape
        torch.Size([2, 3])
    """

    log_prob: Tensor
    rollout_log_prob: Tensor
    reference_log_prob: Tensor
    mask: Tensor
    rewards: Tensor
    advantages: Tensor
    group_size: int
    tokens: int
    sequences: int
    horizon: int
    form: Form = Form()  # noqa: RUF009 - frozen

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence."""
        return self.mask.sum(-1)

    @property
    def group_index(self) -> Tensor:
        """The number of the prompt of each sequence."""
        return torch.arange(len(self.rewards)) // self.group_size

    @property
    def index(self) -> Any:
        """The same as an array, whose numbers are keys of a dict, as verl uses them."""
        return self.group_index.numpy()

    @property
    def token_rewards(self) -> Tensor:
        """The reward at the last token of each sequence."""
        steps = torch.arange(self.mask.shape[-1])
        last = (steps * self.mask).argmax(-1, keepdim=True)
        return torch.zeros_like(self.rollout_log_prob).scatter(-1, last, self.rewards.unsqueeze(-1))

    @property
    def log_ratio(self) -> Tensor:
        """log pi/mu, with its graph."""
        return self.log_prob - self.rollout_log_prob

    @property
    def negative_log_ratio(self) -> Tensor:
        """log mu/pi, with its graph."""
        return -self.log_ratio

    def value(self, kind: str, by_token: bool, settings: Settings) -> Any:
        """Return what an argument of this kind is.

        Args:
            kind: A key of `KNOWN_ARGUMENTS`.
            by_token: Whether advantages are [N, T].
            settings: The configuration.
        """
        if kind == "settings":
            return settings
        if kind == "everything":
            kinds = [k for k in KNOWN_ARGUMENTS if k not in ("everything", "settings")]
            found = {k: self.value(k, by_token, settings) for k in kinds}
            return {name: found[k] for k in kinds for name in KNOWN_ARGUMENTS[k]}
        value = getattr(self, kind)
        if kind == "advantages" and by_token:
            return value.unsqueeze(-1).expand_as(self.mask) * self.mask
        if kind == "mask" and self.form.mask == "bool":
            return value.bool()
        if kind == "group_index" and self.form.index == "list":
            return value.tolist()
        return value


def known_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Return the kinds of a function's arguments by their names.

    Args:
        function: A loss; a module is known by its `forward`.
        given: Arguments that get these values and are of no kind.

    Returns:
        Arguments with a default whose name is not understood are left out.

    Raises:
        ValueError: A name without a default is not understood.

    Example:
        >>> known_arguments(lambda old_log_prob, log_prob, advantages, response_mask: 0, {})
        {'old_log_prob': 'rollout_log_prob', 'log_prob': 'log_prob', 'advantages': 'advantages', \
'response_mask': 'mask'}
    """
    found, starred = {}, ""
    understood = ", ".join(names[0] for names in KNOWN_ARGUMENTS.values())
    for name, parameter in inspect.signature(forward_of(function)).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            starred = str(parameter)
        if name in given or starred == str(parameter):
            continue
        if name in _MEANING:
            found[name] = _MEANING[name]
        elif name in _FILLED and parameter.default in (parameter.empty, None):
            found[name] = _SETTING
        elif parameter.default is parameter.empty:
            raise ValueError(
                f"the loss has an argument {name!r} that is not understood"
                f"{did_you_mean(name, _MEANING)}; rename it, or give its value in settings "
                f"(--set {name}=VALUE). Understood are {understood} and the names that trainers "
                "have for them"
            )
    kinds = set(found.values())
    if not kinds & {"log_prob", "log_ratio", "negative_log_ratio", "everything"}:
        instead = f" in the place of {starred}" if starred else ""
        raise ValueError(
            "the loss has no argument for the policy's log-probabilities: name one log_prob"
            f"{instead}"
        )
    return found


def bound_arguments(
    kinds: Mapping[str, str], batch: Batch, by_token: bool, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of one call.

    Args:
        kinds: As `known_arguments` gives them.
        batch: What the call is about.
        by_token: Whether advantages are [N, T].
        settings: Values of arguments of no kind, and of the configuration.

    Example:
        >>> x = torch.zeros(2, 3)
        >>> batch = Batch(x, x, x, x + 1, x[:, 0], x[:, 0], 2, 6, 2, 3)
        >>> bound_arguments({"adv": "advantages"}, batch, True, {})["adv"].shape
        torch.Size([2, 3])
    """
    config = Settings(**settings)
    return {
        name: config[name] if kind == _SETTING else batch.value(kind, by_token, config)
        for name, kind in kinds.items()
    }

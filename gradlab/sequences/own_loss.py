"""Your own loss as an estimator: its coefficients are d loss / d log_prob, by one call of autograd.

The probe is exact to first order, with clips and whatever else the function does.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.sequences.advantages import Advantage
from gradlab.sequences.aggregation import AGGREGATIONS, Aggregation
from gradlab.sequences.argument_names import Batch, bound_arguments, known_arguments
from gradlab.sequences.choices import read_choice
from gradlab.sequences.group import Group
from gradlab.sequences.loss_calls import (
    FORMS,
    Form,
    LossFunctionError,
    called,
    forward_of,
    no_gradient,
    number_of,
)
from gradlab.sequences.normalized_advantages import GroupStd
from gradlab.sequences.success_advantages import ADVANTAGES
from gradlab.sequences.trainer_method import TrainerMethod, made_of_class, reads_self

__all__ = ["LossFunctionError", "OwnLoss"]


@dataclass(frozen=True, eq=False, repr=False)
class OwnLoss:
    """A loss function of a trainer, in the place of a `PolicyGradient`.

    Arguments are recognized by their names, those of TRL, verl, OpenRLHF, slime and NeMo-RL among
    them (`KNOWN_ARGUMENTS`). Tensors are flat, [N, T], prompt after prompt. The function returns
    the loss, or a tuple or dict that begins with it or has it as "loss".

    Args:
        function: The loss, to be minimized; also the class of one, made with `settings`, or a
            method with `self` that was copied out of a trainer.
        advantage: What gives the advantages of a function that takes them.
        settings: Values of further arguments, and of the configuration that the function reads.
        aggregation: What reduces a loss that is returned per token; None: the loss is one number.
        maximize: Whether the function is an objective to be maximized.
        g: Sequences per group.
        name: How it is called.
        by_token: Whether advantages are [N, T]; None: it is tried.
        form: How it takes its tensors; None: it is tried.
        rounding: The relative precision that it computes in; None: that of what it returns.
        binary: Whether it sees rewards 0 and 1 alone; None: it is tried.

    Raises:
        LossFunctionError: An argument is not understood, the call fails, or the loss does not
            depend on the log-probabilities.

    Example:
        >>> def loss(log_prob, old_log_prob, advantages, mask):
        ...     ratio = (log_prob - old_log_prob).exp()
        ...     return -(ratio * advantages.unsqueeze(-1) * mask).sum() / mask.sum()
        >>> own = OwnLoss(loss, advantage="centred", g=2)
        >>> group = Group(torch.tensor([1.0, 0.0]), torch.tensor([2, 1]), torch.zeros(2, 2))
        >>> own.coefficients(group)
        tensor([[ 0.1667,  0.1667],
                [-0.1667,  0.0000]])
    """

    function: Callable[..., Any]
    advantage: Advantage = GroupStd()  # noqa: RUF009 - frozen
    settings: Mapping[str, Any] = field(default_factory=dict)
    aggregation: Aggregation | None = None
    maximize: bool = False
    g: int = 4
    name: str = ""
    by_token: bool | None = None
    form: Form | None = None
    rounding: float | None = None
    binary: bool | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "advantage", read_choice("advantage", self.advantage, ADVANTAGES))
        if self.aggregation is not None:
            given = read_choice("aggregation", self.aggregation, AGGREGATIONS)
            set_(self, "aggregation", given)
        try:
            if isinstance(self.function, type):
                set_(self, "function", made_of_class(self.function, self.settings))
            elif reads_self(self.function):
                set_(self, "function", TrainerMethod(self.function))  # type: ignore[arg-type]
            set_(self, "kinds", known_arguments(self.function, self._extra()))
        except (TypeError, ValueError) as error:
            raise LossFunctionError(str(error)) from None
        if not self.name:
            set_(self, "name", getattr(self.function, "__name__", type(self.function).__name__))
        if self.form is None:
            for name, value in self._tried().items():
                set_(self, name, value)

    kinds: Mapping[str, str] = field(init=False)
    factorizes = False

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    def with_(self, **changes: Any) -> "OwnLoss":
        """Return this loss with other options.

        Args:
            **changes: Fields by their names.
        """
        return replace(self, **changes)

    @property
    def takes_rewards(self) -> bool:
        """Whether the function computes the advantages itself."""
        has = set(self.kinds.values())
        return bool(has & {"rewards", "token_rewards"})

    @property
    def switches(self) -> tuple[str, ...]:
        """The arguments that are to turn a division by the standard deviation on and off."""
        named = inspect.signature(forward_of(self.function)).parameters.items()
        return tuple(
            name
            for name, parameter in named
            if isinstance(parameter.default, bool)
            and any(word in name for word in ("std", "scale", "norm", "whiten"))
        )

    @property
    def knows_groups(self) -> bool:
        """Whether several prompts can be handed to it at once."""
        has = set(self.kinds.values())
        return not self.takes_rewards or bool(has & {"index", "group_index", "group_size"})

    def coefficients(self, group: Group) -> Float[Tensor, "*batch G T"]:
        """Return c_it = -d loss / d log_prob, an ascent direction, one call per training batch.

        Args:
            group: The sequences.

        Raises:
            LossFunctionError: The function fails.
        """
        joint = group.joint()
        parts, mask = joint.log_prob.shape[:-3], joint.mask
        found = torch.empty_like(joint.log_prob)
        for at in itertools.product(*map(range, parts)):
            found[at] = self._one(_picked(joint, at))
        return torch.where(mask, found, 0.0).reshape(group.log_prob.shape)

    def kept(self, rewards: Float[Tensor, "*batch G"]) -> Bool[Tensor, "*batch"]:
        """Return that all groups are used.

        Args:
            rewards: R_i.
        """
        return torch.ones(rewards.shape[:-1], dtype=torch.bool)

    def logit_coefficients(self, group: Group) -> None:
        """Return None: the function sees log-probabilities of sampled tokens only.

        Args:
            group: The sequences.
        """

    def loss(
        self,
        group: Group,
        log_prob: Tensor,
        mask: Tensor | None = None,
        *,
        changed: set[str] | None = None,
        **whole: int,
    ) -> Tensor:
        """Return the loss of one training batch [B, G], with the graph to log_prob.

        Args:
            group: The sequences, [B, G].
            log_prob: [B, G, T].
            mask: Which tokens count, by default all that are not padding.
            changed: Is given the names of the arguments that the function changes in place.
            **whole: tokens, sequences and horizon, where the batch is a part of a larger one.
        """
        if not self.knows_groups and len(group.rewards) > 1:
            raise LossFunctionError(
                "the loss takes rewards and does not know which sequences share a prompt; "
                "give it an argument group_size or index"
            )
        counted = group.mask if mask is None else mask
        form = self.form or Form()
        reference = group.log_prob if group.reference_log_prob is None else group.reference_log_prob
        greedy = group.greedy_rewards
        advantages = self.advantage.of_rewards(group.rewards, group.lengths, greedy)

        def given(values: Tensor) -> Tensor:  # a copy, which the function may change in place
            return values.flatten(0, 1).to(form.dtype, copy=True)

        batch = Batch(
            given(log_prob),
            given(group.rollout_log_prob),
            given(reference),
            given(counted),
            given(group.rewards),
            given(advantages),
            group.size,
            whole.get("tokens", int(counted.sum())),
            whole.get("sequences", group.rewards.numel()),
            whole.get("horizon", group.horizon),
            form,
        )
        arguments = bound_arguments(self.kinds, batch, bool(self.by_token), self.settings)
        result = called(self.function, {**arguments, **self._extra()}, changed)
        number = number_of(result, counted.flatten(0, 1).shape)
        if number.ndim == 0:
            return number
        if self.aggregation is None:
            raise LossFunctionError(
                f"the loss must be one number, not {list(number.shape)}; where it is one number "
                "per token, say how they are reduced: aggregation='TOK', for instance"
            )
        lengths = counted.sum(-1).long().view(-1, batch.group_size)
        weights = self.aggregation.weights(lengths, batch.horizon).flatten().to(number.dtype)
        return (weights * (number * counted.flatten(0, 1)).sum(-1)).sum()

    def _one(self, group: Group) -> Tensor:
        """Return the coefficients of one training batch [B, G]."""
        return self.gradient(lambda leaf: self.loss(group, leaf), group.log_prob)

    def gradient(self, value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """Return the ascent direction of a loss for the log-probabilities.

        Args:
            value: The loss of log_prob.
            at: log_prob.
        """
        with torch.enable_grad():
            leaf = at.detach().clone().requires_grad_()
            number = value(leaf)
            try:
                (found,) = torch.autograd.grad(number, leaf, allow_unused=True)
            except RuntimeError as error:
                raise LossFunctionError(
                    "the loss cannot be differentiated: "
                    f"{' '.join(str(error).split()).partition('. ')[0]}; return the loss itself, "
                    "without calling backward in it"
                ) from error
        if found is None:
            raise no_gradient()
        return found if self.maximize else -found

    def _extra(self) -> dict[str, Any]:
        """Return the settings that are arguments of the function."""
        names = inspect.signature(forward_of(self.function)).parameters
        return {name: value for name, value in self.settings.items() if name in names}

    def _tried(self) -> dict[str, Any]:
        """Return the fields that say how the function takes its tensors: what it works with."""
        generator = torch.Generator().manual_seed(0)
        b, g, t = (2 if self.knows_groups else 1, 3, 7)
        log_prob = -torch.rand(b, g, t, generator=generator, dtype=torch.float64) - 0.1
        rewards = torch.tensor([[0.9, -1.3, 0.2], [1.4, -0.4, -0.8]], dtype=torch.float64)[:b]
        lengths = torch.tensor([[7, 4, 5], [6, 7, 3]])[:b]
        group = Group(rewards, lengths, log_prob, reference_log_prob=log_prob, prompts=True)
        kinds = set(self.kinds.values())
        by_tokens = [False, True] if kinds & {"advantages", "everything"} else [False]
        if self.by_token is not None:
            by_tokens = [self.by_token]
        faults, silent = [], None
        for form, by_token in itertools.product(FORMS, by_tokens):
            tried: dict[str, Any] = {"by_token": by_token, "form": form, "rounding": math.inf}
            own = replace(self, **tried)
            try:
                with torch.enable_grad():
                    leaf = log_prob.clone().requires_grad_()
                    number = own.loss(group, leaf)
                moves, tried["binary"] = own._moves(group)
            except LossFunctionError as fault:
                faults.append(fault)
                continue
            tried["rounding"] = torch.finfo(number.dtype).eps
            # A tensor of prompts is no key of a dict: nothing is in one group, and nothing moves.
            if moves or "group_index" not in kinds:
                return tried
            silent = silent or tried
        if silent is not None:
            return silent
        # A failed call may be the wrong shape; another fault is a fault.
        first = faults[0] if "the loss raised" not in str(faults[0]) else faults[len(by_tokens) - 1]
        raise first

    def _moves(self, group: Group) -> tuple[bool, bool]:
        """Return whether there is a gradient, and whether with rewards 0 and 1 alone."""
        if bool(self.coefficients(group).any()) or not self.takes_rewards:
            return True, False
        rewards = (torch.arange(group.size) % 2).to(group.rewards.dtype).expand_as(group.rewards)
        found = bool(self.coefficients(replace(group, rewards=rewards)).any())
        return found, found


def _picked(joint: Group, at: tuple[int, ...]) -> Group:
    """Return one training batch of a batch of them."""
    names = (
        *("rewards", "lengths", "log_prob", "rollout_log_prob", "reference_log_prob"),
        *("token_rewards", "greedy_rewards"),
    )
    values = {n: v[at] for n in names if (v := getattr(joint, n)) is not None}
    return replace(joint, **values, logits=None, reference_logits=None)

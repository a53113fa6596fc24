"""A loss that was copied out of a trainer's class: a method with `self`, and the class itself.

No trainer is imported. A method is given a stand-in for the trainer, whose attributes are settings,
and the dict of tensors that trainers hand to it.
"""

import inspect
import types
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradlab.checks import did_you_mean
from gradlab.sequences.argument_names import Settings, has_meaning

__all__ = ["TrainerMethod", "made_of_class", "reads_self"]


def reads_self(function: Any) -> bool:
    """Return whether a function is a method of a class that was copied out of it.

    Args:
        function: Anything.

    Example:
        >>> reads_self(lambda self, model, inputs: 0), reads_self(lambda log_prob: 0)
        (True, False)
    """
    if not isinstance(function, types.FunctionType):
        return False
    return next(iter(inspect.signature(function).parameters), "") == "self"


class TrainerMethod:
    """A method of a trainer as a function of its tensors: `compute_loss(self, model, inputs)`.

    What it reads of `self` is a setting, another function of its file, or the work of the trainer
    that a stand-in can do: the log-probabilities of the model, an accelerator of one process, lists
    of metrics. Each call has a new stand-in, so that nothing is kept between calls.

    Args:
        function: The method.

    Example:
        >>> def loss(self, model, inputs):
        ...     logps = self._get_per_token_logps(model, inputs["completion_ids"], None, 5)
        ...     self._metrics["train"]["kl"].append(0.0)
        ...     a = inputs["advantages"].unsqueeze(1)
        ...     return -(a * logps * inputs["completion_mask"]).sum() / inputs["num_items_in_batch"]
        >>> from gradlab.sequences import examine
        >>> print(examine(loss).match)
        this is score, aggregation TOK of the advantages that it is given
    """

    def __init__(self, function: types.FunctionType) -> None:
        self.__name__ = function.__name__
        named = {**_HELPERS, **function.__globals__}
        self._function = types.FunctionType(
            function.__code__, named, function.__name__, function.__defaults__, function.__closure__
        )
        self._function.__kwdefaults__ = function.__kwdefaults__
        self._parameters = list(inspect.signature(function).parameters.values())[1:]

    def __call__(self, inputs: Mapping[str, Any], config: Settings) -> Any:
        """Return the loss.

        Args:
            inputs: All tensors by all names that trainers have for them.
            config: The settings.

        Raises:
            AttributeError: The method reads what the stand-in has not.
            TypeError: The method takes an argument that is not understood.
        """
        given = _inputs(inputs)
        trainer = _Trainer(given, config, self._function.__globals__)
        arguments = {}
        for parameter in self._parameters:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            name = parameter.name
            if name in config:
                arguments[name] = config[name]
            elif name == "model":
                arguments[name] = trainer.model
            elif name in _EVERYTHING:
                arguments[name] = given
            elif name in given:
                arguments[name] = given[name]
            elif parameter.default is parameter.empty:
                raise TypeError(
                    f"the method takes {name!r}, which is not understood"
                    f"{did_you_mean(name, given)}; rename it, or give its value in settings "
                    f"(--set {name}=VALUE)"
                )
        return self._function(trainer, **arguments)


_EVERYTHING = ("inputs", "batch", "data", "experience", "sample", "samples")


def _inputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a training batch, with the tokens that TRL has beside them."""
    mask, old = given["completion_mask"], given["old_per_token_logps"]
    tokens = torch.zeros(mask.shape, dtype=torch.int64)
    prompt = tokens.new_zeros(len(tokens), 1)
    return {
        **given,
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": tokens,
        "num_items_in_batch": torch.tensor(float(given["num_items_in_batch"]), dtype=old.dtype),
        "old_logps": (old * mask).sum(-1),
        "ref_logps": (given["ref_per_token_logps"] * mask).sum(-1),
    }


class _Trainer:
    """What a method may read of the trainer that it was copied out of."""

    def __init__(self, given: Mapping[str, Any], config: Settings, named: dict[str, Any]) -> None:
        self._given, self._named = given, named
        self.args = self.config = config
        self.model = types.SimpleNamespace(training=True)
        self.accelerator = _Accelerator()
        self._metrics: Any = defaultdict(lambda: defaultdict(list))
        self._logs: Any = defaultdict(list)
        self.num_generations = given["num_generations"]
        self.max_completion_length = config.get(
            "max_completion_length", given["max_completion_length"]
        )

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        log_prob = self._given["per_token_logps"]
        found: tuple[Any, ...] = (log_prob, torch.zeros_like(log_prob.detach()))
        # Later versions ask for a third value and get it.
        return (*found, None) if "compute_aux_loss" in kwargs else found

    def _get_per_token_logps(self, *args: Any, **kwargs: Any) -> Tensor:
        log_prob: Tensor = self._given["per_token_logps"]
        return log_prob

    def __getattr__(self, name: str) -> Any:
        config, named = vars(self).get("args"), vars(self).get("_named", {})
        if config is not None and name in config:
            return config[name]
        if name in _OFF:
            return _OFF[name]
        beside = named.get(name)
        if isinstance(beside, staticmethod):
            return beside.__func__
        if callable(beside):
            return types.MethodType(beside, self) if reads_self(beside) else beside
        near = did_you_mean(name, [*(config or ()), *_OFF])
        raise AttributeError(
            f"the method reads self.{name}{near}, which the stand-in for the trainer has not: give "
            f"its value in settings (--set {name}=VALUE), or copy it into the file too, if it is a "
            "method"
        )


class _Accelerator:
    """One process."""

    num_processes, process_index = 1, 0
    is_main_process = is_local_main_process = sync_gradients = True
    device = torch.device("cpu")

    def gather(self, value: Any) -> Any:
        """Return what all processes have."""
        return value

    gather_for_metrics = unwrap_model = gather

    def reduce(self, value: Any, reduction: str = "sum", scale: float = 1.0) -> Any:
        """Return the sum over the processes."""
        return value


# What trainers have switched off unless it is asked for.
_OFF: dict[str, Any] = {
    **{"aux_loss_enabled": False, "router_aux_loss_coef": 0.0, "use_liger_kernel": False},
    **{"_entropy_bonus_enabled": False, "use_adaptive_entropy": False, "entropy_coef": 0.0},
    **{"use_vllm": False, "vllm_importance_sampling_correction": False, "tools": None},
    **{"current_gradient_accumulation_steps": 1, "is_fsdp_enabled": False},
}


def _extreme(kind: str) -> Callable[[Tensor], Tensor]:
    def found(values: Tensor) -> Tensor:
        known = values[~values.isnan()]
        return getattr(known, kind)() if len(known) else values.new_tensor(torch.nan)

    return found


# Of metrics alone; what the file defines itself comes first.
_HELPERS: dict[str, Any] = {"nanmin": _extreme("min"), "nanmax": _extreme("max")}


def made_of_class(cls: type, settings: Mapping[str, Any]) -> Any:
    """Return the object of a class that is a loss: `PolicyLoss(clip_eps_low=0.2)`.

    Args:
        cls: The class, with `forward` or `__call__`.
        settings: Values of the arguments that it is made with; others keep their defaults.

    Raises:
        TypeError: It is not a loss, an argument has no value, or its own code refuses.

    Example:
        >>> class Loss(torch.nn.Module):
        ...     def __init__(self, scale=2.0):
        ...         super().__init__()
        ...         self.scale = scale
        ...     def forward(self, log_prob, advantages):
        ...         return -(self.scale * advantages[:, None] * log_prob).sum()
        >>> made_of_class(Loss, {"scale": 3.0}).scale
        3.0
    """
    if not issubclass(cls, torch.nn.Module) and "__call__" not in vars(cls):
        raise TypeError(f"the class {cls.__name__} is not a loss: it has no forward or __call__")
    arguments = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in settings:
            arguments[name] = settings[name]
        elif has_meaning(name, "settings"):
            arguments[name] = Settings(**settings)
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise TypeError(
                f"the class {cls.__name__} is made with {name!r}: give its value in settings "
                f"(--set {name}=VALUE)"
            )
    try:
        return cls(**arguments)
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise TypeError(f"the class {cls.__name__} cannot be made, it raised {said}") from error

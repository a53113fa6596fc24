"""What can be wrong with a policy or a reward over sequences, each fault under its own name."""

__all__ = [
    "BatchPolicyError",
    "LookAheadError",
    "PolicyError",
    "PolicyShapeError",
    "RandomPolicyError",
    "RewardError",
    "SupportError",
]


class PolicyError(ValueError):
    """A policy breaks its contract."""


class PolicyShapeError(PolicyError):
    """The logits have another shape or type than [B, T, V], floating-point."""


class LookAheadError(PolicyError):
    """The logits of a token depend on this token or on later ones."""


class BatchPolicyError(PolicyError):
    """The logits of a sequence depend on the other sequences of the batch."""


class RandomPolicyError(PolicyError):
    """The same tokens give other logits at another call."""


class RewardError(ValueError):
    """A reward breaks its contract: its shape, its numbers, or what it depends on."""


class SupportError(ValueError):
    """The rollout policy never samples what the policy does: importance ratios are undefined."""

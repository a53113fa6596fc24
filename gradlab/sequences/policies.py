"""Small policies for sequences: a table, n-grams, a GRU and a transformer."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from gradlab.checks import check_int

__all__ = ["NGram", "NextToken", "Tabular", "TinyGRU", "TinyTransformer"]


def _normal(source: Generator, *shape: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(*shape, generator=source, dtype=torch.float64))


class Tabular(nn.Module):
    r"""Logits of their own after every prefix: the policy without any structure.

    Args:
        vocabulary: V, the number of tokens.
        horizon: T, the most tokens that it reads, a prompt included.
        scale: Standard deviation of the logits at the start.
        seed: Of the logits at the start.

    Example:
        >>> policy = Tabular(3, 3)
        >>> policy.table.shape, policy(torch.zeros(1, 3, dtype=torch.int64)).shape
        (torch.Size([13, 3]), torch.Size([1, 3, 3]))
    """

    def __init__(self, vocabulary: int, horizon: int, scale: float = 1.0, seed: int = 0) -> None:
        check_int("vocabulary", vocabulary, 2)
        check_int("horizon", horizon, 1, 20)
        super().__init__()
        self.vocabulary, self.horizon = vocabulary, horizon
        prefixes = sum(vocabulary**t for t in range(horizon))
        check_int("prefixes", prefixes, 1, 2**21)
        self.table = _normal(Generator().manual_seed(seed), prefixes, vocabulary, scale=scale)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token.

        Args:
            tokens: Sequences [B, T].
        """
        if tokens.shape[1] > self.horizon:
            raise ValueError(
                f"Tabular has logits for up to {self.horizon} tokens, not {tokens.shape[1]}: give "
                "it the horizon of the task"
            )
        index = torch.zeros_like(tokens[:, 0])
        found = [index]
        for t in range(tokens.shape[1] - 1):
            # Prefixes are numbered by length; those of one length as numbers of base V.
            index = index * self.vocabulary + 1 + tokens[:, t]
            found.append(index)
        return self.table[torch.stack(found, 1)]


class NGram(nn.Module):
    """Logits that depend on the last tokens only: a policy with finitely many states.

    The state is the last `order` - 1 tokens, fewer at the start. Sequences of hundreds of tokens
    are exact where the reward is an `Automaton`.

    Args:
        vocabulary: V, the number of tokens.
        order: n, at least 1: the logits depend on the last n - 1 tokens.
        scale: Standard deviation of the logits at the start.
        seed: Of the logits at the start.

    Example:
        >>> policy = NGram(3, order=2)
        >>> policy.table.shape, policy.transitions.tolist()
        (torch.Size([4, 3]), [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    """

    transitions: Tensor

    def __init__(self, vocabulary: int, order: int = 2, scale: float = 1.0, seed: int = 0) -> None:
        check_int("vocabulary", vocabulary, 2)
        check_int("order", order, 1)
        super().__init__()
        self.vocabulary, self.order = vocabulary, order
        states = sum(vocabulary**t for t in range(order))
        check_int("states", states, 1, 2**16)
        self.table = _normal(Generator().manual_seed(seed), states, vocabulary, scale=scale)
        # States are numbered by length, those of one length as numbers of base V.
        state = torch.arange(states)[:, None]
        after = state * vocabulary + 1 + torch.arange(vocabulary)
        first = states - vocabulary ** (order - 1)
        kept = first + (after - first) % vocabulary ** (order - 1)
        self.register_buffer("transitions", torch.where(after < states, after, kept))

    @property
    def state_logits(self) -> Float[Tensor, "Z V"]:
        """The logits in each state; state 0 is that of the start."""
        return self.table

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token.

        Args:
            tokens: Sequences [B, T].
        """
        state = torch.zeros_like(tokens[:, 0])
        found = [state]
        for t in range(tokens.shape[1] - 1):
            state = self.transitions[state, tokens[:, t]]
            found.append(state)
        return self.table[torch.stack(found, 1)]


class TinyGRU(nn.Module):
    """A recurrent network of one gated layer (Cho et al. 2014, 1406.1078).

    Args:
        vocabulary: V, the number of tokens.
        width: Numbers in the state.
        seed: Of the weights at the start.

    Example:
        >>> sum(p.numel() for p in TinyGRU(4, width=8).parameters())
        484
    """

    def __init__(self, vocabulary: int, width: int = 8, seed: int = 0) -> None:
        check_int("vocabulary", vocabulary, 2)
        check_int("width", width, 1)
        super().__init__()
        source = Generator().manual_seed(seed)
        self.embedding = _normal(source, vocabulary, width)
        self.start = _normal(source, width, scale=0.5)
        self.read = _normal(source, width, 3 * width, scale=width**-0.5)
        self.recur = _normal(source, width, 3 * width, scale=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(3 * width, dtype=torch.float64))
        self.out = _normal(source, width, vocabulary, scale=width**-0.5)
        self.out_bias = nn.Parameter(torch.zeros(vocabulary, dtype=torch.float64))

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token.

        Args:
            tokens: Sequences [B, T].
        """
        read = self.embedding[tokens] @ self.read + self.bias
        state = self.start.expand(len(tokens), -1)
        found = [state]
        for t in range(tokens.shape[1] - 1):
            update, reset, new = read[:, t].chunk(3, -1)
            of_update, of_reset, of_new = (state @ self.recur).chunk(3, -1)
            share = torch.sigmoid(update + of_update)
            fresh = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
            state = share * state + (1 - share) * fresh
            found.append(state)
        return torch.stack(found, 1) @ self.out + self.out_bias


class TinyTransformer(nn.Module):
    """A causal transformer with layers of attention and of a two-layer network.

    Args:
        vocabulary: V, the number of tokens.
        horizon: T, the most tokens that it reads, a prompt included.
        width: Numbers per token, a multiple of `heads`.
        layers: Layers.
        heads: Heads of attention.
        seed: Of the weights at the start.

    Example:
        >>> sum(p.numel() for p in TinyTransformer(4, 9).parameters())
        2372
    """

    def __init__(
        self,
        vocabulary: int,
        horizon: int,
        width: int = 16,
        layers: int = 1,
        heads: int = 2,
        seed: int = 0,
    ) -> None:
        named = {"horizon": horizon, "width": width, "layers": layers, "heads": heads}
        check_int("vocabulary", vocabulary, 2)
        for name, value in named.items():
            check_int(name, value, 1)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads = {heads}, not {width}")
        super().__init__()
        source = Generator().manual_seed(seed)
        self.heads = heads
        self.embedding = _normal(source, vocabulary, width)
        self.start = _normal(source, width)
        self.position = _normal(source, horizon, width, scale=0.5)
        self.layers = nn.ModuleList(_Layer(width, source) for _ in range(layers))
        self.out = _normal(source, width, vocabulary, scale=width**-0.5)
        self.out_bias = nn.Parameter(torch.zeros(vocabulary, dtype=torch.float64))

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token.

        Args:
            tokens: Sequences [B, T].
        """
        steps = tokens.shape[1]
        first = self.start.expand(len(tokens), 1, -1)
        x = torch.cat([first, self.embedding[tokens[:, :-1]]], 1) + self.position[:steps]
        seen = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril()
        for layer in self.layers:
            x = layer(x, seen, self.heads)
        return x @ self.out + self.out_bias


class _Layer(nn.Module):
    """One layer: attention, then a two-layer network, each added to what it reads."""

    def __init__(self, width: int, source: Generator) -> None:
        super().__init__()
        scale = width**-0.5
        self.attend = _normal(source, width, 3 * width, scale=scale)
        self.mix = _normal(source, width, width, scale=scale)
        self.widen = _normal(source, width, 2 * width, scale=scale)
        self.bias = nn.Parameter(torch.zeros(2 * width, dtype=torch.float64))
        self.narrow = _normal(source, 2 * width, width, scale=scale)

    def forward(self, x: Tensor, seen: Tensor, heads: int) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (x @ self.attend).chunk(3, -1)
        )
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~seen, -torch.inf).softmax(-1)
        x = x + (weights @ v).transpose(1, 2).flatten(-2) @ self.mix
        return x + torch.tanh(x @ self.widen + self.bias) @ self.narrow


class NextToken(nn.Module):
    """A language model as a policy: a start token in front, the last logits left out.

    A language model returns at position t the logits of token t + 1. A policy of gradlab returns
    those of token t.

    Args:
        model: From tokens [B, T] to logits [B, T, V], or to an object with them as `logits`.
        start: The token that is put in front.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Embedding(4, 3))
        >>> NextToken(model, start=3)(torch.zeros(1, 2, dtype=torch.int64)).shape
        torch.Size([1, 2, 3])
    """

    def __init__(self, model: nn.Module, start: int) -> None:
        super().__init__()
        self.model, self.start = model, start

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token.

        Args:
            tokens: Sequences [B, T].
        """
        first = torch.full_like(tokens[:, :1], self.start)
        found = self.model(torch.cat([first, tokens[:, :-1]], 1))
        return getattr(found, "logits", found)

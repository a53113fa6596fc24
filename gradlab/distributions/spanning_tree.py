r"""Spanning trees of a graph with a weight for each edge.

.. math:: \sum_{trees} \prod_{e \in tree} w_e = \prod_v \deg(v), \qquad w = \exp\theta

By the matrix-tree theorem the sum is a determinant of the Laplacian. It is eliminated vertex by
vertex: each neighbour u of v, and each other one u', get w_uv w_vu' / deg(v) more between them.
Nothing is subtracted, so weights of very different sizes keep their digits.
"""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import ExponentialFamily
from gradlab.distributions.natural import check_natural, lowest
from gradlab.samples import draw_classes

__all__ = ["SpanningTree"]

_MAX_STATES = 2**20
_MAX_STEPS = 1e6
_FEW = 2**14


class _Trees(constraints.Constraint):
    """Vectors of 0 and 1 over the edges that are a spanning tree."""

    is_discrete = True
    event_dim = 1

    def __init__(self, ends: Tensor, vertices: int) -> None:
        self.ends = ends
        self.vertices = vertices

    def check(self, value: Tensor) -> Tensor:
        """Return where the value is in the set."""
        bits = ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == self.vertices - 1)
        return bits & _connected(value != 0, self.ends, self.vertices)


class SpanningTree(ExponentialFamily):
    r"""A spanning tree of an undirected graph, x in {0, 1}^E over its edges.

    .. math:: p(x) \propto \exp(\theta \cdot x)

    Marginals cost O(V^3). Samples are drawn by Wilson's algorithm (Wilson 1996, STOC), all at once;
    where weights are so unequal that it takes very long, from all trees, if these are few.

    Args:
        logits: theta [*batch, E], one for each edge; -inf forces an edge out.
        vertices: V, the number of vertices.
        edges: The E pairs of vertices. By default the complete graph in the order (0, 1), (0, 2),
            ..., (1, 2), ...: then E = V (V - 1) / 2.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: logits are not a floating-point tensor, or vertices is not an int.
        ValueError: The number of edges is not that of logits, an edge is not a pair of two
            vertices or is named twice, or the graph is not connected.

    Example:
        >>> SpanningTree(torch.zeros(3), vertices=3).mean  # each two of three edges are a tree
        tensor([0.6667, 0.6667, 0.6667])
    """

    parameters: ClassVar[dict[str, int]] = {"logits": 1}

    def __init__(
        self,
        logits: Float[Tensor, "*batch E"],
        vertices: int,
        edges: Sequence[tuple[int, int]] | None = None,
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        self.logits = check_natural("logits", logits, 1)
        if isinstance(vertices, bool) or not isinstance(vertices, int):
            raise TypeError(f"vertices must be an int, not {type(vertices).__name__}")
        if vertices < 2:
            raise ValueError(f"a spanning tree has at least 2 vertices, not {vertices}")
        if edges is None:
            edges = list(itertools.combinations(range(vertices), 2))
        self.edges = _checked_edges(edges, vertices)
        if logits.shape[-1] != len(self.edges):
            raise ValueError(
                f"logits have {logits.shape[-1]} entries, but the graph has {len(self.edges)} edges"
            )
        self.vertices = vertices
        self._ends = torch.tensor(self.edges, device=logits.device)
        if not bool(_connected(logits > -torch.inf, self._ends, vertices).all()):
            raise ValueError(
                "the graph is not connected by the edges with logits above -inf, so it has no "
                "spanning tree"
            )
        super().__init__(logits.shape[:-1], logits.shape[-1:], estimator, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of 0 and 1 over the edges that are a spanning tree."""
        return _Trees(self._ends, self.vertices)

    def _score(self, x: Tensor) -> Tensor:
        return torch.where(x != 0, self.logits, 0.0).mul(x).sum(-1)

    def _log_partition(self, *parameters: Tensor) -> Tensor:
        weight = self._weights(parameters[0])
        total = weight.new_zeros(weight.shape[:-2])
        for _ in range(self.vertices - 1):
            star, rest = weight[..., 0, 1:], weight[..., 1:, 1:]
            degree = star.logsumexp(-1)
            total = total + degree
            through = star.unsqueeze(-1) + star.unsqueeze(-2) - degree[..., None, None]
            # A vertex is no neighbour of itself: the diagonal stays as low as it was.
            # Not logaddexp: its second derivative is NaN where one of two is very low.
            weight = torch.stack([rest, through]).logsumexp(0)
            own = torch.eye(weight.shape[-1], dtype=torch.bool, device=weight.device)
            weight = torch.where(own, rest, weight)
        return total

    def _weights(self, theta: Tensor) -> Tensor:
        """Return the log weights as a symmetric matrix [*batch, V, V]."""
        i, j = self._ends.T
        where = torch.full((self.vertices, self.vertices), len(self.edges), device=theta.device)
        where[i, j] = where[j, i] = torch.arange(len(self.edges), device=theta.device)
        return torch.cat([theta, theta.new_full((*theta.shape[:-1], 1), lowest(theta.dtype))], -1)[
            ..., where
        ]

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        """Draw trees by popping the cycles of a random arrow at each vertex but the root."""
        theta, size = self.natural[0], self.vertices
        p = self._weights(theta).double().softmax(-1)
        steps = float(_steps(p).max())
        if steps > _MAX_STEPS:
            if float(self._count()) > math.log(_FEW):
                raise ValueError(
                    f"weights are so unequal that a sampled tree takes some {steps:.0e} steps of "
                    f"Wilson's algorithm, more than {_MAX_STEPS:.0e}, and the trees are too many "
                    "to be enumerated"
                )
            states = self._states()
            weight = self._score(states.reshape(-1, *[1] * len(self.batch_shape), states.shape[1]))
            return states[draw_classes(weight.double().softmax(0).movedim(0, -1), generator, n)]
        p = p.expand(n, *p.shape)
        arrow = draw_classes(p, generator)
        arrow[..., 0] = 0
        while True:
            # After V steps every walk stands at the root or on a cycle; walks fill their cycle.
            stand = arrow
            for _ in range(size.bit_length()):
                stand = stand.gather(-1, stand)
            on_cycle = torch.zeros_like(arrow, dtype=torch.bool).scatter(-1, stand, True)
            on_cycle[..., 0] = False
            if not bool(on_cycle.any()):
                break
            arrow[on_cycle] = draw_classes(p[on_cycle], generator)
        # The arrow of the root means nothing, and no edge has vertex -1.
        arrow[..., 0] = -1
        i, j = self._ends.T
        return ((arrow[..., i] == j) | (arrow[..., j] == i)).to(theta)

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the tree with the largest sum of weights, as x [..., E] (Kruskal's algorithm)."""
        order = weights[0].argsort(-1, descending=True)
        ends = self._ends.to(order.device)[order]
        x = torch.zeros_like(weights[0])
        group = torch.arange(self.vertices, device=order.device).expand(*order.shape[:-1], -1)
        for place in range(len(self.edges)):
            of_ends = group.gather(-1, ends[..., place, :])
            one, other = of_ends[..., :1], of_ends[..., 1:]
            x.scatter_(-1, order[..., place : place + 1], (one != other).to(x))
            group = torch.where(group == other, one, group)
        return x

    def _numbers_per_draw(self) -> int:
        return max(1, self.batch_shape.numel()) * self.vertices**2

    def _states(self) -> Tensor:
        trees = float(torch.exp(self._count()))
        if trees > _MAX_STATES * (1 + 1e-6):
            raise ValueError(
                f"the graph has about {trees:.2g} spanning trees, more than the {_MAX_STATES} that "
                "are enumerated; draw samples instead"
            )
        states = torch.zeros(1, 0, dtype=torch.bool)
        component = torch.arange(self.vertices).unsqueeze(0)
        for i, j in self.edges:
            joins = component[:, i] != component[:, j]
            old, new = component[joins, j], component[joins, i]
            merged = torch.where(component[joins] == old[:, None], new[:, None], component[joins])
            out = torch.cat([states, states.new_zeros(len(states), 1)], 1)
            taken = torch.cat([states[joins], states.new_ones(int(joins.sum()), 1)], 1)
            states, component = torch.cat([out, taken]), torch.cat([component, merged])
            # Whoever cannot be completed by the later edges is left out at once.
            later = self._ends.cpu()[states.shape[1] :]
            able = _joined(component, later, self.vertices)
            states, component = states[able], component[able]
        return states.to(self.logits)

    def _count(self) -> Tensor:
        """Return the logarithm of the number of spanning trees."""
        return self._log_partition(torch.zeros(len(self.edges), dtype=torch.float64))

    def _arguments(self) -> list[str]:
        return [f"vertices={self.vertices}", *super()._arguments()]


def _checked_edges(edges: Sequence[tuple[int, int]], vertices: int) -> list[tuple[int, int]]:
    found = []
    for edge in edges:
        i, j = (int(v) for v in edge)
        if not (0 <= i < vertices and 0 <= j < vertices and i != j):
            raise ValueError(f"edge {edge} is not a pair of two of the vertices 0..{vertices - 1}")
        found.append((min(i, j), max(i, j)))
    if len(set(found)) < len(found):
        twice = next(e for e in found if found.count(e) > 1)
        raise ValueError(f"edge {twice} is named twice; add the weights of parallel edges")
    return found


def _connected(chosen: Tensor, ends: Tensor, vertices: int) -> Tensor:
    """Return whether the chosen edges [..., E] connect all vertices, [...]."""
    i, j = ends.T.to(chosen.device)
    near = torch.eye(vertices, device=chosen.device).expand(*chosen.shape[:-1], -1, -1).clone()
    near[..., i, j] = chosen.float()
    near[..., j, i] = chosen.float()
    for _ in range(vertices.bit_length()):
        near = (near @ near).clamp(max=1.0)
    return (near[..., 0, :] > 0).all(-1)


def _joined(component: Tensor, later: Tensor, vertices: int) -> Tensor:
    """Return whether later edges can join all components of each row, [S]."""
    base = torch.zeros(len(component), vertices, vertices)
    base[torch.arange(len(component))[:, None], torch.arange(vertices), component] = 1.0
    near = (base @ base.transpose(1, 2)).clamp(max=1.0)
    if len(later):
        i, j = later.T
        near[:, i, j] = near[:, j, i] = 1.0
    for _ in range(vertices.bit_length()):
        near = (near @ near).clamp(max=1.0)
    return (near[:, 0, :] > 0).all(-1)


def _steps(p: Tensor) -> Tensor:
    """Return how many arrows Wilson's algorithm draws on average, infinite where it may not end."""
    inner = p[..., 1:, 1:]
    eye = torch.eye(inner.shape[-1], dtype=p.dtype, device=p.device)
    visits, fault = torch.linalg.inv_ex(eye - inner)
    steps = visits.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Rounding may make the number negative where it is very large.
    return torch.where((fault == 0) & (steps >= inner.shape[-1] * 0.5), steps, torch.inf)

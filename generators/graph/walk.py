"""Random walk with restart by forward push, on a graph in compressed sparse rows.

Score of node j for seeds s: the chance that a walker who starts at s, moves along edges in
proportion to their weights, and goes back to s with probability `restart` at each step, is at j
(Tong, Faloutsos & Pan, 2006). Forward push (Andersen, Chung & Lang, 2006) computes it only where
there is mass: every node holds settled mass p and residual r; nodes with r above epsilon times
their strength settle a part of r and pass on the rest. What stays unpushed is at most epsilon per
unit of edge weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

Floats = npt.NDArray[np.float64]
Nodes = npt.NDArray[np.int64]
Distances = npt.NDArray[np.int16]
Row = tuple[Nodes, Floats]

NO_EDGES: Row = np.zeros(0, np.int64), np.zeros(0)
_SMOOTHING = 1e-4


class Graph(Protocol):
    """A weighted, undirected graph of nodes 0 to `size` - 1."""

    @property
    def size(self) -> int:
        """The number of nodes."""
        ...

    @property
    def strength(self) -> Floats:
        """The sum of each node's edge weights, shape [size]."""
        ...

    def edges(self, nodes: Nodes) -> tuple[Nodes, Nodes, Floats]:
        """Return the edges of `nodes` as (position of the node in `nodes`, neighbour, weight)."""
        ...


class Adjacency:
    """A graph as a symmetric sparse matrix in compressed rows, some of them replaced since.

    It never changes, so that readers need no lock; a graph with other rows is another one.
    """

    def __init__(self, size: int, sources: Nodes, targets: Nodes, weights: Floats) -> None:
        """Build from edges given once each; parallel ones add up, loops are dropped."""
        real = sources != targets
        sources, targets, weights = sources[real], targets[real], weights[real]
        rows, columns = np.concatenate([sources, targets]), np.concatenate([targets, sources])
        matrix = coo_array((np.concatenate([weights, weights]), (rows, columns)), (size, size))
        compressed = matrix.tocsr()
        compressed.sum_duplicates()
        self._offsets = compressed.indptr.astype(np.int64)
        self._targets = compressed.indices.astype(np.int64)
        self._weights = compressed.data.astype(np.float64)
        self.strength: Floats = np.asarray(compressed.sum(axis=1), np.float64).reshape(-1)
        self._entries = len(self._targets)
        self._is_replaced = np.zeros(size, np.bool_)
        self._replaced: dict[int, Row] = {}

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.strength)

    @property
    def edge_count(self) -> int:
        """The number of edges."""
        return self._entries // 2

    def row(self, node: int) -> Row:
        """Return the neighbours of a node, ascending, and the weights of the edges to them.

        A node that is not in the graph has none.
        """
        if node in self._replaced:
            return self._replaced[node]
        if node >= self.size:
            return NO_EDGES
        start, end = self._offsets[node : node + 2].tolist()
        return self._targets[start:end], self._weights[start:end]

    def replacing(self, size: int, rows: Mapping[int, Row]) -> Adjacency:
        """Return a graph of `size` >= the present nodes, with other rows for some of them.

        The caller sees to it that the rows are symmetric, ascending and without loops.
        """
        made, new = copy(self), size - self.size
        made._offsets = np.concatenate([self._offsets, np.full(new, self._offsets[-1])])
        made._is_replaced = np.concatenate([self._is_replaced, np.zeros(new, np.bool_)])
        made.strength = np.concatenate([self.strength, np.zeros(new)])
        for node, (targets, weights) in rows.items():
            made._entries += len(targets) - len(made.row(node)[0])
            made._is_replaced[node] = True
            made.strength[node] = weights.sum()
        made._replaced = {**self._replaced, **rows}
        return made

    def edges(self, nodes: Nodes) -> tuple[Nodes, Nodes, Floats]:
        """Return the edges of `nodes` as (position of the node in `nodes`, neighbour, weight)."""
        if not self._replaced:
            return self._compressed(nodes)
        replaced = self._is_replaced[nodes]
        kept, others = np.flatnonzero(~replaced), np.flatnonzero(replaced)
        owners, targets, weights = self._compressed(nodes[kept])
        rows = [self._replaced[node] for node in nodes[others].tolist()]
        return (
            np.concatenate([kept[owners], np.repeat(others, [len(row) for row, _ in rows])]),
            np.concatenate([targets, *(row for row, _ in rows)]),
            np.concatenate([weights, *(row for _, row in rows)]),
        )

    def _compressed(self, nodes: Nodes) -> tuple[Nodes, Nodes, Floats]:
        starts = self._offsets[nodes]
        counts = self._offsets[nodes + 1] - starts
        ends = np.cumsum(counts)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)
        owners = np.repeat(np.arange(len(nodes)), counts)
        return owners, self._targets[at], self._weights[at]


@dataclass(frozen=True, slots=True)
class Walk:
    """Where the walker is."""

    mass: Floats
    """The probability of being at each node, shape [size]; sums to at most 1."""
    distance: Distances
    """Steps from the nearest seed, shape [size]; -1 for nodes not reached."""
    nodes: Nodes
    """The nodes reached, ascending."""


def walk(
    graph: Graph,
    seeds: Nodes,
    weights: Floats,
    *,
    restart: float,
    epsilon: float,
    max_rounds: int,
) -> Walk:
    """Return the walk from `seeds`, chosen in proportion to `weights` > 0."""
    residual = np.bincount(seeds, weights / weights.sum(), minlength=graph.size)
    settled = np.zeros(graph.size)
    distance = np.full(graph.size, -1, np.int16)
    distance[seeds] = 0
    strength = graph.strength
    # Seeds are always walked on from, however many edges they have.
    active = np.unique(seeds[strength[seeds] > 0])
    for step in range(1, max_rounds + 1):
        if not len(active):
            break
        pushed = residual[active]
        settled[active] += restart * pushed
        residual[active] = 0.0
        owners, targets, edge_weights = graph.edges(active)
        share = (1 - restart) * pushed / strength[active]
        np.add.at(residual, targets, share[owners] * edge_weights)
        distance[targets[distance[targets] < 0]] = step
        # Only what was passed something can have become worth walking on from.
        active = np.unique(targets[residual[targets] > epsilon * strength[targets]])
    nodes = np.flatnonzero(distance >= 0)
    # A residual would settle this much at its next push, and often is all that a leaf has.
    settled[nodes] += restart * residual[nodes]
    return Walk(settled, distance, nodes)


def soft_and(scores: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return the weighted geometric mean of scores in [0, 1], smoothed so that 0 is not a veto.

    What is near all seed groups comes before what is near one, however near (compare the
    K-softAND of Tong & Faloutsos, 2006). Zero where all scores are zero.
    """
    if len(scores) == 1:
        return scores[0]
    total = sum(weights)
    logs = np.zeros_like(scores[0])
    for score, weight in zip(scores, weights, strict=True):
        logs += weight / total * np.log(score + _SMOOTHING)
    reached = np.any(np.stack(scores) > 0, axis=0)
    return np.where(reached, np.maximum(np.exp(logs) - _SMOOTHING, 0.0), 0.0)


def predecessors(graph: Graph, nodes: Nodes, reached: Walk) -> Nodes:
    """Return, per node, the neighbour one step nearer to the seeds that sent it the most.

    -1 for seeds and for nodes not reached.
    """
    owners, targets, weights = graph.edges(nodes)
    near = reached.distance[targets] == reached.distance[nodes][owners] - 1
    near &= reached.distance[nodes][owners] > 0
    owners, targets = owners[near], targets[near]
    flow = reached.mass[targets] * weights[near] / graph.strength[targets]
    order = np.lexsort((targets, -flow, owners))
    found, first = np.unique(owners[order], return_index=True)
    best = np.full(len(nodes), -1, np.int64)
    best[found] = targets[order][first]
    return best

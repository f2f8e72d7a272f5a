"""Why an item was reached: the shortest path from a seed that carries the most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from forage.catalog.item import Item
from forage.catalog.view import CatalogView
from generators.graph.nodes import NodeTable
from generators.graph.walk import Graph, Nodes, Walk, predecessors

_LONGEST = 4
_ENGAGED = "chosen with"
_CHOSEN = "chosen for"


class PathFinder:
    """Draws paths such as `Tom Hanks —cast→ Cast Away`."""

    def __init__(self, view: CatalogView, nodes: NodeTable, title: str) -> None:
        """`title` is the attribute that names an item."""
        self._view = view
        self._nodes = nodes
        self._title = title

    def paths(self, graph: Graph, walks: Sequence[Walk], nodes: Sequence[int]) -> list[str]:
        """Return one path per node: of the walk that is nearest, then of the heaviest."""
        if not nodes:
            return []
        wanted = np.array(nodes, np.int64)
        distance = np.stack([w.distance[wanted] for w in walks])
        distance = np.where(distance < 0, np.iinfo(distance.dtype).max, distance)
        mass = np.stack([w.mass[wanted] for w in walks])
        nearest = np.lexsort((-mass, distance), axis=0)[0]
        drawn = [""] * len(nodes)
        labels: dict[tuple[int, int], str] = {}
        for number, reached in enumerate(walks):
            positions = np.flatnonzero(nearest == number)
            for position, chain in zip(
                positions, _chains(graph, reached, wanted[positions]), strict=True
            ):
                drawn[position] = self._draw(chain, labels)
        return drawn

    def _draw(self, chain: Sequence[int], labels: dict[tuple[int, int], str]) -> str:
        text = self._name(chain[0])
        if len(chain) == 1:
            return f"{text} (named in the query)"
        for node, other in pairwise(chain):
            label = labels.get((node, other))
            if label is None:
                label = labels[node, other] = self._label(node, other)
            text += f" —{label}→ {self._name(other)}"
        return text

    def _name(self, node: int) -> str:
        key = self._nodes.key(node)
        item = self._view.get(key)
        if item is None:
            return key.removeprefix("\0")
        return next(iter(item.texts(self._title)), key)

    def _label(self, node: int, other: int) -> str:
        here, there = self._nodes.key(node), self._nodes.key(other)
        for owner, named in ((there, here), (here, there)):
            attribute = _relation(self._view.get(owner), named)
            if attribute:
                return attribute
        return _CHOSEN if here.startswith("\0") or there.startswith("\0") else _ENGAGED


def _relation(item: Item | None, named: str) -> str:
    if item is not None:
        for attribute, value in item.references():
            if value.item_id == named:
                return attribute
    return ""


def _chains(graph: Graph, reached: Walk, nodes: Nodes) -> list[list[int]]:
    """Return, per node, the nodes from a seed to it; the nearest part if that is far."""
    before: dict[int, int] = {}
    heads = np.unique(nodes)
    for _ in range(_LONGEST):
        heads = heads[reached.distance[heads] > 0]
        if not len(heads):
            break
        found = predecessors(graph, heads, reached)
        before.update(zip(heads.tolist(), found.tolist(), strict=True))
        heads = np.setdiff1d(found[found >= 0], np.fromiter(before, np.int64, len(before)))
    chains = []
    for node in nodes.tolist():
        chain = [node]
        while before.get(chain[0], -1) >= 0:
            chain.insert(0, before[chain[0]])
        chains.append(chain)
    return chains

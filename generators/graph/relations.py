"""The catalogue's part of the graph: an edge wherever a value of one item names another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns, ragged, spans
from forage.catalog.item import Item
from generators.graph.nodes import NodeTable
from generators.graph.walk import NO_EDGES, Adjacency, Floats, Row

ScalarT = TypeVar("ScalarT", bound=np.generic)
_ENTRIES_A_ROW = 250
"""Entries that are built anew in the time that replacing one row takes, as measured."""


@dataclass(frozen=True, slots=True)
class RelationSnapshot:
    """The relations at one moment; never changed, so that readers need no lock."""

    adjacency: Adjacency
    view_index: npt.NDArray[np.int64]
    """Per node the item's index in the catalogue view; -1 if it is no item, shape [size]."""
    popularity: Floats
    """Per node, in [0, 1], shape [size]."""


class RelationIndex:
    """Keeps the edges of every item, and of every node that they touch.

    A change replaces the rows of the nodes that it touches, in a millisecond. The compressed graph
    is built anew, which takes 0.2 s for 700,000 edges, when that has become as dear.
    """

    def __init__(
        self, nodes: NodeTable, edge_weights: Mapping[str, float], popularity: str | None
    ) -> None:
        """`popularity` names the attribute, if the schema has one."""
        self._nodes = nodes
        self._edge_weights = edge_weights
        self._popularity_name = popularity
        self._rows: dict[int, Row] = {}
        self._view_index: dict[int, int] = {}
        self._popularity: dict[int, float] = {}
        self._changed: dict[int, set[int]] | None = {}
        """Per node whose edges changed since the snapshot, the nodes to which they did.

        None if they are so many that the graph is better built anew.
        """
        self._replaced: set[int] = set()
        """Nodes of items that were replaced since the snapshot."""
        self._corrections = 0
        """Rows replaced since the graph was built."""
        self.snapshot = self._built()

    def replace(self, index: int, old: Item | None, new: Item | None) -> None:
        """Take in that the item at the view's `index` was `old` and is `new`."""
        known = new or old
        if known is None:
            return
        node = self._nodes.number(known.item_id)
        self._replaced.add(node)
        self._note(node)
        self._rows.pop(node, None)
        self._popularity.pop(node, None)
        self._view_index[node] = index
        if new is None:
            return
        edges = [
            (self._nodes.number(value.item_id), value.weight * self._edge_weights.get(name, 1.0))
            for name, value in new.references()
        ]
        edges = [edge for edge in edges if edge[1] > 0]
        if edges:
            targets, weights = zip(*edges, strict=True)
            self._rows[node] = np.array(targets, np.int64), np.array(weights, np.float64)
            self._note(node)
        if self._popularity_name is not None:
            self._popularity[node] = new.number(self._popularity_name) or 0.0

    def commit(self) -> None:
        """Make the changes visible."""
        if self._changed is None:
            self.snapshot = self._built()
        elif self._replaced:
            self.snapshot = self._corrected(self._changed)
            self._corrections += len(self._changed)
            self._changed, self._replaced = {}, set()

    def _note(self, node: int) -> None:
        """Note the edges that the node's item has, at both of their ends."""
        if self._changed is None:
            return
        for other in self._rows.get(node, NO_EDGES)[0].tolist():
            if other != node:
                self._changed.setdefault(node, set()).add(other)
                self._changed.setdefault(other, set()).add(node)
        corrections = self._corrections + len(self._changed)
        if corrections * _ENTRIES_A_ROW > 2 * self.snapshot.adjacency.edge_count:
            self._changed = None

    def dump(self) -> Columns:
        """Return everything as columns; keys stand for nodes, whose numbers are the process's."""
        used = dict.fromkeys(self._view_index)
        for targets, _ in self._rows.values():
            used.update(dict.fromkeys(targets.tolist()))
        nodes = np.fromiter(used, np.int64, len(used))
        place = np.zeros(len(self._nodes), np.int64)
        place[nodes] = np.arange(len(nodes))
        near = ragged([targets for targets, _ in self._rows.values()], np.int64)
        worth = ragged([weights for _, weights in self._rows.values()], np.float64)
        return Columns(
            {"keys": [self._nodes.key(node) for node in used]},
            {
                "rows": place[np.fromiter(self._rows, np.int64, len(self._rows))],
                "lengths": near["lengths"],
                "targets": place[near["content"]],
                "weights": worth["content"],
                "items": place[np.fromiter(self._view_index, np.int64, len(self._view_index))],
                "view_index": np.array(list(self._view_index.values()), np.int64),
                "popular": place[np.fromiter(self._popularity, np.int64, len(self._popularity))],
                "popularity": np.array(list(self._popularity.values()), np.float64),
            },
        )

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned."""
        arrays = columns.arrays
        keys = columns.names["keys"]
        nodes = np.fromiter(map(self._nodes.number, keys), np.int64, len(keys))
        targets, weights = nodes[arrays["targets"]], arrays["weights"].copy()
        self._rows = {
            node: (targets[start:end], weights[start:end])
            for node, (start, end) in zip(
                nodes[arrays["rows"]].tolist(), spans(arrays["lengths"]), strict=True
            )
        }
        self._view_index = _entries(nodes[arrays["items"]], arrays["view_index"])
        self._popularity = _entries(nodes[arrays["popular"]], arrays["popularity"])
        self.snapshot = self._built()

    def _corrected(self, changed: Mapping[int, set[int]]) -> RelationSnapshot:
        """Return the snapshot with the rows and items that have changed."""
        before, size = self.snapshot, len(self._nodes)
        new = size - before.adjacency.size
        view_index = np.concatenate([before.view_index, np.full(new, -1, np.int64)])
        popularity = np.concatenate([before.popularity, np.zeros(new)])
        for node in self._replaced:
            view_index[node] = self._view_index[node]
            popularity[node] = self._popularity.get(node, 0.0)
        rows = {node: self._row(node, others) for node, others in changed.items()}
        return RelationSnapshot(before.adjacency.replacing(size, rows), view_index, popularity)

    def _row(self, node: int, others: set[int]) -> Row:
        """Return the node's row as it is now; only edges to `others` have changed."""
        targets, weights = self.snapshot.adjacency.row(node)
        changed = np.array(sorted(others), np.int64)
        now = np.array([self._between(node, other) for other in changed.tolist()])
        kept = ~np.isin(targets, changed, assume_unique=True)
        targets, weights = targets[kept], weights[kept]
        changed, now = changed[now > 0], now[now > 0]
        at = np.searchsorted(targets, changed)
        return np.insert(targets, at, changed), np.insert(weights, at, now)

    def _between(self, node: int, other: int) -> float:
        """Return the weight of all edges between two nodes, whichever of the items has them."""
        total = 0.0
        for source, target in ((node, other), (other, node)):
            targets, weights = self._rows.get(source, NO_EDGES)
            total += float(weights[targets == target].sum())
        return total

    def _built(self) -> RelationSnapshot:
        self._changed, self._replaced, self._corrections = {}, set(), 0
        size = len(self._nodes)
        counts = [len(targets) for targets, _ in self._rows.values()]
        sources = np.repeat(np.fromiter(self._rows, np.int64, len(self._rows)), counts)
        targets = np.concatenate([np.empty(0, np.int64), *(t for t, _ in self._rows.values())])
        weights = np.concatenate([np.empty(0), *(w for _, w in self._rows.values())])
        return RelationSnapshot(
            adjacency=Adjacency(size, sources, targets, weights),
            view_index=_scattered(self._view_index, np.full(size, -1, np.int64)),
            popularity=_scattered(self._popularity, np.zeros(size)),
        )


def _entries(nodes: npt.NDArray[np.int64], values: npt.NDArray[ScalarT]) -> dict[int, Any]:
    return dict(zip(nodes.tolist(), values.tolist(), strict=True))


def _scattered(values: Mapping[int, float], target: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
    """Write each value at its node's place in `target`, and return `target`."""
    nodes = np.fromiter(values, np.int64, len(values))
    target[nodes] = np.fromiter(values.values(), target.dtype, len(values))
    return target

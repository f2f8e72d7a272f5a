"""The users' part of the graph: what was chosen together, and what was chosen for a query.

Edges decay by wall clock. With forward decay (Cormode et al., 2009) an edge of time t is stored
as weight · 2^((t − landmark) / half-life), so that nothing has to be touched as time passes: a
reader multiplies all edges by one factor for its moment.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forage.log.interactions import Engagement, Impression
from generators.engagement_projection import Arrays, Gain, Names
from generators.graph.nodes import NodeTable, query_key
from generators.graph.settings import CoEngagementSettings
from generators.graph.walk import Floats, Nodes

_SECONDS_PER_DAY = 86_400.0
_LARGEST_EXPONENT = 500
_PRUNED = 0.9


class CoEngagement:
    """Edges between items that one user chose within a window, and from queries to choices.

    Not locked: readers hold the lock of the projection that writes.
    """

    def __init__(self, nodes: NodeTable, settings: CoEngagementSettings) -> None:
        self._nodes = nodes
        self._settings = settings
        self._half_life_s = settings.half_life_days * _SECONDS_PER_DAY
        self._landmark: float | None = None
        self._latest = -math.inf
        self._edges: dict[int, dict[int, float]] = {}
        self._count = 0
        self._windows: OrderedDict[str, list[tuple[float, str]]] = OrderedDict()
        self._rows: dict[int, tuple[Nodes, Floats]] = {}
        self._strength = np.zeros(1024)

    def __len__(self) -> int:
        """Return the number of edges."""
        return self._count

    def prepare(self, events: Sequence[Impression | Engagement]) -> None:
        """Do nothing: learning an edge is quick."""

    def expose(self, shown: Impression, examined: Mapping[str, float]) -> None:
        """Do nothing: being shown is no relation."""

    def engage(self, engagement: Engagement, gain: Gain, prepared: None) -> None:
        """Add what a success is worth to the edges it makes; refusals make none."""
        if gain.success <= 0:
            return
        weight = gain.success * self._boost(engagement.time)
        query = engagement.decision.query
        if query.normalized and self._settings.query_weight:
            key = query_key(query.normalized)
            self._add(key, engagement.item_id, weight * self._settings.query_weight)
        if query.user.user_id and self._settings.item_weight:
            for other in self._window(query.user.user_id, engagement):
                self._add(other, engagement.item_id, weight * self._settings.item_weight)
        if self._count > self._settings.max_edges:
            self._prune()

    def factor(self, time: float) -> float:
        """Return by what to multiply the stored weights at `time`, not before the last event."""
        if self._landmark is None:
            return 1.0
        age = max(time, self._latest) - self._landmark
        return float(2.0 ** (-age / self._half_life_s))

    def strength(self, size: int) -> Floats:
        """Return the sum of each node's stored weights, shape [size]."""
        self._grow(size)
        return self._strength[:size]

    def edges(self, nodes: Nodes) -> tuple[Nodes, Nodes, Floats]:
        """Return the edges of `nodes` as (position of the node in `nodes`, neighbour, weight)."""
        touched = np.flatnonzero(self.strength(len(self._nodes))[nodes])
        rows = [self._row(int(nodes[position])) for position in touched]
        counts = [len(targets) for targets, _ in rows]
        return (
            np.repeat(touched, counts),
            np.concatenate([np.empty(0, np.int64), *(targets for targets, _ in rows)]),
            np.concatenate([np.empty(0), *(weights for _, weights in rows)]),
        )

    def dump(self) -> tuple[Names, Arrays]:
        """Return the state; keys stand for nodes, whose numbers do not outlive the process."""
        pairs = [
            (self._nodes.key(a), self._nodes.key(b), w)
            for a, row in self._edges.items()
            for b, w in row.items()
            if a < b
        ]
        names = {
            "pairs": [pair[:2] for pair in pairs],
            "windows": list(self._windows.items()),
            "landmark": self._landmark,
            "latest": None if self._landmark is None else self._latest,
        }
        return names, {"weights": np.array([pair[2] for pair in pairs])}

    def load(self, names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the state by what `dump` returned."""
        self._edges, self._rows, self._count = {}, {}, 0
        self._strength[:] = 0.0
        for (a, b), weight in zip(names["pairs"], arrays["weights"], strict=True):
            self._add(a, b, float(weight))
        self._windows = OrderedDict(
            (user, [(float(time), item) for time, item in window])
            for user, window in names["windows"]
        )
        self._landmark = names["landmark"]
        self._latest = -math.inf if names["latest"] is None else names["latest"]

    def _window(self, user_id: str, engagement: Engagement) -> list[str]:
        """Return what else the user chose lately, and remember this."""
        settings = self._settings
        window = [
            (time, item)
            for time, item in self._windows.pop(user_id, [])
            if abs(engagement.time - time) <= settings.window_s and item != engagement.item_id
        ]
        others = [item for _, item in window]
        kept = [*window, (engagement.time, engagement.item_id)][-settings.window_items :]
        self._windows[user_id] = kept
        while len(self._windows) > settings.max_users:
            self._windows.popitem(last=False)
        return others

    def _boost(self, time: float) -> float:
        if self._landmark is None:
            self._landmark = time
        self._latest = max(self._latest, time)
        exponent = (time - self._landmark) / self._half_life_s
        if exponent > _LARGEST_EXPONENT:
            # A whole power of two changes exponents only, so replay stays exact.
            shift = int(exponent)
            self._landmark += shift * self._half_life_s
            self._rescale(2.0**-shift)
            exponent = (time - self._landmark) / self._half_life_s
        return float(2.0 ** max(exponent, -_LARGEST_EXPONENT))

    def _rescale(self, by: float) -> None:
        for row in self._edges.values():
            for other in row:
                row[other] *= by
        self._forget_rows()

    def _prune(self) -> None:
        """Drop the weakest edges; equal ones by key, so that replay does the same."""
        key = self._nodes.key
        edges = [(a, b, w) for a, row in self._edges.items() for b, w in row.items() if a < b]
        edges.sort(key=lambda edge: (edge[2], *sorted((key(edge[0]), key(edge[1])))))
        for a, b, _ in edges[: len(edges) - int(self._settings.max_edges * _PRUNED)]:
            self._remove(a, b)
            self._remove(b, a)
            self._count -= 1
        self._forget_rows()

    def _remove(self, node: int, other: int) -> None:
        del self._edges[node][other]
        if not self._edges[node]:
            del self._edges[node]

    def _forget_rows(self) -> None:
        self._rows.clear()
        self._strength[:] = 0.0
        for node in self._edges:
            self._sum(node)

    def _add(self, key: str, other_key: str, weight: float) -> None:
        if key == other_key:
            return
        a, b = self._nodes.number(key), self._nodes.number(other_key)
        self._count += b not in self._edges.get(a, ())
        for node, other in ((a, b), (b, a)):
            row = self._edges.setdefault(node, {})
            row[other] = row.get(other, 0.0) + weight
            self._rows.pop(node, None)
        self._grow(max(a, b) + 1)
        self._strength[a] += weight
        self._strength[b] += weight

    def _row(self, node: int) -> tuple[Nodes, Floats]:
        row = self._rows.get(node)
        if row is None:
            entries = sorted(self._edges[node].items())
            row = (
                np.array([other for other, _ in entries], np.int64),
                np.array([weight for _, weight in entries]),
            )
            self._rows[node] = row
        return row

    def _sum(self, node: int) -> None:
        self._strength[node] = math.fsum(self._edges[node].values())

    def _grow(self, size: int) -> None:
        if size > len(self._strength):
            larger = np.zeros(max(size, 2 * len(self._strength)))
            larger[: len(self._strength)] = self._strength
            self._strength = larger

"""Where the walks of one query start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forage.retrieval import Query, Slot
from generators.graph.nodes import NodeTable, query_key
from generators.graph.settings import GraphSettings
from generators.graph.walk import Floats, Nodes


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Seeds that are walked from together: alternatives of each other."""

    nodes: Nodes
    weights: Floats
    weight: float
    """The group's weight in the score."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """All seeds of a query."""

    named: tuple[SeedGroup, ...]
    """One group per thing the query names; an item should be near all of them."""
    related: tuple[SeedGroup, ...]
    """Past choices for the query, example items, history; each adds to the score."""
    together: SeedGroup | None
    """Example items and history; what others chose together with them adds to the score."""
    excluded: frozenset[int]
    """Nodes that must not be returned: examples, and history that nobody asked for."""

    def __bool__(self) -> bool:
        """Return whether there is anywhere to start."""
        return bool(self.groups)

    @property
    def groups(self) -> tuple[SeedGroup, ...]:
        """All groups: the named, the related, and what is chosen together if there is any."""
        return (*self.named, *self.related, *((self.together,) if self.together else ()))

    @property
    def size(self) -> int:
        """The least number of nodes of a graph that has all seeds."""
        return 1 + max(int(group.nodes.max()) for group in self.groups)


def seeds_of(query: Query, settings: GraphSettings, nodes: NodeTable) -> Seeds:
    """Return the seeds; unknown items are left out."""
    named = _named(query, nodes)
    likes = _known(query.like_item_ids[: settings.history_items], nodes)
    recent = _known(query.user.recent_item_ids[: settings.history_items], nodes)
    liked = {node: 1.0 for node in likes}
    decayed = {node: settings.history_decay**age for age, node in enumerate(recent)}
    groups = [_group(liked, settings.like_weight), _group(decayed, settings.history_weight)]
    remembered = nodes.find(query_key(query.normalized)) if query.normalized else None
    if remembered is not None and settings.query_weight:
        groups.append(_group({remembered: 1.0}, settings.query_weight))
    together = settings.together_weight
    if named:
        together = min(together, settings.history_weight)
    asked = {int(node) for group in named for node in group.nodes}
    examples = set(_known(query.like_item_ids, nodes))
    seen = set(_known(query.user.recent_item_ids, nodes)) - asked
    return Seeds(
        named=named,
        related=tuple(group for group in groups if group is not None),
        together=_group(decayed | liked, together),
        excluded=frozenset(examples | (seen if not named else set())),
    )


def _named(query: Query, nodes: NodeTable) -> tuple[SeedGroup, ...]:
    """Group slots whose words overlap: they are readings of the same thing."""
    found: list[tuple[Slot, int, float]] = []
    for reading in query.interpretations:
        for slot in reading.slots:
            node = nodes.find(slot.item_id) if slot.item_id else None
            if node is not None:
                found.append((slot, node, slot.confidence * reading.confidence))
    found.sort(key=lambda entry: (entry[0].start, entry[0].end, entry[0].item_id))
    groups: list[dict[int, float]] = []
    end = -1
    for slot, node, weight in found:
        if not groups or slot.start >= max(end, 1) or slot.start >= slot.end:
            groups.append({})
        end = max(end, slot.end)
        groups[-1][node] = groups[-1].get(node, 0.0) + weight
    made = [_group(group, min(1.0, sum(group.values()))) for group in groups]
    return tuple(group for group in made if group is not None)


def _known(item_ids: Sequence[str], nodes: NodeTable) -> list[int]:
    found = (nodes.find(item_id) for item_id in dict.fromkeys(item_ids) if item_id)
    return [node for node in found if node is not None]


def _group(weights: dict[int, float], weight: float) -> SeedGroup | None:
    positive = {node: w for node, w in weights.items() if w > 0}
    if not positive or weight <= 0:
        return None
    return SeedGroup(np.array(list(positive), np.int64), np.array(list(positive.values())), weight)

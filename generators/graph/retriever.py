"""The graph retriever: seeds from the query, walks from them, the nearest items and the paths."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.schema import Schema
from forage.catalog.view import CatalogView, Mask
from forage.log import EventLog, Projection
from forage.retrieval import Deadline, Hit, Query, Reason, Retrieval
from forage.services import Runtime
from generators.catalog_projection import CatalogProjection
from generators.engagement_projection import EngagementProjection
from generators.graph.engagement import CoEngagement
from generators.graph.nodes import NodeTable
from generators.graph.paths import PathFinder
from generators.graph.relations import RelationIndex, RelationSnapshot
from generators.graph.seeds import SeedGroup, Seeds, seeds_of
from generators.graph.settings import GraphSettings
from generators.graph.walk import Floats, Nodes, Walk, soft_and, walk

_DIGITS = 9
_LEAST_STRENGTH = 1e-12


@dataclass(frozen=True, slots=True)
class CombinedGraph:
    """Catalogue relations and engagement as one graph, as of one moment.

    Valid while the engagement lock is held.
    """

    relations: RelationSnapshot
    engagement: CoEngagement
    factor: float
    """What the engagement's stored weights are worth at this moment."""
    size: int
    strength: Floats

    @classmethod
    def at(
        cls, time: float, relations: RelationSnapshot, engagement: CoEngagement, size: int
    ) -> CombinedGraph:
        """Return the graph at `time`, in seconds since the epoch."""
        factor = engagement.factor(time)
        strength = engagement.strength(size) * factor
        strength[: relations.adjacency.size] += relations.adjacency.strength
        return cls(relations, engagement, factor, size, strength)

    def edges(self, nodes: Nodes) -> tuple[Nodes, Nodes, Floats]:
        """Return the edges of `nodes` as (position of the node in `nodes`, neighbour, weight)."""
        learned_owners, learned, learned_weights = self.engagement.edges(nodes)
        old = np.flatnonzero(nodes < self.relations.adjacency.size)
        owners, targets, weights = self.relations.adjacency.edges(nodes[old])
        if not len(learned):
            return old[owners], targets, weights
        return (
            np.concatenate([old[owners], learned_owners]),
            np.concatenate([targets, learned]),
            np.concatenate([weights, learned_weights * self.factor]),
        )


class GraphRetriever:
    """Finds items by random walks with restart.

    Each thing that the query names is walked from on its own, and the walks are joined by a soft
    AND: what is near both of two people comes first. Past choices for the query, example items
    and the user's history share one more walk, which adds to that. So does what others chose
    together with examples and history, by plain counts: hubs are not discounted there, for how
    often people choose a thing says that they like it (docs/adr/0015-chosen-together.md).
    """

    name = "graph"

    def __init__(self, settings: GraphSettings, schema: Schema, log: EventLog) -> None:
        """Make an empty graph; its projections fill it."""
        self._settings = settings
        self._view = CatalogView(schema)
        self._nodes = NodeTable()
        self._relations = RelationIndex(self._nodes, settings.edge_weights, schema.popularity)
        self._engagement = CoEngagement(self._nodes, settings.engagement)
        self._lock = threading.Lock()
        self._paths = PathFinder(self._view, self._nodes, schema.title)
        self._catalog_projection = CatalogProjection(
            "graph.catalog",
            log,
            self._view,
            self._relations,
            threading.Lock(),
            CatalogCheckpoint(
                settings.data_dir / "graph", log, schema, ["graph", settings.edge_weights]
            ),
        )
        self._engagement_projection = EngagementProjection(
            "graph.engagement",
            log,
            self._engagement,
            self._lock,
            folder=settings.data_dir / "graph",
            feedback=settings.feedback,
            rules=settings.engagement.model_dump(),
        )

    @classmethod
    def open(cls, settings: GraphSettings, runtime: Runtime) -> GraphRetriever:
        """Return the retriever for a service."""
        return cls(settings, runtime.schema, runtime.log)

    @property
    def projections(self) -> Sequence[Projection]:
        """The catalogue's and the engagements' projection."""
        return self._catalog_projection, self._engagement_projection

    def entries(self) -> dict[str, int]:
        """Return the number of edges of both parts."""
        return {
            "graph.catalog": self._relations.snapshot.adjacency.edge_count,
            "graph.engagement": len(self._engagement),
        }

    def close(self) -> None:
        """Do nothing: there is no engine."""

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return the items nearest to the seeds that satisfy the filters."""
        deadline.check()
        mask = self._view.filter(query.filters)
        agreement = self._view.agreement(query.interpretations)
        seeds = seeds_of(query, self._settings, self._nodes)
        if not seeds:
            return Retrieval(())
        relations = self._relations.snapshot
        with self._lock:
            graph = CombinedGraph.at(
                query.time, relations, self._engagement, max(len(self._nodes), seeds.size)
            )
            walks = list(self._walks(graph, seeds, deadline))
            nodes = _reached(walks)
            scores = self._joined(graph, seeds, walks, nodes)
            if agreement is not None:
                _agree(scores, nodes, relations, agreement)
            chosen = self._best(nodes, scores, relations, mask, seeds, limit)
            deadline.check()
            paths = (
                self._paths.paths(graph, walks, [node for node, _, _ in chosen])
                if explain
                else [""] * len(chosen)
            )
        hits = [
            Hit(item_id, score, (Reason("path", path, score),) if path else ())
            for (_, item_id, score), path in zip(chosen, paths, strict=True)
        ]
        return Retrieval(tuple(hits), scanned=int(np.count_nonzero(scores)))

    def _walks(self, graph: CombinedGraph, seeds: Seeds, deadline: Deadline) -> Iterator[Walk]:
        settings = self._settings.walk
        for group in (*seeds.named, *seeds.related):
            deadline.check()
            yield walk(
                graph,
                group.nodes,
                group.weights,
                restart=settings.restart,
                epsilon=settings.epsilon,
                max_rounds=settings.max_rounds,
            )
        if seeds.together is not None:
            yield _chosen_together(graph, seeds.together)

    def _joined(
        self, graph: CombinedGraph, seeds: Seeds, walks: Sequence[Walk], nodes: Nodes
    ) -> Floats:
        """Return the score of each of `nodes`: the soft AND of the named, plus all the others."""
        discount = _discount(graph.strength[nodes], self._settings.walk.hub_discount)
        parts = []
        for group, reached in zip(seeds.groups, walks, strict=True):
            part = reached.mass[nodes] * (1.0 if group is seeds.together else discount)
            # Relative to the best that is not itself a seed: a hub leaves little to each.
            others = part.copy()
            others[np.searchsorted(nodes, group.nodes)] = 0.0
            parts.append(np.minimum(part / (others.max() or part.max() or 1.0), 1.0))
        total = np.zeros(len(nodes))
        named = parts[: len(seeds.named)]
        if named:
            weights = [group.weight for group in seeds.named]
            total += max(weights) * soft_and(named, weights)
        for group, part in zip(seeds.groups[len(named) :], parts[len(named) :], strict=True):
            total += group.weight * part
        popularity = graph.relations.popularity
        known = np.searchsorted(nodes, len(popularity))
        total[:known] *= 1 + self._settings.popularity_weight * popularity[nodes[:known]]
        return total

    def _best(
        self,
        nodes: Nodes,
        scores: Floats,
        relations: RelationSnapshot,
        mask: Mask,
        seeds: Seeds,
        limit: int,
    ) -> list[tuple[int, str, float]]:
        """Return (node, item id, score) of the best of `nodes` that may be returned."""
        nodes = nodes[: np.searchsorted(nodes, relations.adjacency.size)]
        index = relations.view_index[nodes]
        allowed = (scores[: len(nodes)] > 0) & (index >= 0) & (index < len(mask))
        allowed[allowed] = mask[index[allowed]]
        if seeds.excluded:
            allowed &= ~np.isin(nodes, list(seeds.excluded))
        places = np.flatnonzero(allowed)
        # Rounded, so that the order in which edges were added cannot decide between equals.
        rounded = np.round(scores[places], _DIGITS)
        if len(places) > limit:
            least = np.partition(rounded, len(places) - limit)[len(places) - limit]
            places, rounded = places[rounded >= least], rounded[rounded >= least]
        key = self._nodes.key
        found = [
            (node, key(node), score)
            for node, score in zip(nodes[places].tolist(), rounded.tolist(), strict=True)
        ]
        return sorted(found, key=lambda entry: (-entry[2], entry[1]))[:limit]


def _chosen_together(graph: CombinedGraph, group: SeedGroup) -> Walk:
    """Return one step from the seeds along what was chosen together, by the edges' weights.

    Mass is the share of all those edges' weight; there is none where nothing was learned yet.
    """
    owners, targets, weights = graph.engagement.edges(group.nodes)
    mass = np.zeros(graph.size)
    np.add.at(mass, targets, weights * group.weights[owners])
    mass /= mass.sum() or 1.0
    distance = np.where(mass > 0, 1, -1).astype(np.int16)
    distance[group.nodes] = 0
    return Walk(mass, distance, np.flatnonzero(distance >= 0))


def _agree(scores: Floats, nodes: Nodes, relations: RelationSnapshot, agreement: Floats) -> None:
    """Multiply the scores of `nodes` that are items by how well they agree with named years."""
    known = np.searchsorted(nodes, len(relations.view_index))
    index = relations.view_index[nodes[:known]]
    places = np.flatnonzero((index >= 0) & (index < len(agreement)))
    scores[places] *= agreement[index[places]]


def _reached(walks: Sequence[Walk]) -> Nodes:
    """Return the nodes that any of the walks reached, ascending."""
    if len(walks) == 1:
        return walks[0].nodes
    return np.flatnonzero(np.any([reached.distance >= 0 for reached in walks], axis=0))


def _discount(strength: Floats, power: float) -> Floats:
    """Return strength^-power; the square root is an order of magnitude quicker than a power."""
    strength = np.maximum(strength, _LEAST_STRENGTH)
    return 1.0 / np.sqrt(strength) if power == 0.5 else strength**-power

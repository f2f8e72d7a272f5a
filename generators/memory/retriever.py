"""Finds what worked for this query before, or is predicted to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.view import CatalogView
from forage.log import Projection
from forage.retrieval import Deadline, Hit, Query, Reason, Retrieval
from forage.services import Runtime
from forage.vector_cache import VectorCache
from generators.catalog_projection import CatalogProjection
from generators.engagement_projection import EngagementProjection
from generators.memory.backoff import Backoff
from generators.memory.catalog_index import MemoryCatalogIndex
from generators.memory.engagement import MemoryLearner
from generators.memory.neighbours import QueryNeighbours
from generators.memory.settings import MemorySettings
from generators.sparse_set import SparseSet

if TYPE_CHECKING:
    from forage.encoder import CachedEncoder


class MemoryRetriever:
    """Query to entity (Q2E): Beta posteriors of items per query, with back-off for rare queries.

    A score is the posterior mean chance that the user, looking at the item, wants it.
    """

    def __init__(self, settings: MemorySettings, runtime: Runtime) -> None:
        self._settings = settings
        self._schema = runtime.schema
        self._lock = threading.Lock()
        self._view = CatalogView(runtime.schema)
        self._index = MemoryCatalogIndex(runtime.schema)
        self._rows = SparseSet()
        self._cache = VectorCache(settings.data_dir / "embeddings.db")
        self._neighbours = (
            QueryNeighbours(self._open_encoder, limit=settings.neighbour_queries)
            if settings.neighbours
            else None
        )
        self._learner = MemoryLearner(settings, self._neighbours)
        self._projections: tuple[Projection, ...] = (
            CatalogProjection(
                "memory.catalog",
                runtime.log,
                self._view,
                self._index,
                self._lock,
                CatalogCheckpoint(
                    settings.data_dir / "memory", runtime.log, runtime.schema, "memory"
                ),
            ),
            EngagementProjection(
                "memory.engagement",
                runtime.log,
                self._learner,
                self._lock,
                folder=settings.data_dir / "memory",
                feedback=settings.feedback,
                rules=settings.learning_rules,
            ),
        )

    @classmethod
    def open(cls, settings: MemorySettings, runtime: Runtime) -> MemoryRetriever:
        """Return the generator, empty until the follower feeds it."""
        return cls(settings, runtime)

    @property
    def name(self) -> str:
        """The generator's name."""
        return "memory"

    @property
    def projections(self) -> Sequence[Projection]:
        """The catalogue with its predicted queries, and what users did."""
        return self._projections

    def entries(self) -> dict[str, int]:
        """Return the number of predicted queries, and of observed ones."""
        return {
            "memory.catalog": len(self._index.predictions),
            "memory.engagement": len(self._learner.queries),
        }

    def close(self) -> None:
        """Close the vector cache."""
        self._cache.close()

    def _open_encoder(self) -> CachedEncoder:
        # The runtime behind it takes tens of megabytes; a mesh without feedback needs none.
        from forage.encoder import CachedEncoder, MiniLMEncoder

        return CachedEncoder(MiniLMEncoder(), self._cache)

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return at most `limit` items that satisfy every filter, best first.

        Raises `DeadlineExceededError` if the deadline passes first.
        """
        deadline.check()
        with self._lock:
            looking = Backoff(
                query,
                schema=self._schema,
                settings=self._settings,
                view=self._view,
                index=self._index,
                learner=self._learner,
                rows=self._rows,
            )
            looking.look()
        deadline.check()
        neighbours = self._neighbours
        few = looking.candidates()[0].size < self._settings.neighbours_below
        if few and neighbours is not None and len(neighbours) and query.normalized:
            # Encoding takes milliseconds: neither other retrievals nor the follower wait for it.
            vector = neighbours.encode_query(query.normalized)
            with self._lock:
                looking.borrow(vector)
        hits = self._hits(looking, limit, explain=explain)
        return Retrieval(hits, scanned=looking.board.scanned)

    def _hits(self, looking: Backoff, limit: int, *, explain: bool) -> tuple[Hit, ...]:
        """Return the best candidates; ties go to the more popular item, then to the lower id."""
        rows, scores = looking.candidates()
        if rows.size > limit:
            enough = scores >= np.partition(scores, -limit)[-limit]
            rows, scores = rows[enough], scores[enough]
        indices = looking.indices[rows]
        popularity = self._index.popularity[indices]
        order = np.lexsort((-popularity, -scores))
        if order.size > limit:
            last = order[limit - 1]
            tied = (scores[order] == scores[last]) & (popularity[order] == popularity[last])
            order = order[: max(limit, int(np.flatnonzero(tied)[-1]) + 1)]
        id_at = self._view.id_at
        best = sorted(
            (-score, -liked, id_at(index), row)
            for score, liked, index, row in zip(
                scores[order].tolist(),
                popularity[order].tolist(),
                indices[order].tolist(),
                rows[order].tolist(),
                strict=True,
            )
        )
        return tuple(
            Hit(item_id, -score, self._reasons(looking, row, -score) if explain else ())
            for score, _, item_id, row in best[:limit]
        )

    def _reasons(self, looking: Backoff, row: int, score: float) -> tuple[Reason, ...]:
        personal = looking.personal.get(row)
        if personal is None:
            return (Reason(*looking.board.explain(row), score),)
        if not looking.board.explained(row):
            return (personal,)
        return Reason(*looking.board.explain(row), score - personal.weight), personal

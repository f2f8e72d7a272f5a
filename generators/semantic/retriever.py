"""The semantic retriever: encode what is wanted, ask Milvus for its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forage.encoder import CachedEncoder, Encoder, MiniLMEncoder, OnnxEncoder, VectorCache
from forage.errors import StartupError, UnavailableError
from forage.lease import FileLease
from forage.log import Projection
from forage.retrieval import Deadline, Hit, Query, Reason, Retrieval
from forage.services import Runtime
from generators.semantic.projection import EmbeddedProjection, Indexer, Items
from generators.semantic.query_text import query_text
from generators.semantic.settings import EncoderSettings, SemanticSettings
from generators.semantic.shared import SharedProjection, Writing
from generators.semantic.store import MilvusStore, Vector

_SPARE = 8
_NAMED_EXAMPLES = 3


class SemanticRetriever:
    """Finds items by the cosine between their text's vector and what the query asks for.

    The query vector is the normalised sum of the encoded words, the mean of the example items
    (`more like these`), and a decayed mean of the user's latest items, each with its weight.
    """

    name = "semantic"

    def __init__(
        self,
        settings: SemanticSettings,
        runtime: Runtime,
        encoder: CachedEncoder,
        cache: VectorCache,
    ) -> None:
        """Describe the retriever; its projection's `restore` opens the store.

        Raises `StartupError` for settings that do not go together.
        """
        if settings.milvus.embedded and settings.role != "both":
            raise StartupError(
                f"role: '{settings.role}' needs a Milvus server in milvus.uri; Milvus Lite belongs"
                " to one process, which does both"
            )
        self._settings = settings
        self._encoder = encoder
        self._cache = cache
        self._store = MilvusStore(
            settings.milvus,
            settings.data_dir,
            schema=runtime.schema,
            encoder_identity=encoder.identity,
            dimension=encoder.dimension,
        )
        self._items = Items(self._store, cached=settings.cached_vectors)
        self._index = self._projection(runtime)

    @classmethod
    def open(cls, settings: SemanticSettings, runtime: Runtime) -> SemanticRetriever:
        """Load the encoder; raises `StartupError` if a model file is missing."""
        cache = VectorCache(settings.data_dir / "embeddings.db")
        encoder = CachedEncoder(
            _encoder(settings.encoder), cache, queries=settings.encoder.cached_queries
        )
        return cls(settings, runtime, encoder, cache)

    @property
    def projections(self) -> Sequence[Projection]:
        """The one projection."""
        return (self._index,)

    @property
    def process_id(self) -> int | None:
        """The embedded Milvus's process id; None for a server."""
        return self._store.process_id

    def entries(self) -> dict[str, int]:
        """Return how many items are embedded, as of the latest batch."""
        return {self._index.name: self._items.state.rows}

    def close(self) -> None:
        """Disconnect from Milvus and end its embedded process."""
        self._index.close()
        self._store.close()
        self._cache.close()

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return the nearest items that satisfy the filters, with their cosine as the score."""
        deadline.check()
        if self._settings.role == "index":
            raise UnavailableError("semantic: this process only indexes (role: index)")
        state = self._items.state
        expression = self._store.language.expression(query.filters, state.most_numbers)
        text = query_text(query, min_confidence=self._settings.min_confidence)
        known = self._known(query, deadline)
        likes = [i for i in self._examples(query.like_item_ids) if i in known]
        vector = self._wanted(query, text, likes, known)
        if vector is None:
            return Retrieval(())
        unwanted = set(query.like_item_ids)
        if not text and not likes:
            unwanted.update(query.user.recent_item_ids)
        deadline.check()
        # Some to spare, so that equal scores at the end of the list are cut by item id.
        wanted = limit + len(unwanted) + _SPARE
        found = self._store.search(vector, wanted, expression, timeout_s=deadline.remaining())
        examples = ", ".join(known[i][0] for i in likes[:_NAMED_EXAMPLES])
        hits = tuple(
            Hit(item_id, score, self._reasons(score, text, examples) if explain else ())
            for item_id, score in found
            if item_id not in unwanted
        )
        return Retrieval(hits[:limit], scanned=state.rows)

    def _projection(self, runtime: Runtime) -> EmbeddedProjection | SharedProjection:
        settings = self._settings
        indexer = Indexer(runtime.schema, self._encoder, self._store)
        if settings.milvus.embedded:
            return EmbeddedProjection(settings, self._store, indexer, self._items)
        lease = runtime.lease or FileLease(settings.data_dir / "leases")
        writing = None if settings.role == "serve" else Writing(indexer, lease)
        return SharedProjection(runtime.log, self._store, self._items, writing)

    def _examples(self, item_ids: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(i for i in item_ids if i))[: self._settings.history_items]

    def _known(self, query: Query, deadline: Deadline) -> dict[str, tuple[str, Vector]]:
        """Return title and vector of the example and history items that exist."""
        wanted = self._examples(query.like_item_ids)
        if self._settings.history_weight:
            wanted += self._examples(query.user.recent_item_ids)
        return self._items.vectors(wanted, timeout_s=deadline.remaining()) if wanted else {}

    def _wanted(
        self, query: Query, text: str, likes: Sequence[str], known: dict[str, tuple[str, Vector]]
    ) -> Vector | None:
        """Return the unit vector to search for; None if nothing is asked for."""
        settings = self._settings
        total = np.zeros(self._encoder.dimension, np.float32)
        if text:
            total += self._encoder.encode_query(text)
        if likes:
            total += settings.like_weight * _unit(sum(known[i][1] for i in likes))
        recent = [known[i][1] for i in self._examples(query.user.recent_item_ids) if i in known]
        if recent:
            decayed = sum(v * settings.history_decay**age for age, v in enumerate(recent))
            total += np.float32(settings.history_weight) * _unit(decayed)
        return _unit(total) if total.any() else None

    def _reasons(self, score: float, text: str, examples: str) -> tuple[Reason, ...]:
        reasons = []
        if examples:
            reasons.append(Reason("like", examples, score))
        elif not text:
            reasons.append(Reason("history", "like what was engaged with lately", score))
        reasons.append(Reason("neighbour", f"similarity {score:.2f}", score))
        return tuple(reasons)


def _encoder(settings: EncoderSettings) -> Encoder:
    if settings.model is not None and settings.tokenizer is not None:
        return OnnxEncoder.from_path(
            settings.model,
            settings.tokenizer,
            max_tokens=settings.max_tokens,
            threads=settings.threads,
        )
    return MiniLMEncoder(max_tokens=settings.max_tokens, threads=settings.threads)


def _unit(vector: Vector | float) -> Vector:
    array = np.asarray(vector, np.float32)
    norm = float(np.linalg.norm(array))
    return array / np.float32(norm) if norm else array

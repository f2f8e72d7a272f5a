"""The semantic retriever: encode what is wanted, ask Milvus for its neighbours."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from forage import wire
from forage.catalog.embedding_text import embed_text
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.encoder import CachedEncoder, Encoder, MiniLMEncoder, OnnxEncoder, VectorCache
from forage.log import Projection, Record, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.retrieval import Deadline, Hit, Query, Reason, Retrieval
from forage.services import Runtime
from generators.semantic.query_text import query_text
from generators.semantic.settings import EncoderSettings, SemanticSettings
from generators.semantic.store import MilvusStore, Row, Vector

_FORMAT = 1
_SPARE = 8
_NAMED_EXAMPLES = 3
_LARGE_BATCH = 500
_logger = logging.getLogger(__name__)


class SemanticRetriever:
    """Finds items by the cosine between their text's vector and what the query asks for.

    The query vector is the normalised sum of the encoded words, the mean of the example items
    (`more like these`), and a decayed mean of the user's latest items, each with its weight.
    """

    name = "semantic"

    def __init__(
        self, settings: SemanticSettings, schema: Schema, encoder: CachedEncoder, cache: VectorCache
    ) -> None:
        """Describe the retriever; its projection's `restore` opens the store."""
        self._settings = settings
        self._encoder = encoder
        self._cache = cache
        self._store = MilvusStore(
            settings.milvus,
            settings.data_dir,
            schema=schema,
            encoder_identity=encoder.identity,
            dimension=encoder.dimension,
        )
        self._index = SemanticProjection(settings, schema, encoder, self._store)

    @classmethod
    def open(cls, settings: SemanticSettings, runtime: Runtime) -> SemanticRetriever:
        """Load the encoder; raises `StartupError` if a model file is missing."""
        cache = VectorCache(settings.data_dir / "embeddings.db")
        encoder = CachedEncoder(
            _encoder(settings.encoder), cache, queries=settings.encoder.cached_queries
        )
        return cls(settings, runtime.schema, encoder, cache)

    @property
    def projections(self) -> Sequence[Projection]:
        """The one projection."""
        return (self._index,)

    @property
    def process_id(self) -> int | None:
        """The embedded Milvus's process id; None for a server."""
        return self._store.process_id

    def entries(self) -> dict[str, int]:
        """Return how many items are embedded."""
        return {self._index.name: self._store.count()}

    def close(self) -> None:
        """Disconnect from Milvus and end its embedded process."""
        self._store.close()
        self._cache.close()

    def retrieve(
        self, query: Query, limit: int, deadline: Deadline, *, explain: bool = False
    ) -> Retrieval:
        """Return the nearest items that satisfy the filters, with their cosine as the score."""
        deadline.check()
        expression = self._store.language.expression(query.filters, self._index.most_numbers)
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
        return Retrieval(hits[:limit], scanned=self._index.rows)

    def _examples(self, item_ids: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(i for i in item_ids if i))[: self._settings.history_items]

    def _known(self, query: Query, deadline: Deadline) -> dict[str, tuple[str, Vector]]:
        """Return title and vector of the example and history items that exist."""
        wanted = self._examples(query.like_item_ids)
        if self._settings.history_weight:
            wanted += self._examples(query.user.recent_item_ids)
        return self._index.vectors(wanted, timeout_s=deadline.remaining()) if wanted else {}

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


class SemanticProjection:
    """Keeps the vector store up to date with the catalogue.

    The rows are durable when Milvus has taken them; the checkpoint beside it holds the sequence
    up to which it has. Upserts are idempotent, so records delivered again do no harm.
    """

    name = "semantic"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(
        self, settings: SemanticSettings, schema: Schema, encoder: CachedEncoder, store: MilvusStore
    ) -> None:
        self._schema = schema
        self._encoder = encoder
        self._store = store
        self._file = CheckpointFile(
            settings.data_dir / "semantic" / "checkpoint", name="semantic", version=_FORMAT
        )
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, tuple[str, Vector]] = OrderedDict()
        self._cached = settings.cached_vectors
        self._changes = 0
        self.rows = 0
        """How many items are embedded, as of the latest batch."""
        self.most_numbers: dict[str, int] = {}
        """Per numeric attribute, the largest number of values that any item has had."""

    def restore(self) -> int:
        """Open the store; if it is damaged or of another version, begin anew and return 0."""
        saved = self._file.load()
        if saved is not None:
            state = json.loads(saved[1])
            if state["fingerprint"] == self._store.fingerprint and self._store.open():
                self.most_numbers = state["most_numbers"]
                self.rows = self._store.count()
                # Fewer rows than were saved, with nothing written since, are a damaged file.
                if self.rows or not state["rows"]:
                    return saved[0]
            _logger.warning(
                "semantic: the store is missing, damaged or of another version: rebuilding"
            )
        self._store.create()
        self.most_numbers = {}
        self.rows = self._store.count()
        return 0

    def apply(self, records: Sequence[Record]) -> None:
        """Embed and store what is new, and remove what is deleted or has no text."""
        changes = dict(wire.catalog_change(record) for record in records)
        texts = {i: embed_text(item, self._schema) for i, item in changes.items() if item}
        upserts = {i: item for i, item in changes.items() if item and texts[i]}
        if len(upserts) >= _LARGE_BATCH:
            _logger.info(
                "semantic: embedding %d items up to %d", len(upserts), records[-1].sequence
            )
        vectors = self._encoder.encode([texts[i] for i in upserts])
        rows = [self._row(item, v) for item, v in zip(upserts.values(), vectors, strict=True)]
        most = dict(self.most_numbers)
        for row in rows:
            for attribute, numbers in row.fields.numbers.items():
                most[attribute] = max(len(numbers), most.get(attribute, 0))
        self.most_numbers = most
        self._store.upsert(rows)
        self._store.delete([i for i in changes if i not in upserts])
        with self._lock:
            self._changes += 1
            for item_id in changes:
                self._vectors.pop(item_id, None)
        self.rows = self._store.count()

    def checkpoint(self, sequence: int) -> None:
        """Record how far the store has come."""
        state = {
            "fingerprint": self._store.fingerprint,
            "most_numbers": self.most_numbers,
            "rows": self.rows,
        }
        self._file.save(sequence, json.dumps(state).encode())

    def vectors(
        self, item_ids: Sequence[str], *, timeout_s: float
    ) -> dict[str, tuple[str, Vector]]:
        """Return title and vector of those of the items that exist, from memory if recent."""
        with self._lock:
            found = {i: self._vectors[i] for i in item_ids if i in self._vectors}
            changes = self._changes
        missing = {i for i in item_ids if i not in found}
        if missing:
            fetched = self._store.get(missing, timeout_s=timeout_s)
            found.update(fetched)
            with self._lock:
                if changes == self._changes:
                    self._vectors.update(fetched)
                while len(self._vectors) > self._cached:
                    self._vectors.popitem(last=False)
        return found

    def _row(self, item: Item, vector: Vector) -> Row:
        title = next(iter(item.texts(self._schema.title)), item.item_id)
        return Row(item.item_id, title, self._store.language.fields(item), vector)


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

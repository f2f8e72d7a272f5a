"""The catalogue as vectors in the store: written by this process alone, or by one of several."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version

from forage import wire
from forage.catalog.embedding_text import embed_text
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.encoder import CachedEncoder
from forage.log import Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from generators.semantic.settings import SemanticSettings
from generators.semantic.store import MilvusStore, Row, State, Vector

NAME = "semantic"
_FORMAT = 2
_LARGE_BATCH = 500
_logger = logging.getLogger(__name__)


class Items:
    """What searches need to know of the indexed items beside their vectors' index."""

    def __init__(self, store: MilvusStore, *, cached: int) -> None:
        """Remember the vectors of `cached` items."""
        self._store = store
        self._cached = cached
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, tuple[str, Vector]] = OrderedDict()
        self._changes = 0
        self.state = State()
        """As of the latest batch."""

    def changed(self, item_ids: Sequence[str], state: State) -> None:
        """Forget what was remembered of items that have changed."""
        with self._lock:
            self._changes += 1
            for item_id in item_ids:
                self._vectors.pop(item_id, None)
        self.state = state

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


class Indexer:
    """Embeds catalogue records and writes them to the store."""

    def __init__(self, schema: Schema, encoder: CachedEncoder, store: MilvusStore) -> None:
        """Write to `store`."""
        self._schema = schema
        self._encoder = encoder
        self._store = store

    def write(self, records: Sequence[Record], before: State) -> State:
        """Store what is new, remove what is deleted or has no text; return the state to `settle`.

        Raises `UnavailableError`, and may then have written a part; writing the same records again
        makes up for it.
        """
        changes = dict(wire.catalog_change(record) for record in records)
        texts = {i: embed_text(item, self._schema) for i, item in changes.items() if item}
        upserts = {i: item for i, item in changes.items() if item and texts[i]}
        if len(upserts) >= _LARGE_BATCH:
            _logger.info(
                "semantic: embedding %d items up to %d", len(upserts), records[-1].sequence
            )
        vectors = self._encoder.encode([texts[i] for i in upserts])
        rows = [self._row(item, v) for item, v in zip(upserts.values(), vectors, strict=True)]
        most = dict(before.most_numbers)
        for row in rows:
            for attribute, numbers in row.fields.numbers.items():
                most[attribute] = max(len(numbers), most.get(attribute, 0))
        self._store.upsert(rows)
        self._store.delete([i for i in changes if i not in upserts])
        return State(records[-1].sequence, before.rows, most)

    def settle(self, state: State) -> State:
        """Wait until searches see all that was written; return the state with its rows counted."""
        return replace(state, rows=self._store.settle())

    def _row(self, item: Item, vector: Vector) -> Row:
        title = next(iter(item.texts(self._schema.title)), item.item_id)
        return Row(item.item_id, title, self._store.language.fields(item), vector)


class EmbeddedProjection:
    """Keeps a store up to date that only this process has.

    The rows are durable when Milvus has taken them; the checkpoint beside it holds the sequence
    up to which it has. Upserts are idempotent, so records delivered again do no harm.
    """

    name = NAME
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(
        self, settings: SemanticSettings, store: MilvusStore, indexer: Indexer, items: Items
    ) -> None:
        """Keep the checkpoint in `data_dir/semantic`."""
        self._store = store
        self._indexer = indexer
        self._items = items
        self._file = CheckpointFile(
            settings.data_dir / "semantic" / "checkpoint", name=NAME, version=_FORMAT
        )
        self._database = settings.data_dir / settings.milvus.uri

    def restore(self) -> int:
        """Open the store; if it is damaged or of another version, begin anew and return 0."""
        saved = self._file.load()
        if saved is not None:
            content = json.loads(saved[1])
            state = State(**content["state"])
            if content["fingerprint"] == self._store.fingerprint and self._store.open():
                rows = self._store.settle()
                # Fewer rows than were saved, with nothing written since, are a damaged file.
                if rows or not state.rows:
                    self._items.changed((), State(saved[0], rows, state.most_numbers))
                    return saved[0]
            _logger.warning(
                "semantic: the store is missing, damaged or of another version: rebuilding"
            )
        self._store.create()
        self._items.changed((), State())
        return 0

    def apply(self, records: Sequence[Record]) -> None:
        """Embed and store what is new, and remove what is deleted or has no text."""
        state = self._indexer.settle(self._indexer.write(records, self._items.state))
        self._items.changed([record.key for record in records], state)

    def checkpoint(self, sequence: int) -> None:
        """Record how far the store has come."""
        content = {"fingerprint": self._store.fingerprint, "state": asdict(self._items.state)}
        self._file.save(sequence, json.dumps(content).encode())

    def saved(self) -> SavedState:
        """Describe checkpoint and database; see `Portable.saved`."""
        saved = self._file.saved()
        engine = f"Milvus Lite {version('milvus-lite')}"
        return SavedState(
            f"{saved.format}, {self._store.fingerprint}, {engine}",
            {**saved.files, "milvus.db": self._database},
            saved.sequence,
        )

    def close(self) -> None:
        """Do nothing: the store is closed by whoever opened it."""

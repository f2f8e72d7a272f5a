"""Vectors in Milvus: one collection, written in batches, searched by inner product."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from forage.catalog.schema import Schema
from forage.errors import StartupError, UnavailableError
from generators.semantic.engine import EmbeddedMilvus
from generators.semantic.expressions import (
    FilterFields,
    FilterLanguage,
    count_field,
    flag_field,
    flags,
    keyword_field,
    number_field,
)
from generators.semantic.lean_pymilvus import (
    CollectionSchema,
    DataType,
    IndexParams,
    MilvusClient,
    MilvusException,
)
from generators.semantic.settings import MilvusSettings

Vector = npt.NDArray[np.float32]
T = TypeVar("T")

MAX_RESULTS = 16_384
"""The most results that Milvus returns of one search."""
_FORMAT = 2
_ID_BYTES = 1_024
_TITLE_CHARACTERS = 200
_ARRAY_CAPACITY = 2_048
_LARGEST_COUNT = 1_000
# What goes wrong is raised here and logged by whoever handles it; pymilvus logs every trace too.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Row:
    """One item as Milvus holds it."""

    item_id: str
    title: str
    fields: FilterFields
    vector: Vector


class MilvusStore:
    """The items' vectors. Safe to use from several threads, with one that writes.

    Its collection is named after everything that its content depends on (schema, encoder,
    format), so replicas of different versions do not disturb each other on one server. If the
    embedded engine dies, the call that notices starts it again.
    """

    def __init__(
        self,
        settings: MilvusSettings,
        data_dir: Path,
        *,
        schema: Schema,
        encoder_identity: str,
        dimension: int,
    ) -> None:
        """Describe the store; `open` connects."""
        self._settings = settings
        self._engine = EmbeddedMilvus(data_dir / settings.uri) if settings.embedded else None
        self.language = FilterLanguage(schema, negation=not settings.embedded)
        self._dimension = dimension
        known = [_FORMAT, encoder_identity, settings.index, settings.index_params]
        # Roles are sets, whose order differs from process to process.
        content = json.dumps([*known, schema.model_dump()], sort_keys=True, default=sorted)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._name = f"{settings.collection}_{schema.name}_{self.fingerprint}"
        self._write_s = settings.write_timeout_ms / 1000
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None

    def open(self) -> bool:
        """Connect, and return whether the collection is there; it is loaded then.

        Raises `StartupError` if the engine or the server cannot be reached.
        """
        self.close()
        if self._engine is not None and not self._engine.intact():
            return False
        try:
            self._client = self._connect()
            return self._load(self._client)
        except (MilvusException, grpc.RpcError, UnavailableError) as error:
            self.close()
            if self._engine is not None:
                return False
            raise StartupError(f"Milvus at {self._settings.uri}: {error}") from error

    def create(self) -> None:
        """Make an empty collection; on a server, keep one that other replicas have filled."""
        self.close()
        if self._engine is not None:
            self._engine.discard()
        try:
            client = self._client = self._connect()
            if not self._load(client):
                client.create_collection(
                    self._name,
                    schema=self._schema(client),
                    index_params=self._index(client),
                    consistency_level="Session",
                    timeout=self._write_s,
                )
        except (MilvusException, grpc.RpcError, UnavailableError) as error:
            raise StartupError(f"Milvus at {self._settings.uri}: {error}") from error

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add or replace rows; raises `UnavailableError`, and may then have written a part."""
        for part in _batches(rows, self._settings.batch):
            self._call(partial(self._upsert, data=[self._data(row) for row in part]))

    def delete(self, item_ids: Sequence[str]) -> None:
        """Remove rows; unknown ids are ignored."""
        for part in _batches(item_ids, self._settings.batch):
            self._call(partial(self._delete, item_ids=list(part)))

    def _upsert(self, client: MilvusClient, data: list[Mapping[str, object]]) -> None:
        client.upsert(self._name, data, timeout=self._write_s)

    def _delete(self, client: MilvusClient, item_ids: list[str]) -> None:
        client.delete(self._name, ids=item_ids, timeout=self._write_s)

    def search(
        self, vector: Vector, limit: int, expression: str, *, timeout_s: float
    ) -> list[tuple[str, float]]:
        """Return up to `limit` (item id, cosine), best first, equal ones by item id."""
        found = self._call(
            lambda client: client.search(
                self._name,
                data=[vector],
                limit=min(limit, MAX_RESULTS),
                filter=expression,
                output_fields=[],
                anns_field="vector",
                search_params={"metric_type": "IP", "params": self._settings.search_params},
                timeout=max(0.001, min(timeout_s, self._settings.search_timeout_ms / 1000)),
            )
        )
        # Where a row lies in memory decides the last bits of its score; rounded, a rebuilt
        # index gives equal items the same order.
        scored = ((str(hit.id), round(float(hit.distance), 6)) for hit in found[0])
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))

    def get(self, item_ids: Collection[str], *, timeout_s: float) -> dict[str, tuple[str, Vector]]:
        """Return title and vector of those of the items that exist."""
        rows = self._call(
            lambda client: client.get(
                self._name,
                ids=list(item_ids),
                output_fields=["title", "vector"],
                timeout=max(0.001, min(timeout_s, self._settings.search_timeout_ms / 1000)),
            )
        )
        return {r["item_id"]: (r["title"], np.asarray(r["vector"], np.float32)) for r in rows}

    def count(self) -> int:
        """Return the number of rows."""
        rows = self._call(
            lambda c: c.query(self._name, output_fields=["count(*)"], timeout=self._write_s)
        )
        return int(rows[0]["count(*)"])

    @property
    def process_id(self) -> int | None:
        """The embedded engine's process id; None for a server."""
        return self._engine.process_id if self._engine is not None else None

    def close(self) -> None:
        """Disconnect, and end the embedded engine. Closing twice is harmless."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._engine is not None:
            self._engine.stop()

    def _connect(self) -> MilvusClient:
        settings = self._settings
        if self._engine is not None:
            return MilvusClient(self._engine.start(), timeout=self._write_s)
        return MilvusClient(
            settings.uri,
            user=settings.user,
            password=settings.password.get_secret_value(),
            token=settings.token.get_secret_value(),
            db_name=settings.database,
            timeout=self._write_s,
        )

    def _load(self, client: MilvusClient) -> bool:
        if not client.has_collection(self._name, timeout=self._write_s):
            return False
        client.load_collection(self._name, timeout=self._write_s)
        return True

    def _call(self, work: Callable[[MilvusClient], T]) -> T:
        client = self._client
        if client is None:
            raise UnavailableError("the vector store is closed")
        try:
            return work(client)
        except (MilvusException, grpc.RpcError) as error:
            if self._engine is None or self._engine.answers():
                raise UnavailableError(f"Milvus: {_message(error)}") from error
        try:
            return work(self._revived(client))
        except (MilvusException, grpc.RpcError, StartupError) as error:
            raise UnavailableError(f"Milvus: {_message(error)}") from error

    def _revived(self, dead: MilvusClient) -> MilvusClient:
        with self._lock:
            if self._client is None:
                raise UnavailableError("the vector store is closed")
            if self._client is dead:
                dead.close()
                assert self._engine is not None
                self._engine.stop()
                client = self._connect()
                self._load(client)
                self._client = client
            return self._client

    def _schema(self, client: MilvusClient) -> CollectionSchema:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("item_id", DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
        schema.add_field("title", DataType.VARCHAR, max_length=4 * _TITLE_CHARACTERS)
        schema.add_field("kind", DataType.INT64)
        for name in self.language.keywords:
            schema.add_field(
                keyword_field(name),
                DataType.ARRAY,
                element_type=DataType.INT64,
                max_capacity=_ARRAY_CAPACITY,
            )
            if self._engine is not None:
                schema.add_field(flag_field(name), DataType.JSON)
        for name in self.language.numbers:
            schema.add_field(
                number_field(name),
                DataType.ARRAY,
                element_type=DataType.DOUBLE,
                max_capacity=_LARGEST_COUNT,
            )
            schema.add_field(count_field(name), DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dimension)
        return schema

    def _index(self, client: MilvusClient) -> IndexParams:
        index = client.prepare_index_params()
        index.add_index(
            "vector",
            index_type=self._settings.index,
            metric_type="IP",
            params=self._settings.index_params,
        )
        return index

    def _data(self, row: Row) -> Mapping[str, object]:
        fields = row.fields
        data: dict[str, object] = {
            "item_id": row.item_id,
            "title": row.title[:_TITLE_CHARACTERS],
            "kind": fields.kind,
            "vector": row.vector,
        }
        data.update((keyword_field(n), terms) for n, terms in fields.keywords.items())
        data.update((number_field(n), values) for n, values in fields.numbers.items())
        data.update((count_field(n), len(values)) for n, values in fields.numbers.items())
        if self._engine is not None:
            data.update((flag_field(n), flags(terms)) for n, terms in fields.keywords.items())
        return data


def _batches(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _message(error: Exception) -> str:
    if isinstance(error, MilvusException):
        return str(error.message)
    return str(error.details()) if isinstance(error, grpc.Call) else str(error)

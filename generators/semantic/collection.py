"""The Milvus collection of the items: fields and index, made by and checked against settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from forage.catalog.schema import Schema
from forage.errors import StartupError
from generators.milvus.lean_pymilvus import (
    CollectionSchema,
    DataType,
    IndexParams,
    LoadState,
    MilvusClient,
)
from generators.semantic.expressions import (
    FilterLanguage,
    count_field,
    flag_field,
    keyword_field,
    number_field,
)
from generators.semantic.settings import SemanticMilvusSettings
from generators.semantic.vector_index import VectorIndex

TITLE_CHARACTERS = 200
_FORMAT = 2
_ID_BYTES = 1_024
_ARRAY_CAPACITY = 2_048
_LARGEST_COUNT = 1_000
_EMBEDDED_LOAD_S = 600.0


class ItemCollection:
    """Describes the collection.

    Its name ends with a fingerprint of all that its content depends on (schema, encoder, format),
    so replicas of different versions do not disturb each other on one server. The index is not
    part of that: it can be replaced without embedding anything again.
    """

    def __init__(
        self,
        settings: SemanticMilvusSettings,
        schema: Schema,
        *,
        encoder_identity: str,
        dimension: int,
    ) -> None:
        """Take the settings; raises `StartupError` if the index cannot be as they want it."""
        self.index = VectorIndex(settings)
        self.language = FilterLanguage(schema, negation=not settings.embedded)
        self._settings = settings
        self._embedded = settings.embedded
        self._dimension = dimension
        content: list[object] = [_FORMAT, encoder_identity]
        if settings.embedded:
            # Nobody else has the file, so it is simply made anew with another index.
            content += [settings.index, settings.metric, self.index.build]
        # Roles are sets, whose order differs from process to process.
        text = json.dumps([*content, schema.model_dump()], sort_keys=True, default=sorted)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        self.fingerprint = self._digest[:16]
        self.name = f"{settings.collection}_{schema.name}_{self.fingerprint}"

    def create(self, client: MilvusClient) -> None:
        """Make the collection, empty and loaded."""
        client.create_collection(
            self.name,
            schema=self._schema(),
            consistency_level="Session",
            num_shards=self._settings.shards,
            timeout=self._settings.write_timeout_s,
        )
        self.load(client)

    def load(self, client: MilvusClient) -> None:
        """Have it searchable, with an index if it has none, as after an interrupted `create`."""
        timeout = self._settings.write_timeout_s
        if not client.list_indexes(self.name, timeout=timeout):
            client.create_index(self.name, self._index(), timeout=timeout)
        # A loaded collection refuses to be loaded with another number of replicas.
        if self._embedded or client.get_load_state(self.name)["state"] != LoadState.Loaded:
            client.load_collection(
                self.name,
                replica_number=self._settings.replicas,
                # Milvus Lite reads its whole file; too early, it would count as damaged.
                timeout=_EMBEDDED_LOAD_S if self._embedded else timeout,
            )

    def check(self, client: MilvusClient) -> None:
        """Raise `StartupError` if the collection of this name is not as `create` makes it."""
        timeout = self._settings.write_timeout_s
        found = client.describe_collection(self.name, timeout=timeout)
        wrong = list(self._differences(found))
        if wrong:
            raise StartupError(
                f"milvus.collection: '{self.name}' is not a collection of this catalogue:"
                f" {'; '.join(wrong)}. Drop it to have it filled anew, or set milvus.collection to"
                " another name"
            )
        for name in client.list_indexes(self.name, timeout=timeout):
            wrong += self.index.differences(client.describe_index(self.name, name, timeout=timeout))
        if wrong:
            raise StartupError(
                f"{wrong[0]}. The index of '{self.name}' was made with other settings: restore"
                " them, or release the collection and drop its index to have it built anew, or set"
                " milvus.collection to another name"
            )

    def _differences(self, found: Mapping[str, Any]) -> Iterator[str]:
        fields = {field["name"]: field for field in found["fields"]}
        wanted = {field.name: field for field in self._schema().fields}
        for name in sorted(fields.keys() ^ wanted.keys()):
            yield f"field {name} is {'missing' if name in wanted else 'not known'}"
        for name in sorted(fields.keys() & wanted.keys()):
            has, wants = fields[name], wanted[name]
            if has["type"] != wants.dtype or has.get("element_type") != wants.element_type:
                yield f"field {name} has the type {has['type'].name}"
            elif "dim" in wants.params and int(has["params"]["dim"]) != self._dimension:
                yield (
                    f"its vectors have {has['params']['dim']} dimensions, the encoder's"
                    f" (encoder.model) {self._dimension}"
                )
        if not wanted.keys() ^ fields.keys() and found["description"] != self._description:
            yield f"its description is not '{self._description}' (schema_file, encoder.model)"

    @property
    def _description(self) -> str:
        return f"Forage items, content {self._digest}"

    def _schema(self) -> CollectionSchema:
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=self._description
        )
        schema.add_field("item_id", DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
        schema.add_field("title", DataType.VARCHAR, max_length=4 * TITLE_CHARACTERS)
        schema.add_field("kind", DataType.INT64)
        for name in self.language.keywords:
            _add_array(schema, keyword_field(name), DataType.INT64, _ARRAY_CAPACITY)
            if self._embedded:
                schema.add_field(flag_field(name), DataType.JSON)
        for name in self.language.numbers:
            _add_array(schema, number_field(name), DataType.DOUBLE, _LARGEST_COUNT)
            schema.add_field(count_field(name), DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dimension)
        return schema

    def _index(self) -> IndexParams:
        index = MilvusClient.prepare_index_params()
        index.add_index(
            "vector",
            index_type=self.index.name,
            metric_type=self.index.metric,
            params=self.index.build,
        )
        return index


def _add_array(schema: CollectionSchema, name: str, element: DataType, capacity: int) -> None:
    schema.add_field(name, DataType.ARRAY, element_type=element, max_capacity=capacity)

"""Vectors in Milvus: one collection, written in batches, searched by the cosine."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from forage.catalog.schema import Schema
from forage.errors import StartupError, UnavailableError
from generators.milvus import login
from generators.milvus.connection import FAILURES, MilvusConnection
from generators.milvus.expressions import flags
from generators.milvus.lean_pymilvus import MilvusClient, MilvusException
from generators.semantic.collection import TITLE_CHARACTERS, ItemCollection
from generators.semantic.expressions import (
    FilterFields,
    count_field,
    flag_field,
    keyword_field,
    number_field,
)
from generators.semantic.settings import SemanticMilvusSettings

Vector = npt.NDArray[np.float32]
T = TypeVar("T")

MAX_RESULTS = 16_384
"""The most results that Milvus returns of one search."""
_STATE = "forage.state"
_NOT_FOUND, _NOT_LOADED = 100, 101
_LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class Row:
    """One item as Milvus holds it."""

    item_id: str
    title: str
    fields: FilterFields
    vector: Vector


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a collection's content, kept with it on a server."""

    sequence: int = 0
    """The catalogue sequence up to which the collection has everything."""
    rows: int = 0
    most_numbers: dict[str, int] = field(default_factory=dict)
    """Per numeric attribute, the largest number of values that any item has had."""


class MilvusStore:
    """The items' vectors. Safe to use from several threads, with one that writes."""

    def __init__(
        self,
        settings: SemanticMilvusSettings,
        data_dir: Path,
        *,
        schema: Schema,
        encoder_identity: str,
        dimension: int,
    ) -> None:
        """Describe the store; `open` connects."""
        self._settings = settings
        self.collection = ItemCollection(
            settings, schema, encoder_identity=encoder_identity, dimension=dimension
        )
        self.language = self.collection.language
        self._name = self.collection.name
        self._connection = MilvusConnection(settings, data_dir, on_open=self.collection.load)
        self._attaching = threading.Lock()
        self._attached = False

    @property
    def embedded(self) -> bool:
        """Whether the store is a file of this process alone."""
        return self._connection.embedded

    @property
    def fingerprint(self) -> str:
        """Names what the content depends on."""
        return self.collection.fingerprint

    @property
    def process_id(self) -> int | None:
        """The embedded engine's process id; None for a server."""
        return self._connection.process_id

    def open(self) -> bool:
        """Connect, and return whether the collection is there; it is loaded then.

        Raises `StartupError` if the server cannot be used, or has a collection of this name that
        is not this one. An embedded file that cannot be used counts as absent.
        """
        self.close()
        if not self._connection.intact():
            return False
        try:
            return self._attach(self._connection.open())
        except (*FAILURES, UnavailableError) as error:
            self.close()
            if self.embedded:
                return False
            raise login.refusal(self._settings, error) from error

    def create(self) -> None:
        """Have an empty file, or a collection on the connected server."""
        try:
            if self.embedded:
                self.close()
                self._connection.discard()
                self.collection.create(self._connection.open())
                self._attached = True
            else:
                self._connection.call(self._create)
        except (*FAILURES, UnavailableError) as error:
            raise StartupError(f"Milvus at {self._settings.uri}: {login.text(error)}") from error

    def close(self) -> None:
        """Disconnect, and end the embedded engine. Closing twice is harmless."""
        self._attached = False
        self._connection.close()

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add or replace rows; raises `UnavailableError`, and may then have written a part."""
        for part in batches(rows, self._settings.batch):
            data = [self._data(row) for row in part]
            self._connection.call(
                lambda client, data=data: client.upsert(  # type: ignore[misc]
                    self._name, data, timeout=self._settings.write_timeout_s
                )
            )

    def delete(self, item_ids: Sequence[str]) -> None:
        """Remove rows; unknown ids are ignored."""
        for part in batches(item_ids, self._settings.batch):
            self._connection.call(partial(self._delete, item_ids=list(part)))

    def settle(self) -> int:
        """Wait until every search sees all that was written, and return the number of rows."""
        return self._count("", self._settings.write_timeout_s, consistency="Strong")

    def state(self) -> State | None:
        """Return what is noted of the collection on a server; None if there is no collection."""
        found = self._connection.call(self._describe)
        if found is None:
            self._attached = False
            return None
        return _state(found)

    def save(self, state: State) -> None:
        """Note the state at the collection; serving processes then see that position."""
        text = json.dumps(asdict(state))
        self._connection.call(
            lambda client: client.alter_collection_properties(
                self._name, {_STATE: text}, timeout=self._settings.write_timeout_s
            )
        )

    def search(
        self, vector: Vector, limit: int, expression: str, *, timeout_s: float
    ) -> list[tuple[str, float]]:
        """Return up to `limit` (item id, cosine), best first, equal ones by item id."""
        limit = min(limit, MAX_RESULTS)
        timeout_s = self._timeout(timeout_s)
        index = self.collection.index
        if not expression or index.exact:
            return self._search(vector, limit, expression, 1, timeout_s)
        breadth = self._settings.over_fetch
        found = self._search(vector, limit, expression, breadth, timeout_s)
        if len(found) >= limit:
            return found
        # Fewer than wanted: few items satisfy the filter, or the index did not look at them.
        matching = self._count(expression, timeout_s)
        if matching <= len(found):
            return found
        if matching <= self._settings.exact_rows:
            return self._compare(vector, limit, expression, timeout_s)
        return self._search(vector, limit, expression, breadth * breadth, timeout_s)

    def get(self, item_ids: Collection[str], *, timeout_s: float) -> dict[str, tuple[str, Vector]]:
        """Return title and vector of those of the items that exist."""
        rows = self._read(
            lambda client: client.get(
                self._name,
                ids=list(item_ids),
                output_fields=["title", "vector"],
                consistency_level=self._consistency,
                timeout=self._timeout(timeout_s),
            )
        )
        return {r["item_id"]: (r["title"], np.asarray(r["vector"], np.float32)) for r in rows}

    def _search(
        self, vector: Vector, limit: int, expression: str, breadth: int, timeout_s: float
    ) -> list[tuple[str, float]]:
        index = self.collection.index
        found = self._read(
            lambda client: client.search(
                self._name,
                data=[vector],
                limit=limit,
                filter=expression,
                output_fields=[],
                anns_field="vector",
                search_params=index.search_params(limit, breadth),
                consistency_level=self._consistency,
                timeout=timeout_s,
            )
        )
        return _ranked((str(hit.id), index.cosine(float(hit.distance))) for hit in found[0])

    def _compare(
        self, vector: Vector, limit: int, expression: str, timeout_s: float
    ) -> list[tuple[str, float]]:
        """Compare with every item that satisfies the expression."""
        rows = self._read(
            lambda client: client.query(
                self._name,
                filter=expression,
                limit=self._settings.exact_rows,
                output_fields=["item_id", "vector"],
                consistency_level=self._consistency,
                timeout=timeout_s,
            )
        )
        if not rows:
            return []
        cosines = np.asarray([row["vector"] for row in rows], np.float32) @ vector
        item_ids = (str(row["item_id"]) for row in rows)
        return _ranked(zip(item_ids, cosines.tolist(), strict=True))[:limit]

    def _count(self, expression: str, timeout_s: float, consistency: str = "") -> int:
        rows = self._read(
            lambda client: client.query(
                self._name,
                filter=expression,
                output_fields=["count(*)"],
                consistency_level=consistency or self._consistency,
                timeout=timeout_s,
            )
        )
        return int(rows[0]["count(*)"])

    @property
    def _consistency(self) -> str:
        return self._settings.consistency.capitalize()

    def _timeout(self, wanted_s: float) -> float:
        return max(_LEAST_S, min(wanted_s, self._settings.search_timeout_s))

    def _read(self, work: Any) -> Any:  # noqa: ANN401
        if not self._attached:
            self._attach_late()
        try:
            return self._connection.call(work)
        except UnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, MilvusException) and cause.code in (_NOT_FOUND, _NOT_LOADED):
                self._attached = False
            raise

    def _attach_late(self) -> None:
        """Take up a collection that was not there, or not loaded, when this process looked."""
        if not self._attaching.acquire(blocking=False):
            raise UnavailableError(f"Milvus: collection '{self._name}' is being loaded")
        try:
            if not self._connection.call(self._attach):
                raise UnavailableError(
                    f"Milvus: collection '{self._name}' is not there yet; a process whose"
                    " `role` is index or both makes it"
                )
        except StartupError as error:
            raise UnavailableError(error.message) from error
        finally:
            self._attaching.release()

    def _attach(self, client: MilvusClient) -> bool:
        if not client.has_collection(self._name, timeout=self._settings.write_timeout_s):
            return False
        self.collection.check(client)
        self.collection.load(client)
        self._attached = True
        return True

    def _create(self, client: MilvusClient) -> None:
        if not self._attach(client):
            self.collection.create(client)
            self._attached = True

    def _describe(self, client: MilvusClient) -> Mapping[str, Any] | None:
        timeout = self._settings.connect_timeout_s
        try:
            found: Mapping[str, Any] = client.describe_collection(self._name, timeout=timeout)
        except MilvusException as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        return found

    def _delete(self, client: MilvusClient, item_ids: list[str]) -> None:
        client.delete(self._name, ids=item_ids, timeout=self._settings.write_timeout_s)

    def _data(self, row: Row) -> Mapping[str, object]:
        fields = row.fields
        data: dict[str, object] = {
            "item_id": row.item_id,
            "title": row.title[:TITLE_CHARACTERS],
            "kind": fields.kind,
            "vector": row.vector,
        }
        data.update((keyword_field(n), terms) for n, terms in fields.keywords.items())
        data.update((number_field(n), values) for n, values in fields.numbers.items())
        data.update((count_field(n), len(values)) for n, values in fields.numbers.items())
        if self.embedded:
            data.update((flag_field(n), flags(terms)) for n, terms in fields.keywords.items())
        return data


def batches(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of at most `size`."""
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _ranked(found: Any) -> list[tuple[str, float]]:  # noqa: ANN401
    # Where a row lies in memory decides the last bits of its score; rounded, a rebuilt index
    # gives equal items the same order.
    rounded = ((item_id, round(score, 6)) for item_id, score in found)
    return sorted(rounded, key=lambda pair: (-pair[1], pair[0]))


def _state(found: Mapping[str, Any]) -> State:
    try:
        return State(**json.loads(found["properties"][_STATE]))
    except (KeyError, TypeError, ValueError):
        return State()

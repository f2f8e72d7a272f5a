"""Filters that starve Milvus's approximate indexes, and what makes up for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from forage.testing import catalog
from generators.semantic.expressions import FilterFields
from generators.semantic.settings import SemanticMilvusSettings
from generators.semantic.store import MilvusStore, Row, Vector
from tests.milvus.semantic import drop, prefix
from tests.milvus.server import MilvusServer
from tests.waiting import eventually

ROWS, DIMENSION, QUERIES = 20_000, 32, 10
HNSW = {
    "index": "HNSW",
    "index_params": {"M": 8, "efConstruction": 40},
    "search_params": {"ef": 10},
}
_INDEXED_S = 120.0


@dataclass
class Rows:
    """Random vectors in a collection, each of one of a hundred kinds."""

    uri: str
    folder: Path
    vectors: Vector
    queries: Vector

    def store(self, **settings: int) -> MilvusStore:
        return MilvusStore(
            SemanticMilvusSettings.model_validate(
                {"uri": self.uri, "collection": prefix(self.folder), **HNSW, **settings}
            ),
            self.folder,
            schema=catalog.SCHEMA,
            encoder_identity="random",
            dimension=DIMENSION,
        )

    def found(self, limit: int, kinds: int, **settings: int) -> list[list[str]]:
        """Return what a store with these settings finds among the first kinds, by query."""
        store = self.store(**settings)
        assert store.open()
        try:
            return [
                [i for i, _ in store.search(q, limit, f"kind < {kinds}", timeout_s=10.0)]
                for q in self.queries
            ]
        finally:
            store.close()

    def nearest(self, limit: int, kinds: int) -> list[list[str]]:
        """Return what there is to be found, by brute force."""
        among = np.flatnonzero(np.arange(ROWS) % 100 < kinds)
        orders = np.argsort(-(self.queries @ self.vectors[among].T), axis=1)
        return [[f"row:{i}" for i in among[order[:limit]]] for order in orders]

    def recall(self, limit: int, kinds: int, **settings: int) -> float:
        pairs = zip(self.found(limit, kinds, **settings), self.nearest(limit, kinds), strict=True)
        return sum(len({*found} & {*wanted}) for found, wanted in pairs) / (limit * QUERIES)

    def index(self) -> None:
        """Have the rows sealed, indexed, and searched by the index."""
        client = MilvusClient(self.uri, dedicated=True)
        name = self.store().collection.name

        def indexed() -> bool:
            state = client.describe_index(name, "vector")
            return int(state["indexed_rows"]) == ROWS and not state["pending_index_rows"]

        client.flush(name)
        eventually(indexed, _INDEXED_S)
        # Milvus takes its time to replace what it has loaded by the index.
        client.release_collection(name)
        client.load_collection(name)
        client.close()


@pytest.fixture
def rows(tmp_path: Path, shared_server: MilvusServer) -> Iterator[Rows]:
    rng = np.random.default_rng(7)
    drawn = rng.normal(size=(ROWS + QUERIES, DIMENSION)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    made = Rows(shared_server.uri, tmp_path, drawn[:ROWS], drawn[ROWS:])
    store = made.store()
    assert not store.open()
    store.create()
    nothing: dict[str, list[int]] = {name: [] for name in store.language.keywords}
    numbers: dict[str, list[float]] = {name: [] for name in store.language.numbers}
    store.upsert(
        [
            Row(f"row:{i}", "", FilterFields(i % 100, nothing, numbers), vector)
            for i, vector in enumerate(made.vectors)
        ]
    )
    assert store.settle() == ROWS
    store.close()
    yield made
    drop(made.uri, tmp_path)


@pytest.mark.timeout(240)
def test_a_filter_that_starves_the_index_of_new_rows_finds_all_that_there_is(rows: Rows) -> None:
    alone = rows.found(50, 1, exact_rows=0)

    assert min(map(len, alone)) < 50, "Milvus itself is to find fewer than there are"
    assert [set(f) for f in rows.found(50, 1)] == [set(n) for n in rows.nearest(50, 1)]


@pytest.mark.timeout(240)
def test_a_filtered_search_looks_farther_in_a_graph_and_so_finds_more(rows: Rows) -> None:
    rows.index()

    narrow, wide = rows.recall(10, 20, over_fetch=1), rows.recall(10, 20, over_fetch=64)

    print(f"recall {narrow:.2f}, and {wide:.2f} when it looks farther")
    assert wide > 0.9
    assert narrow < wide - 0.1

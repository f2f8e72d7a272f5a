"""The same promises as on Milvus Lite, kept by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from pymilvus import MilvusClient

from forage.catalog.embedding_text import embed_text
from forage.catalog.filters import matches
from forage.retrieval import Filter, Query
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import RetrieverContract, text_query
from generators.semantic.retriever import SemanticRetriever
from tests.contract.test_semantic import FILTERS
from tests.milvus.semantic import collections, drop, open_semantic, shared_encoder
from tests.milvus.server import MilvusServer

HNSW = {
    "index": "HNSW",
    "index_params": {"M": 16, "efConstruction": 200},
    "search_params": {"ef": 64},
}


class ServerContract(RetrieverContract):
    """What a server adds to the contract: a collection takes the place of the folder."""

    milvus: ClassVar[dict[str, object]] = {}
    uri = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _on(cls, shared_server: MilvusServer) -> None:
        cls.uri = shared_server.uri

    def open_generator(self, data_dir: Path, runtime: Runtime) -> SemanticRetriever:
        return open_semantic(self.uri, data_dir, runtime, self.milvus)

    def _run(self, data_dir: Path) -> Iterator[Bench]:
        try:
            yield from super()._run(data_dir)
        finally:
            drop(self.uri, data_dir)

    @pytest.fixture
    def query(self) -> Query:
        return text_query("a lonely astronaut in space")

    def test_a_deleted_folder_is_rebuilt_with_the_same_answers(
        self, bench: Bench, query: Query
    ) -> None:
        self._change(bench, query)
        before = bench.retrieve(query)
        bench.stop()
        assert len(collections(self.uri, bench.data_dir)) == 1
        assert bench.folders() == [bench.data_dir / "leases"]

        drop(self.uri, bench.data_dir)

        bench.start()
        assert bench.retrieve(query).hits == before.hits

    @pytest.mark.parametrize("which", ["a replica's", "the indexer's"])
    @pytest.mark.parametrize("damage", ["lost while it runs", "without its position"])
    def test_damaged_files_are_rebuilt_with_the_same_answers(
        self, bench: Bench, query: Query, damage: str, which: str
    ) -> None:
        before = bench.retrieve(query)
        name = collections(self.uri, bench.data_dir)[0]
        client = MilvusClient(self.uri, dedicated=True)

        if damage == "lost while it runs":
            client.drop_collection(name)
        else:
            client.alter_collection_properties(name, {"forage.state": "{}"})
        client.close()
        if which == "a replica's":
            bench.restart()
        bench.upsert(*list(bench.items.values())[:1])

        assert bench.retrieve(query).hits == before.hits


class TestFlat(ServerContract):
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[
            HealthCheck.differing_executors,
            HealthCheck.function_scoped_fixture,
        ],
    )
    @given(filters=FILTERS)
    def test_milvus_finds_what_brute_force_finds(
        self, shared_bench: Bench, query: Query, filters: tuple[Filter, ...]
    ) -> None:
        items = [i for i in shared_bench.items.values() if matches(i, filters)]

        hits = shared_bench.retrieve(replace(query, filters=filters), limit=100).hits

        assert set(ids(hits)) == {i.item_id for i in items}

    def test_scores_are_the_cosines_of_brute_force(self, shared_bench: Bench, query: Query) -> None:
        assert_cosines(shared_bench, query)


class TestHnsw(ServerContract):
    milvus = HNSW


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT", "IVF_SQ8", "SCANN", "AUTOINDEX"])
def test_every_index_and_metric_gives_cosines(
    tmp_path: Path, shared_server: MilvusServer, metric: str, index: str
) -> None:
    uri = shared_server.uri
    bench = Bench(
        tmp_path,
        lambda folder, runtime: open_semantic(
            uri, folder, runtime, {"index": index, "metric": metric}
        ),
    )
    try:
        bench.upsert(*catalog.items())
        bench.start()
        assert_cosines(bench, text_query("a lonely astronaut in space"))
    finally:
        bench.close()
        drop(uri, tmp_path)


def assert_cosines(bench: Bench, query: Query) -> None:
    encoder = shared_encoder()
    items = list(bench.items.values())
    vectors = encoder.encode([embed_text(i, catalog.SCHEMA) for i in items])
    cosines = vectors @ encoder.encode([query.text])[0]
    expected = {i.item_id: float(c) for i, c in zip(items, cosines, strict=True)}

    hits = bench.retrieve(query, limit=100).hits

    assert {h.item_id: h.score for h in hits} == pytest.approx(expected, abs=2e-3)

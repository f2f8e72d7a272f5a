"""The same promises as on Milvus Lite, kept by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from pymilvus import MilvusClient

from forage.retrieval import Query
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.retriever_contract import text_query
from generators.semantic.retriever import SemanticRetriever
from tests.contract.semantic_contract import ExactContract, SemanticContract, assert_cosines
from tests.milvus.semantic import collections, drop, open_semantic
from tests.milvus.server import MilvusServer

HNSW = {
    "index": "HNSW",
    "index_params": {"M": 16, "efConstruction": 200},
    "search_params": {"ef": 64},
}


class ServerContract(SemanticContract):
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


class TestFlat(ServerContract, ExactContract):
    pass


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

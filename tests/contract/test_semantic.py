import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from forage.catalog.filters import matches
from forage.encoder import CachedEncoder, VectorCache
from forage.errors import StartupError
from forage.log import Topic
from forage.retrieval import Deadline, Filter, Query, UserContext
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import text_query
from generators.milvus.connection import MilvusConnection
from generators.milvus.settings import MilvusSettings
from generators.semantic.retriever import SemanticRetriever
from generators.semantic.settings import SemanticSettings
from tests.contract.semantic_contract import ExactContract, shared_encoder


def open_semantic(data_dir: Path, runtime: Runtime) -> SemanticRetriever:
    vectors = VectorCache(data_dir / "embeddings.db")
    encoder = CachedEncoder(shared_encoder(), vectors)
    return SemanticRetriever(SemanticSettings(data_dir=data_dir), runtime, encoder, vectors)


class TestSemanticRetriever(ExactContract):
    def open_generator(self, data_dir: Path, runtime: Runtime) -> SemanticRetriever:
        return open_semantic(data_dir, runtime)

    def test_meaning_is_found_without_a_shared_word(self, shared_bench: Bench) -> None:
        found = ids(shared_bench.retrieve(text_query("spacecraft cosmonaut"), limit=2).hits)

        assert "film:a-quiet-orbit" in found

    def test_items_like_examples_are_found_without_the_examples(self, shared_bench: Bench) -> None:
        examples = ("film:night-of-the-copper-moon", "film:orbit-the-return")

        hits = shared_bench.retrieve(Query(like_item_ids=examples), limit=4).hits

        assert not {*examples} & {*ids(hits)}
        assert {"film:copper-moon-rising", "film:a-quiet-orbit"} <= {*ids(hits)}
        assert hits[0].reasons[0].kind == "like"
        assert hits[0].reasons[0].detail == "Night of the Copper Moon, Orbit: The Return"

    def test_examples_leave_what_the_words_alone_find_as_it_was(
        self, shared_bench: Bench, query: Query
    ) -> None:
        before = shared_bench.retrieve(query).hits

        shared_bench.retrieve(replace(query, like_item_ids=("film:night-of-the-copper-moon",)))

        assert shared_bench.retrieve(query).hits == before

    def test_history_alone_finds_similar_unseen_items(self, shared_bench: Bench) -> None:
        user = UserContext("user-1", ("film:night-of-the-copper-moon",))

        hits = shared_bench.retrieve(Query(user=user), limit=3).hits

        assert hits[0].item_id == "film:copper-moon-rising"
        assert hits[0].reasons[0].kind == "history"

    def test_nothing_asked_for_finds_nothing(self, shared_bench: Bench) -> None:
        assert shared_bench.retrieve(Query()).hits == ()

    def test_an_item_with_several_numbers_is_filtered_by_any_of_them(self, bench: Bench) -> None:
        film = bench.items["film:a-quiet-orbit"]
        year = film.values("year")[0]
        years = (year, replace(year, value=1950.0), replace(year, value=-7.5))
        bench.upsert(replace(film, attributes={**film.attributes, "year": years}))
        cases = [
            (Filter("year", minimum=1949.0, maximum=1951.0), True),
            (Filter("year", minimum=-8.0, maximum=-7.0), True),
            (Filter("year", minimum=1951.0, maximum=1960.0), False),
            (Filter("year", minimum=-8.0, maximum=-7.0, exclude=True), False),
            (Filter("year", minimum=1951.0, maximum=1960.0, exclude=True), True),
        ]

        for wanted, expected in cases:
            hits = bench.retrieve(replace(text_query("astronaut"), filters=(wanted,)), 100).hits
            assert (film.item_id in ids(hits)) is expected, wanted
            assert all(matches(bench.items[i], (wanted,)) for i in ids(hits)), wanted

    def test_a_killed_engine_is_started_again_by_the_next_search(
        self, bench: Bench, query: Query
    ) -> None:
        before = bench.retrieve(query)
        process_id = bench.generator.process_id
        os.kill(process_id, 9)

        after = bench.retrieve(query)

        assert after == before
        assert bench.generator.process_id != process_id

    def test_the_engine_ends_when_the_retriever_is_closed(self, bench: Bench) -> None:
        process_id = bench.generator.process_id

        bench.stop()

        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)

    def test_a_changed_schema_rebuilds_the_store(self, bench: Bench, query: Query) -> None:
        bench.stop()
        narrower = catalog.SCHEMA.model_copy(
            update={
                "attributes": {n: a for n, a in catalog.SCHEMA.attributes.items() if n != "mood"}
            }
        )
        generator = open_semantic(bench.data_dir, replace(_runtime(bench), schema=narrower))

        restored = generator.projections[0].restore()

        assert restored == 0
        generator.projections[0].apply(bench.log.read(Topic.CATALOG, 0, 1000))
        assert generator.retrieve(query, 5, Deadline.after(5.0)).hits
        generator.close()


def _runtime(bench: Bench) -> Runtime:
    kept: list[Runtime] = []

    def keep(data_dir: Path, runtime: Runtime) -> SemanticRetriever:
        kept.append(runtime)
        return open_semantic(data_dir, runtime)

    Bench(bench.data_dir / "other", keep).open().close()
    return kept[0]


def test_a_server_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        lambda folder, runtime: SemanticRetriever.open(
            SemanticSettings.model_validate(
                {
                    "data_dir": folder,
                    "milvus": {"uri": "http://127.0.0.1:1", "write_timeout_ms": 300},
                }
            ),
            runtime,
        ),
    )
    generator = bench.open()

    with pytest.raises(StartupError, match=r"http://127\.0\.0\.1:1"):
        generator.projections[0].restore()
    generator.close()
    bench.close()


def test_the_engine_is_not_pinged_until_it_hangs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, object]] = []
    channel = grpc.insecure_channel

    def recorded(target: str, options: list[tuple[str, object]], **named: object) -> grpc.Channel:
        opened.append(dict(options))
        return channel(target, options, **named)

    monkeypatch.setattr(grpc, "insecure_channel", recorded)
    connection = MilvusConnection(MilvusSettings(), tmp_path)
    connection.open()
    connection.close()

    # gRPC's largest number means never.
    assert [options["grpc.keepalive_time_ms"] for options in opened] == [2**31 - 1]


def test_every_process_calls_the_collection_the_same() -> None:
    program = """
from pathlib import Path
from forage.testing.catalog import SCHEMA
from generators.semantic.settings import SemanticMilvusSettings
from generators.semantic.store import MilvusStore
store = MilvusStore(
    SemanticMilvusSettings(), Path("data"), schema=SCHEMA, encoder_identity="e", dimension=4
)
print(store.fingerprint)
"""

    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert found[0] == found[1] != ""

"""Milvus's BM25 as the lexical engine: the contract on Milvus Lite, and what a server must have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from forage.errors import StartupError
from forage.retrieval import Query
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench, Generator
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import RetrieverContract, text_query
from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import LexicalSettings
from tests.milvus.server import MilvusServer

MILVUS = LexicalSettings(engine="milvus")
TEXTS = [
    "lantern moon drama",
    "lanter",
    '"copper moon"',
    "lantern -quiet",
    "NOT lantern",
    "year:>2000",
    "lantern OR year:<1990",
    'cast:"mara ellwood" moon',
    "-year:[1990 TO 2005] moon",
    '-"copper moon" moon',
    "(cast:ellwood OR genre:drama) -kind:person",
    "",
]


class TestMilvusLite(RetrieverContract):
    def open_generator(self, data_dir: Path, runtime: Runtime) -> Generator:
        return LexicalRetriever.open(MILVUS.model_copy(update={"data_dir": data_dir}), runtime)

    @pytest.fixture
    def query(self) -> Query:
        return text_query("lantern moon drama")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Bench]]:
    """The same catalogue in Milvus and in tantivy."""
    benches = []
    for settings in (MILVUS, LexicalSettings()):
        folder = tmp_path_factory.mktemp(settings.engine)
        chosen = settings.model_copy(update={"data_dir": folder})
        bench = Bench(folder, partial(_open, chosen))
        bench.upsert(*catalog.items())
        bench.start()
        benches.append(bench)
    yield benches
    for bench in benches:
        bench.close()


def _open(settings: LexicalSettings, folder: Path, runtime: Runtime) -> Generator:
    return LexicalRetriever.open(settings, runtime)


@pytest.mark.parametrize("text", TEXTS)
def test_milvus_answers_as_tantivy_does(text: str, pair: list[Bench]) -> None:
    query = text_query(text)

    milvus, tantivy = (bench.retrieve(query, 100) for bench in pair)

    assert ids(milvus.hits) == ids(tantivy.hits)
    assert [h.score for h in milvus.hits] == pytest.approx([h.score for h in tantivy.hits])


def test_a_server_without_bm25_is_refused_by_setting_and_version(
    tmp_path: Path, shared_server: MilvusServer
) -> None:
    settings = LexicalSettings.model_validate(
        {"engine": "milvus", "milvus": {"uri": shared_server.uri}, "data_dir": tmp_path}
    )
    bench = Bench(tmp_path, lambda _, runtime: LexicalRetriever.open(settings, runtime))

    with pytest.raises(StartupError, match=r"engine: milvus: needs Milvus 2\.5\.0 or newer") as why:
        bench.start()

    assert "v2.3.5" in why.value.message
    bench.close()

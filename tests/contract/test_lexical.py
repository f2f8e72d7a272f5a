from pathlib import Path

import pytest

from forage.retrieval import Query
from forage.services import Runtime
from forage.testing.bench import Generator
from forage.testing.retriever_contract import RetrieverContract, text_query
from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import LexicalSettings


class LexicalContract(RetrieverContract):
    settings = LexicalSettings()

    def open_generator(self, data_dir: Path, runtime: Runtime) -> Generator:
        settings = self.settings.model_copy(update={"data_dir": data_dir})
        return LexicalRetriever.open(settings, runtime)


class TestTantivy(LexicalContract):
    @pytest.fixture
    def query(self) -> Query:
        return text_query("lantern moon drama")


class TestTantivyQueryLanguage(LexicalContract):
    @pytest.fixture
    def query(self) -> Query:
        return text_query('(cast:ellwood OR "tobin achterberg" OR lanter*) -quiet year:<2077.5')


class TestWhoosh(LexicalContract):
    settings = LexicalSettings(engine="whoosh")

    @pytest.fixture
    def query(self) -> Query:
        return text_query("lantern moon drama")

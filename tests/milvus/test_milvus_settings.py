"""Settings that do not go together are refused at start, by name; no server is needed."""

from __future__ import annotations

from typing import Any

import pytest

from forage.errors import StartupError
from forage.settings import load
from generators.milvus import login
from generators.milvus.connection import server_version
from generators.semantic.settings import SemanticMilvusSettings, SemanticSettings
from generators.semantic.vector_index import VectorIndex

SERVER = "http://milvus:19530"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"user": "root"}, "milvus.user: Milvus Lite"),
        ({"token": "secret"}, "milvus.token: Milvus Lite"),
        ({"database": "films"}, "milvus.database: Milvus Lite"),
        ({"uri": "ftp://milvus"}, "milvus.uri: allowed"),
        ({"uri": "http://root:secret@milvus:19530"}, "milvus.uri: credentials"),
        ({"uri": f"{SERVER}/films"}, "set milvus.database"),
        ({"uri": SERVER, "user": "root"}, "milvus.user: user and password"),
        ({"uri": SERVER, "password": "secret"}, "milvus.user: user and password"),
        (
            {"uri": SERVER, "user": "root", "password": "secret", "token": "secret"},
            "milvus.token: allowed",
        ),
        ({"uri": SERVER, "tls_ca_file": __file__}, "milvus.tls_ca_file: http"),
        ({"uri": "https://milvus", "tls_ca_file": "/not/there.pem"}, "there is no file"),
        ({"uri": "https://milvus", "tls_cert_file": __file__}, "tls_key_file must be set"),
        (
            {"uri": "https://milvus", "tls_cert_file": __file__, "tls_key_file": __file__},
            "milvus.tls_ca_file: must be set",
        ),
    ],
)
def test_conflicting_values_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(StartupError) as refused:
        login.check(SemanticMilvusSettings.model_validate(settings))

    assert named in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"uri": SERVER},
        {"uri": SERVER, "user": "root", "password": "secret", "database": "films"},
        {"uri": "https://milvus:443", "token": "secret", "tls_ca_file": __file__},
    ],
)
def test_values_that_go_together_are_accepted(settings: dict[str, Any]) -> None:
    login.check(SemanticMilvusSettings.model_validate(settings))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"index": "HNSW"}, "milvus.index: Milvus Lite has no HNSW"),
        ({"uri": SERVER, "index": "HNSW", "index_params": {"m": 4}}, "HNSW has no 'm'"),
        ({"uri": SERVER, "index": "FLAT", "search_params": {"ef": 4}}, "FLAT has no 'ef'"),
    ],
)
def test_an_index_that_cannot_be_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(StartupError) as refused:
        VectorIndex(SemanticMilvusSettings.model_validate(settings))

    assert named in refused.value.message


def test_a_search_looks_as_far_as_its_limit_and_farther_with_a_filter() -> None:
    index = VectorIndex(
        SemanticMilvusSettings(uri=SERVER, index="HNSW", search_params={"ef": 64}, metric="L2")
    )

    assert index.search_params(10) == {"metric_type": "L2", "params": {"ef": 64}}
    assert index.search_params(200)["params"] == {"ef": 800}
    assert index.search_params(200, 4)["params"] == {"ef": 3_200}
    assert index.search_params(16_000, 64)["params"] == {"ef": 32_768}


def test_squared_distances_become_cosines() -> None:
    index = VectorIndex(SemanticMilvusSettings(metric="L2"))

    assert index.cosine(0.0) == 1.0
    assert index.cosine(2.0) == 0.0
    assert index.cosine(4.0) == -1.0


def test_secrets_come_from_the_environment_and_are_never_shown() -> None:
    loaded = load(
        "semantic",
        SemanticSettings,
        environment={
            "FORAGE_SEMANTIC__MILVUS__URI": SERVER,
            "FORAGE_SEMANTIC__MILVUS__USER": "root",
            "FORAGE_SEMANTIC__MILVUS__PASSWORD": "0123",
        },
    )

    assert loaded.settings.milvus.password.get_secret_value() == "0123"
    assert "0123" not in repr(loaded.settings)


@pytest.mark.parametrize(
    ("said", "numbers"),
    [("v2.3.5-lite", (2, 3, 5)), ("2.6", (2, 6, 0)), ("v2.10.1", (2, 10, 1)), ("cloud", ())],
)
def test_versions_are_compared_by_their_numbers(said: str, numbers: tuple[int, ...]) -> None:
    assert server_version(said) == numbers

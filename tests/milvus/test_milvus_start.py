"""What a start says of a server or a collection that cannot be used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymilvus import DataType, MilvusClient

from forage.errors import StartupError
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.retriever_contract import text_query
from tests.milvus.certificates import authority, signed
from tests.milvus.semantic import collections, drop, open_semantic
from tests.milvus.server import OLD_PACKAGE, MilvusServer

QUERY = text_query("a lonely astronaut in space")


@dataclass(frozen=True)
class Guarded:
    """A server with users and mutual TLS: clients without a certificate are refused."""

    server: MilvusServer
    ca: Path

    def milvus(self, **more: Any) -> dict[str, Any]:
        known = {"tls_ca_file": self.ca, "user": "root", "password": "Milvus"}
        return {name: value for name, value in {**known, **more}.items() if value is not None}

    def client(self, certificate: Path, key: Path, **more: Any) -> MilvusClient:
        return MilvusClient(
            self.server.uri,
            token="root:Milvus",
            ca_pem_path=str(self.ca),
            client_pem_path=str(certificate),
            client_key_path=str(key),
            dedicated=True,
            **more,
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ca = authority(folder)
    certificate, key = signed(folder, ca, "server")
    server = MilvusServer(
        folder / "server",
        authorization_enabled=True,
        tls_mode=2,
        server_pem_path=str(certificate),
        server_key_path=str(key),
        ca_pem_path=str(ca),
    )
    with server:
        yield Guarded(server, ca)


def start(uri: str, tmp_path: Path, milvus: dict[str, Any] | None = None) -> Bench:
    """Open and close a generator on the fixture catalogue; the bench is to be closed."""
    bench = Bench(
        tmp_path,
        lambda folder, runtime: open_semantic(
            uri, folder, runtime, {"connect_timeout_ms": 2_000, **(milvus or {})}
        ),
    )
    try:
        bench.upsert(*catalog.items())
        bench.start()
        assert bench.retrieve(QUERY).hits
    finally:
        bench.close()
    return bench


def refusal(
    uri: str, tmp_path: Path, milvus: dict[str, Any] | None = None, *, within_s: float = 10.0
) -> str:
    began = time.monotonic()
    with pytest.raises(StartupError) as refused:
        start(uri, tmp_path, milvus)
    assert time.monotonic() - began < within_s
    return refused.value.message


def test_an_unreachable_server_is_named_within_the_time(tmp_path: Path) -> None:
    message = refusal("http://127.0.0.1:1", tmp_path)

    assert message.startswith("milvus.uri: ")
    assert "http://127.0.0.1:1" in message
    assert "milvus.connect_timeout_ms" in message


def test_a_server_that_accepts_and_says_nothing_is_named_within_the_time(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()

        message = refusal(f"http://127.0.0.1:{mute.getsockname()[1]}", tmp_path)

    assert message.startswith("milvus.uri: ")


def test_a_host_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "no.such.host.invalid" in refusal("http://no.such.host.invalid:19530", tmp_path)


def test_a_database_that_does_not_exist_is_named(
    tmp_path: Path, shared_server: MilvusServer
) -> None:
    message = refusal(shared_server.uri, tmp_path, {"database": "nowhere"})

    assert message.startswith("milvus.database: ")
    assert "'nowhere'" in message


@pytest.mark.timeout(180)
@pytest.mark.skipif(not OLD_PACKAGE, reason="FORAGE_MILVUS_SERVER_OLD names no older server")
def test_a_server_of_an_old_version_is_refused(tmp_path: Path) -> None:
    with MilvusServer(tmp_path / "old", package=OLD_PACKAGE) as old:
        # Its first answer takes seconds: it calls itself healthy before it is.
        message = refusal(old.uri, tmp_path, {"connect_timeout_ms": 30_000}, within_s=40.0)

    assert "needs Milvus 2.3.2 or newer" in message
    assert message.startswith("milvus.uri: ")


class TestGuarded:
    def test_user_password_tls_and_database_are_used(
        self, tmp_path: Path, guarded: Guarded
    ) -> None:
        certificate, key = signed(tmp_path, guarded.ca, "client")
        tls = {"tls_cert_file": certificate, "tls_key_file": key}
        client = guarded.client(certificate, key)
        client.create_database("films")
        with_user = guarded.milvus(database="films", **tls)
        with_token = guarded.milvus(
            database="films", token="root:Milvus", user=None, password=None, **tls
        )

        start(guarded.server.uri, tmp_path, with_user)
        start(guarded.server.uri, tmp_path, with_token)

        films = guarded.client(certificate, key, db_name="films")
        assert client.list_collections() == []
        assert len(films.list_collections()) == 1
        client.close()
        films.close()

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"password": "wrong"}, "milvus.user: "),
            ({"user": None, "password": None, "token": "root:wrong"}, "milvus.token: "),
            ({"user": None, "password": None}, "milvus.user: "),
        ],
    )
    def test_wrong_credentials_are_named(
        self, tmp_path: Path, guarded: Guarded, given: dict[str, Any], named: str
    ) -> None:
        certificate, key = signed(tmp_path, guarded.ca, "client")
        tls = {"tls_cert_file": certificate, "tls_key_file": key}

        message = refusal(guarded.server.uri, tmp_path, guarded.milvus(**tls, **given))

        assert message.startswith(named)
        assert "wrong" not in message

    def test_an_authority_that_did_not_sign_is_named(
        self, tmp_path: Path, guarded: Guarded
    ) -> None:
        other = authority(tmp_path, "other")

        message = refusal(guarded.server.uri, tmp_path, guarded.milvus(tls_ca_file=other))

        assert message.startswith("milvus.tls_ca_file: ")

    def test_the_command_line_says_why_and_ends_with_a_status(
        self, tmp_path: Path, guarded: Guarded
    ) -> None:
        certificate, key = signed(tmp_path, guarded.ca, "client")
        settings = {
            "URI": guarded.server.uri,
            "USER": "root",
            "PASSWORD": "wrong",
            "TLS_CA_FILE": str(guarded.ca),
            "TLS_CERT_FILE": str(certificate),
            "TLS_KEY_FILE": str(key),
        }
        environment = {f"FORAGE_SEMANTIC__MILVUS__{n}": v for n, v in settings.items()}
        environment["FORAGE_SEMANTIC__DATA_DIR"] = str(tmp_path)
        environment["FORAGE_SEMANTIC__SERVER__PORT"] = "0"

        ended = subprocess.run(
            [sys.executable, "-m", "forage.cli", "serve", "semantic"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

        assert ended.returncode == 2
        assert "milvus.user: " in ended.stderr
        assert "wrong" not in ended.stderr


class TestIncompatible:
    @pytest.fixture
    def made(self, tmp_path: Path, shared_server: MilvusServer) -> Iterator[tuple[str, str]]:
        """A collection that the generator has made, by address and name."""
        uri = shared_server.uri
        start(uri, tmp_path)
        yield uri, collections(uri, tmp_path)[0]
        drop(uri, tmp_path)

    def replaced(self, uri: str, name: str, *, dimension: int, more: str = "") -> None:
        client = MilvusClient(uri, dedicated=True)
        client.drop_collection(name)
        schema = client.create_schema(auto_id=False)
        schema.add_field("item_id", DataType.VARCHAR, is_primary=True, max_length=100)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        if more:
            schema.add_field(more, DataType.INT64)
        client.create_collection(name, schema=schema)
        client.close()

    def test_other_fields_and_dimensions_are_named(
        self, tmp_path: Path, made: tuple[str, str]
    ) -> None:
        uri, name = made
        self.replaced(uri, name, dimension=8, more="price")

        message = refusal(uri, tmp_path)

        assert message.startswith(f"milvus.collection: '{name}'")
        for problem in ("field price is not known", "field kind is missing", "8 dimensions", "384"):
            assert problem in message
        assert "Drop it" in message

    @pytest.mark.parametrize(
        ("milvus", "named"),
        [
            ({"index": "HNSW"}, "milvus.index: it has FLAT, the setting is HNSW"),
            ({"metric": "L2"}, "milvus.metric: it has IP, the setting is L2"),
        ],
    )
    def test_another_index_or_metric_is_named(
        self, tmp_path: Path, made: tuple[str, str], milvus: dict[str, Any], named: str
    ) -> None:
        message = refusal(made[0], tmp_path, milvus)

        assert message.startswith(named)
        assert "drop its index" in message

    def test_other_parameters_of_an_index_are_named(
        self, tmp_path: Path, made: tuple[str, str]
    ) -> None:
        uri, name = made
        client = MilvusClient(uri, dedicated=True)
        client.release_collection(name)
        client.drop_index(name, "vector")
        client.close()
        start(uri, tmp_path, {"index": "HNSW"})

        message = refusal(uri, tmp_path, {"index": "HNSW", "index_params": {"M": 16}})

        assert message.startswith("milvus.index_params: it has M 32, the setting is 16")

    def test_a_collection_of_another_log_is_named(
        self, tmp_path: Path, made: tuple[str, str]
    ) -> None:
        uri, name = made
        client = MilvusClient(uri, dedicated=True)
        client.alter_collection_properties(
            name, {"forage.state": '{"sequence": 1000, "rows": 5, "most_numbers": {}}'}
        )
        client.close()

        message = refusal(uri, tmp_path)

        assert message.startswith(f"milvus.collection: '{name}' has the catalogue up to")
        assert "another log" in message

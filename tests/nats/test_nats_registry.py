"""The registry on a real nats-server keeps the contract, and leaves nothing behind."""

from collections.abc import Iterator

import pytest

from forage.errors import StorageError
from forage.log.nats_connection import NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_log import NatsEventLog
from forage.log.nats_registry import NatsRegistry
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings
from forage.testing.registry_contract import NOW, Opener, RegistryContract
from tests.nats.server import NatsServer


@pytest.fixture
def connection(shared_server: NatsServer, settings: NatsSettings) -> Iterator[NatsConnection]:
    connection = NatsConnection.open(shared_server.url, settings)
    NatsEventLog.on(connection)
    yield connection
    connection.close()


@pytest.fixture
def registry(connection: NatsConnection) -> NatsRegistry:
    return NatsRegistry(connection)


class TestNatsRegistry(RegistryContract):
    @pytest.fixture
    def opener(self, connection: NatsConnection) -> Opener:
        return lambda: NatsRegistry(connection, clock=lambda: NOW)


def test_pruning_leaves_no_bytes(
    registry: NatsRegistry, connection: NatsConnection, settings: NatsSettings
):
    registry.publish("ranker", b"1", {})
    for index in range(2, 7):
        registry.publish("ranker", str(index).encode(), {}, make_current=False)

    registry.prune("ranker", keep=2)

    store = f"STREAM.INFO.OBJ_{Layout(settings).artifacts}"
    assert connection.run(connection.api(store), "look")["state"]["messages"] == 2 * 3


def test_a_damaged_payload_and_a_damaged_entry_are_named(
    registry: NatsRegistry, connection: NatsConnection, settings: NatsSettings
):
    registry.publish("ranker", b"trees", {})
    registry.publish("policy", b"x", {})
    artifacts = f"OBJ_{Layout(settings).artifacts}"
    chunks = f"$O.{Layout(settings).artifacts}.C.>"
    connection.run(connection.api(f"STREAM.PURGE.{artifacts}", filter=chunks), "damage")
    entries = Entries(connection, Layout(settings).registry)
    connection.run(entries.put("policy", b"\x00{"), "damage")

    with pytest.raises(StorageError, match=r"object .ranker-.* is damaged"):
        registry.load("ranker")
    with pytest.raises(StorageError, match="'policy' is damaged"):
        registry.current("policy")

"""The registry and the leases on a real nats-server keep the promises of the folders."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event

import pytest

from forage.errors import ConflictError, InvalidArgumentError, NotFoundError, StorageError
from forage.log.nats_connection import NatsConnection
from forage.log.nats_entries import Entries
from forage.log.nats_lease import NatsLease
from forage.log.nats_log import NatsEventLog
from forage.log.nats_registry import NatsRegistry
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings
from tests.nats.server import NatsServer


@pytest.fixture
def connection(shared_server: NatsServer, settings: NatsSettings) -> Iterator[NatsConnection]:
    connection = NatsConnection.open(shared_server.url, settings)
    NatsEventLog.on(connection)
    yield connection
    connection.close()


@pytest.fixture
def registry(connection: NatsConnection) -> NatsRegistry:
    return NatsRegistry(connection, clock=lambda: 1_700_000_000.0)


@pytest.fixture
def lease(connection: NatsConnection) -> NatsLease:
    return NatsLease(connection)


def acquire_and_hang(url: str, settings: NatsSettings, acquired: Event) -> None:
    if NatsLease(NatsConnection.open(url, settings)).acquire("learner", "other", 1.0):
        acquired.set()
    signal.pause()


def test_what_was_published_is_current_and_comes_back(registry: NatsRegistry):
    payload = bytes(range(256)) * 4_000

    info = registry.publish("ranker", payload, {"ndcg": 0.5, "features": ["a", "b"]})

    assert (info.version, info.size, info.parent) == (1, len(payload), None)
    assert registry.current("ranker") == info
    assert registry.load("ranker") == (info, payload)
    assert registry.history("ranker") == [info]


def test_an_empty_payload_is_a_payload(registry: NatsRegistry):
    registry.publish("policy", b"", {})

    assert registry.load("policy")[1] == b""


def test_without_a_version_there_is_nothing_to_load(registry: NatsRegistry):
    assert registry.current("ranker") is None
    assert registry.history("ranker") == []
    assert not registry.changed("ranker", None)
    with pytest.raises(NotFoundError, match="no current ranker"):
        registry.load("ranker")


def test_publishing_over_an_unexpected_current_version_stores_nothing(registry: NatsRegistry):
    registry.publish("policy", b"1", {})

    with pytest.raises(ConflictError) as conflict:
        registry.publish("policy", b"2", {}, expected_current=None)

    assert conflict.value.metadata == {"kind": "policy", "current": "1", "expected": "None"}
    assert [info.version for info in registry.history("policy")] == [1]


def test_rolling_back_is_a_compare_and_set(registry: NatsRegistry):
    registry.publish("ranker", b"old", {})
    registry.publish("ranker", b"new", {}, expected_current=1)

    with pytest.raises(ConflictError):
        registry.set_current("ranker", 1, expected=1)
    info = registry.set_current("ranker", 1, expected=2)

    assert info.version == 1
    assert registry.load("ranker")[1] == b"old"


def test_an_unknown_version_cannot_be_loaded_or_made_current(registry: NatsRegistry):
    registry.publish("ranker", b"x", {})

    with pytest.raises(NotFoundError, match="version 9"):
        registry.load("ranker", 9)
    with pytest.raises(NotFoundError, match="version 9"):
        registry.set_current("ranker", 9, expected=1)


def test_of_many_concurrent_publishers_one_wins(connection: NatsConnection):
    def publish(index: int) -> int | None:
        try:
            payload = str(index).encode()
            registry = NatsRegistry(connection)
            return registry.publish("policy", payload, {}, expected_current=None).version
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [version for version in pool.map(publish, range(16)) if version is not None]

    assert won == [1]
    assert len(NatsRegistry(connection).history("policy")) == 1


def test_candidates_published_at_once_get_different_versions(connection: NatsConnection):
    registry = NatsRegistry(connection)

    def publish(index: int) -> tuple[int, bytes]:
        payload = str(index).encode()
        return registry.publish("ranker", payload, {}, make_current=False).version, payload

    with ThreadPoolExecutor(8) as pool:
        published = sorted(pool.map(publish, range(16)))

    assert [version for version, _ in published] == list(range(1, 17))
    assert all(registry.load("ranker", version)[1] == payload for version, payload in published)


def test_only_another_current_version_is_a_change(registry: NatsRegistry):
    registry.publish("policy", b"1", {})

    assert registry.changed("policy", None)
    assert not registry.changed("policy", 1)
    registry.publish("policy", b"2", {}, make_current=False)
    assert not registry.changed("policy", 1)
    registry.set_current("policy", 2, expected=1)
    assert registry.changed("policy", 1)


def test_pruning_keeps_the_newest_and_the_current_and_leaves_no_bytes(
    registry: NatsRegistry, connection: NatsConnection, settings: NatsSettings
):
    registry.publish("ranker", b"1", {})
    for index in range(2, 7):
        registry.publish("ranker", str(index).encode(), {}, make_current=False)

    removed = registry.prune("ranker", keep=2)

    assert removed == [2, 3, 4]
    assert [info.version for info in registry.history("ranker")] == [6, 5, 1]
    assert registry.prune("ranker", keep=2) == []
    assert registry.publish("ranker", b"7", {}, make_current=False).version == 7
    with pytest.raises(NotFoundError):
        registry.load("ranker", 3)
    store = f"STREAM.INFO.OBJ_{Layout(settings).artifacts}"
    assert connection.run(connection.api(store), "look")["state"]["messages"] == 2 * 4


def test_a_pruned_version_number_is_not_given_out_again(registry: NatsRegistry):
    for index in range(3):
        registry.publish("ranker", str(index).encode(), {}, make_current=False)
    registry.prune("ranker", keep=1)

    assert registry.publish("ranker", b"new", {}).version == 4
    with pytest.raises(ValueError, match="at least 1"):
        registry.prune("ranker", keep=0)


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


@pytest.mark.parametrize("kind", ["", "../policy", "a.b", "Policy", ".hidden"])
def test_a_kind_that_is_no_name_is_refused(registry: NatsRegistry, kind: str):
    with pytest.raises(InvalidArgumentError):
        registry.publish(kind, b"", {})


def test_metadata_must_be_json(registry: NatsRegistry):
    with pytest.raises(ValueError, match="JSON"):
        registry.publish("ranker", b"", {"loss": float("nan")})
    with pytest.raises(ValueError, match="make_current"):
        registry.publish("ranker", b"", {}, make_current=False, expected_current=1)


def test_only_one_holder_has_the_lease(lease: NatsLease):
    assert lease.acquire("learner", "a", 10.0)
    assert lease.acquire("learner", "a", 10.0)
    assert not lease.acquire("learner", "b", 10.0)
    assert lease.acquire("trainer", "b", 10.0)


def test_a_lease_that_is_not_renewed_is_free_after_its_time(lease: NatsLease):
    lease.acquire("learner", "a", 1.0)
    began = time.monotonic()

    while not lease.acquire("learner", "b", 10.0):
        assert time.monotonic() < began + 5.0
        time.sleep(0.05)

    assert 0.9 < time.monotonic() - began < 3.5
    assert not lease.renew("learner", "a", 10.0), "its former holder must learn that it is lost"


def test_renewing_extends_the_lease(lease: NatsLease):
    lease.acquire("learner", "a", 1.0)
    end = time.monotonic() + 2.5

    while time.monotonic() < end:
        assert lease.renew("learner", "a", 1.0)
        assert not lease.acquire("learner", "b", 1.0)
        time.sleep(0.1)


def test_a_released_lease_is_free_at_once(lease: NatsLease):
    assert not lease.renew("learner", "a", 10.0), "it was never held"
    lease.acquire("learner", "a", 10.0)

    lease.release("learner", "b")
    assert not lease.acquire("learner", "b", 10.0), "only the holder can release it"
    lease.release("learner", "a")
    lease.release("learner", "a")
    assert not lease.renew("learner", "a", 10.0)
    assert lease.acquire("learner", "b", 10.0)


def test_of_many_at_once_one_acquires(lease: NatsLease):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda index: lease.acquire("x", str(index), 60.0), range(24)))

    assert won.count(True) == 1


def test_the_lease_of_a_killed_process_is_taken_over(
    lease: NatsLease, shared_server: NatsServer, settings: NatsSettings
):
    processes = multiprocessing.get_context("spawn")
    acquired = processes.Event()
    holder = processes.Process(
        target=acquire_and_hang, args=(shared_server.url, settings, acquired)
    )
    holder.start()
    assert acquired.wait(30.0)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    end = time.monotonic() + 5.0

    while not lease.acquire("learner", "heir", 60.0):
        assert time.monotonic() < end
        time.sleep(0.05)

    assert lease.renew("learner", "heir", 60.0)


def test_bad_arguments_of_a_lease_are_refused(lease: NatsLease):
    with pytest.raises(InvalidArgumentError):
        lease.acquire("../learner", "a", 10.0)
    with pytest.raises(ValueError, match="ttl_s"):
        lease.acquire("learner", "a", 0.0)

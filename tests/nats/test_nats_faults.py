"""What goes wrong with a NATS server while it is used, and that nothing acknowledged is lost."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from forage.errors import ForageError, InvalidArgumentError, StorageError
from forage.log.follower import Follower
from forage.log.interface import Record, Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_log import LogFullError, NatsEventLog
from forage.log.nats_reading import unbroken
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings
from forage.testing.log_contract import event
from tests.nats.server import NatsServer
from tests.waiting import eventually


class Writer(threading.Thread):
    """Appends single events and batches, each until it is acknowledged."""

    def __init__(self, log: NatsEventLog, name: str) -> None:
        super().__init__()
        self.acknowledged: dict[str, int] = {}
        self.failures = 0
        self.stopping = threading.Event()
        self._log = log
        self._name = name

    def run(self) -> None:
        for number in itertools.count():
            keys = [f"{self._name}-{number}-{part}" for part in range(1 + number % 5)]
            while not self._append(keys):
                time.sleep(0.02)
            if self.stopping.is_set():
                return

    def _append(self, keys: list[str]) -> bool:
        try:
            given = self._log.append([event(Stream.FEEDBACK, key) for key in keys])
        except StorageError:
            self.failures += 1
            return False
        self.acknowledged |= dict(zip(keys, given, strict=True))
        return True


def stored(log: NatsEventLog) -> dict[str, int]:
    records = log.read(Topic.INTERACTIONS, 0, 1_000_000)
    found = {record.key: record.sequence for record in records}
    assert len(found) == len(records), "an event is there twice"
    return found


def crash(server: NatsServer) -> None:
    server.kill()
    time.sleep(0.3)
    server.start()


def partition(server: NatsServer) -> None:
    """Longer than a silent server is waited for, so that clients give it up in the middle."""
    server.pause()
    time.sleep(4.0)
    server.resume()


@pytest.mark.parametrize("fault", [crash, partition])
def test_a_server_that_goes_and_comes_back_loses_nothing_acknowledged_and_takes_nothing_twice(
    server: NatsServer, fault: Callable[[NatsServer], None]
):
    with closing(NatsEventLog.open(server.url)) as log:
        writers = [Writer(log, name) for name in "ab"]
        for writer in writers:
            writer.start()
        for _ in range(3):
            before = [len(w.acknowledged) for w in writers]
            eventually(
                lambda b=before: all(
                    len(w.acknowledged) > n + 30 for w, n in zip(writers, b, strict=True)
                )
            )
            fault(server)
        for writer in writers:
            writer.stopping.set()
            writer.join(20.0)
        acknowledged = writers[0].acknowledged | writers[1].acknowledged
        found = stored(log)

    assert found == acknowledged
    assert sorted(found.values()) == list(range(1, len(found) + 1))
    assert all(writer.failures for writer in writers)


def test_calls_fail_at_once_while_the_server_is_away_and_work_when_it_is_back(server: NatsServer):
    with closing(NatsEventLog.open(server.url)) as log:
        server.kill()
        eventually(lambda: not log._connection.client.is_connected)
        began = time.monotonic()
        with pytest.raises(StorageError, match="not connected"):
            log.append([event(Stream.FEEDBACK, "x")])
        with pytest.raises(StorageError, match="not connected"):
            log.wait(Topic.CATALOG, 0, 10.0)
        assert time.monotonic() - began < 1.0
        server.start()

        eventually(lambda: log._connection.client.is_connected)

        assert log.append([event(Stream.FEEDBACK, "x")]) == [1]


def test_a_server_that_says_nothing_is_given_up(server: NatsServer):
    with closing(NatsEventLog.open(server.url)) as log:
        server.pause()
        began = time.monotonic()
        try:
            with pytest.raises(StorageError, match="may have been done"):
                log.append([event(Stream.FEEDBACK, "x")])
            assert time.monotonic() - began < 6.0
        finally:
            server.resume()
        eventually(lambda: log._connection.client.is_connected)

        assert log.append([event(Stream.FEEDBACK, "x")]) == [1], "it is there once, done or not"


def test_what_a_slow_client_dropped_is_read_again_and_nothing_is_taken_out_of_order():
    def message(sequence: int, before: int) -> Msg:
        headers = {
            "Nats-Sequence": str(sequence),
            "Nats-Last-Sequence": str(before),
            "Nats-Subject": "forage.log.feedback.x",
        }
        return Msg(Client(), data=b"x", headers=headers)

    whole = [message(4, 0), message(6, 4), message(9, 6)]

    assert [m.sequence for m in unbroken(whole)] == [4, 6, 9]
    assert [m.sequence for m in unbroken([whole[0], whole[2]])] == [4]
    assert unbroken(whole[1:]) == []


class Slow:
    """A projection that takes its time and keeps what it saw."""

    name = "slow"
    topic = Topic.INTERACTIONS
    streams = (Stream.FEEDBACK,)

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = threading.Event()

    def restore(self) -> int:
        return 0

    def apply(self, records: Sequence[Record]) -> None:
        self.gate.wait(30.0)
        self.seen += [record.sequence for record in records]

    def checkpoint(self, sequence: int) -> None:
        """Keep nothing."""


def test_a_consumer_that_falls_behind_catches_up(shared_server: NatsServer, settings: NatsSettings):
    slow = Slow()
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        follower = Follower(log, [slow], batch=700)
        follower.start()
        for start in range(0, 5_000, 500):
            log.append([event(Stream.FEEDBACK, str(start + i), b"x" * 2_000) for i in range(500)])
        slow.gate.set()

        eventually(lambda: follower.applied("slow") == 5_000)
        follower.stop()

    assert slow.seen == list(range(1, 5_001))


@pytest.mark.parametrize(
    ("stream", "setting"),
    [
        (Stream.FEEDBACK, "interactions_max_bytes"),
        (Stream.CATALOG, "catalog_max_bytes"),
    ],
)
def test_a_full_stream_refuses_by_name_keeps_what_it_has_and_can_grow(
    shared_server: NatsServer, settings: NatsSettings, stream: Stream, setting: str
):
    small = settings.model_copy(update={setting: 100_000})
    with closing(NatsEventLog.open(shared_server.url, small)) as log:
        acknowledged = 0

        def fill() -> None:
            nonlocal acknowledged
            for number in range(1_000):
                log.append([event(stream, str(number), b"x" * 1_000)])
                acknowledged += 1

        with pytest.raises(LogFullError) as full:
            fill()
        with pytest.raises(LogFullError):
            log.append([event(stream, f"batch-{n}", b"x" * 1_000) for n in range(200)])
        kept = len(log.read(stream.topic, 0, 10_000))
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        log.append([event(stream, "more", b"x" * 1_000)])

    assert 50 < acknowledged < 100
    assert kept == acknowledged
    assert full.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert full.value.metadata["setting"] == f"nats.{setting}"
    assert f"nats.{setting}" in full.value.message


def test_a_full_catalog_still_replaces_items(shared_server: NatsServer, settings: NatsSettings):
    small = settings.model_copy(update={"catalog_max_bytes": 100_000})
    with closing(NatsEventLog.open(shared_server.url, small)) as log:
        for number in range(500):
            log.append([event(Stream.CATALOG, str(number % 50), b"x" * 1_000)])

        assert len(log.read(Topic.CATALOG, 0, 1_000)) == 50


def test_a_repeat_is_found_after_the_server_has_forgotten_its_id(
    shared_server: NatsServer, settings: NatsSettings
):
    forgetful = settings.model_copy(update={"duplicate_window_s": 1.0})
    with closing(NatsEventLog.open(shared_server.url, forgetful)) as log:
        first = log.append([event(Stream.FEEDBACK, "x", b"first")])
        time.sleep(2.5)
        again = log.append([event(Stream.FEEDBACK, "x", b"second")])

        assert first == again == [1]
        assert log.head(Topic.INTERACTIONS) == 1


def test_large_appends_and_reads_keep_their_order(
    shared_server: NatsServer, settings: NatsSettings
):
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        given = log.append([event(Stream.CATALOG, str(n), b"x" * 500) for n in range(2_500)])
        decisions = [event(Stream.DECISIONS, str(n), b"x" * 40_000) for n in range(300)]
        log.append(decisions)
        repeated = log.append([*decisions[:5], event(Stream.FEEDBACK, "f"), *decisions[290:]])

        assert given == list(range(1, 2_501))
        assert [r.sequence for r in log.read(Topic.CATALOG, 0, 10_000)] == given
        assert [r.sequence for r in log.read(Topic.INTERACTIONS, 0, 1_000)] == list(range(1, 302))
        assert repeated == [1, 2, 3, 4, 5, 301, *range(291, 301)]


def test_keys_that_are_no_subjects_are_kept_apart(
    shared_server: NatsServer, settings: NatsSettings
):
    keys = ["", " ", ".", "*", ">", "a.b", "a b", "%", "%20", "A", "a", "x" * 1_000, "x" * 1_001]
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        log.append([event(Stream.FEEDBACK, key) for key in keys])

        assert [r.key for r in log.read(Topic.INTERACTIONS, 0, 100)] == keys
        found = [log.get(Stream.FEEDBACK, key) for key in keys]
        assert [record and record.key for record in found] == keys


def test_an_event_above_the_message_size_is_refused_by_name(
    shared_server: NatsServer, settings: NatsSettings
):
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        with pytest.raises(InvalidArgumentError, match=r"'big'.*max_payload"):
            log.append([event(Stream.CATALOG, "big", b"x" * 1_048_576)])

        assert log.head(Topic.CATALOG) == 0


def test_a_stream_that_was_replaced_is_noticed(shared_server: NatsServer, settings: NatsSettings):
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        log.append([event(Stream.FEEDBACK, "x")])
        admin = NatsConnection.open(shared_server.url, settings)
        name = Layout(settings).stream(Topic.INTERACTIONS)
        admin.run(admin.api(f"STREAM.DELETE.{name}"), "delete it")
        admin.close()
        with pytest.raises(StorageError, match="not found"):
            log.head(Topic.INTERACTIONS)
        with pytest.raises(ForageError):
            log.append([event(Stream.FEEDBACK, "y")])
        NatsEventLog.open(shared_server.url, settings).close()

        with pytest.raises(StorageError, match="replaced"):
            log.head(Topic.INTERACTIONS)


def test_what_others_wrote_into_the_stream_is_named(
    shared_server: NatsServer, settings: NatsSettings
):
    with closing(NatsEventLog.open(shared_server.url, settings)) as log:
        connection = log._connection
        subject = Layout(settings).subject(Stream.FEEDBACK, "stranger")
        connection.run(connection.request(subject, b"hello"), "write")

        with pytest.raises(StorageError, match="not an event of Forage"):
            log.read(Topic.INTERACTIONS, 0, 10)


def test_a_client_that_was_expelled_comes_back_when_its_login_is_valid_again(tmp_path: Path):
    login = 'authorization { user: ada, password: "%s" }'
    settings = NatsSettings(user="ada", password="right")
    with NatsServer(tmp_path, login % "right") as server:
        log = NatsEventLog.open(server.url, settings)
        server.configure(login % "changed")
        server.reload()
        eventually(lambda: not log._connection.client.is_connected)
        with pytest.raises(StorageError, match="not connected"):
            log.head(Topic.CATALOG)
        server.configure(login % "right")
        server.reload()

        eventually(lambda: log._connection.client.is_connected)
        assert log.append([event(Stream.FEEDBACK, "x")]) == [1]
        assert not log.wait(Topic.INTERACTIONS, 1, 0.05)
        log.close()


@pytest.mark.parametrize(
    ("lose", "regain"),
    [(NatsServer.kill, NatsServer.start), (NatsServer.pause, NatsServer.resume)],
    ids=["killed", "partitioned"],
)
def test_three_replicas_survive_the_loss_of_any_one(
    tmp_path: Path, lose: Callable[[NatsServer], None], regain: Callable[[NatsServer], object]
):
    servers = cluster(tmp_path)
    url = ",".join(server.url for server in servers)
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        settings = NatsSettings(replicas=3, connect_timeout_ms=20_000)
        opened: list[NatsEventLog] = []

        def settled() -> bool:
            # Until the servers have elected a leader, JetStream is not there.
            try:
                opened.append(NatsEventLog.open(url, settings))
            except ForageError:
                return False
            return True

        eventually(settled, 40.0)
        (log,) = opened
        writer = Writer(log, "w")
        writer.start()
        for server in servers:
            before = len(writer.acknowledged)
            eventually(lambda b=before: len(writer.acknowledged) > b + 30, 40.0)
            lose(server)
            before = len(writer.acknowledged)
            eventually(lambda b=before: len(writer.acknowledged) > b + 30, 40.0)
            regain(server)
        writer.stopping.set()
        writer.join(40.0)
        found: dict[str, int] = {}

        def read() -> bool:
            # A server that has just come back may still be without a leader.
            try:
                found.update(stored(log))
            except StorageError:
                return False
            return True

        eventually(read, 40.0)
        log.close()
    finally:
        for server in servers:
            server.stop()

    assert {key: found.get(key) for key in writer.acknowledged} == writer.acknowledged
    assert set(found) == set(writer.acknowledged)


def cluster(folder: Path) -> list[NatsServer]:
    servers = [NatsServer(folder / name) for name in ("a", "b", "c")]
    routes = [NatsServer(folder / f"route-{name}").port for name in ("a", "b", "c")]
    addresses = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    for server, port, name in zip(servers, routes, "abc", strict=True):
        server.configure(
            f'server_name: {name}\ncluster {{ name: test, listen: "127.0.0.1:{port}",'
            f" routes: [{addresses}] }}"
        )
    return servers

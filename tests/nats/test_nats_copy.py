"""A log moves from SQLite to NATS and back, unchanged, whatever interrupts it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from forage.errors import FailedPreconditionError
from forage.log.copying import content, copy_log, copy_registry
from forage.log.engines import open_storage
from forage.log.interface import Event, Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_log import NatsEventLog
from forage.log.nats_streams import Layout
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.settings import NatsSettings, ServiceSettings
from tests.nats.server import NatsServer
from tests.unit.test_log_copying import fill, records


def test_there_and_back_again_is_the_same_log(
    shared_server: NatsServer, settings: NatsSettings, tmp_path: Path
):
    with (
        closing(SqliteEventLog.open(tmp_path / "source.db")) as source,
        closing(NatsEventLog.open(shared_server.url, settings)) as between,
        closing(SqliteEventLog.open(tmp_path / "back.db")) as back,
    ):
        fill(source)
        there = copy_log(source, between)
        here = copy_log(between, back)

        assert [c.content for c in there] == [c.content for c in here]
        for topic in Topic:
            assert records(back, topic) == records(between, topic) == records(source, topic)
            assert back.head(topic) == between.head(topic) == source.head(topic)


def test_a_registry_moves_there_and_back_with_its_numbers(
    shared_server: NatsServer, settings: NatsSettings, tmp_path: Path
):
    source, back = DirectoryRegistry(tmp_path / "source"), DirectoryRegistry(tmp_path / "back")
    for number in range(1, 8):
        source.publish("ranker", bytes(200_000) + bytes([number]), {}, make_current=False)
    source.set_current("ranker", 6, expected=None)
    source.prune("ranker", keep=3)
    service = ServiceSettings(log_url=shared_server.url, nats=settings)
    storage = open_storage(service)

    for _ in range(2):
        copy_registry(source, storage.registry)
    copy_registry(storage.registry, back)

    assert back.history("ranker") == storage.registry.history("ranker") == source.history("ranker")
    assert back.load("ranker") == source.load("ranker")
    assert storage.registry.publish("ranker", b"", {}, make_current=False).version == 8
    storage.close()


def test_the_command_killed_on_its_way_goes_on_and_is_verified(server: NatsServer, tmp_path: Path):
    path = tmp_path / "source.db"
    with closing(SqliteEventLog.open(path)) as source:
        fill(source, count=12_000)
        wanted = [content(source, topic, source.head(topic)) for topic in Topic]
    environment = {
        **os.environ,
        "FORAGE_LOG__NATS__USER": "ada",
        "FORAGE_LOG__NATS__PASSWORD": "0123",
    }
    server.stop()
    server.configure('authorization { user: ada, password: "0123" }')
    server.start()
    command = [sys.executable, "-m", "forage.cli", "log", "copy", f"sqlite:{path}", server.url]
    settings = NatsSettings(user="ada", password="0123")
    with closing(NatsEventLog.open(server.url, settings)) as target:
        heads = []
        for _ in range(2):
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as running:
                begun = target.head(Topic.CATALOG)
                while running.poll() is None and target.head(Topic.CATALOG) < begun + 1_500:
                    time.sleep(0.01)
                running.send_signal(signal.SIGKILL)
            heads.append(target.head(Topic.CATALOG))
        server.kill()
        server.start()

        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

        assert 1_500 <= heads[0] < heads[1] < 12_000
        assert done.returncode == 0, done.stderr
        assert all(each.digest[:16] in done.stdout for each in wanted)
        found = [content(target, topic, target.head(topic)) for topic in Topic]
    assert found == wanted


def test_a_log_that_has_forgotten_is_refused(
    shared_server: NatsServer, settings: NatsSettings, tmp_path: Path
):
    with (
        closing(NatsEventLog.open(shared_server.url, settings)) as source,
        closing(SqliteEventLog.open(tmp_path / "target.db")) as target,
    ):
        source.append([Event(Stream.FEEDBACK, str(n), b"", 1.0) for n in range(10)])
        connection = NatsConnection.open(shared_server.url, settings)
        name = Layout(settings).stream(Topic.INTERACTIONS)
        connection.run(connection.api(f"STREAM.PURGE.{name}", seq=5), "forget")
        connection.close()

        with pytest.raises(FailedPreconditionError, match="sequences 1 to 4"):
            copy_log(source, target)

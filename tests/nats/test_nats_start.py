"""A start that cannot work says which setting is at fault, and what is allowed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forage.errors import StartupError
from forage.log.engines import open_log, open_storage
from forage.log.interface import Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_log import NatsEventLog
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings, ServiceSettings
from forage.testing.log_contract import event
from tests.nats.refusals import QUICK, refusal
from tests.nats.server import OLD_BINARY, NatsServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_cannot_be_reached_is_named_with_the_setting():
    url = f"nats://127.0.0.1:{free_port()}"

    message = refusal(url, NatsSettings(**QUICK))

    assert message.startswith("log_url: cannot reach NATS")
    assert url in message
    assert "Connect call failed" in message


def test_something_else_at_the_address_is_not_nats():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"

        assert refusal(url, NatsSettings(**QUICK)).startswith("log_url: cannot reach NATS")


def test_a_service_without_its_server_exits_with_status_2_and_says_why(tmp_path: Path):
    url = f"nats://127.0.0.1:{free_port()}"

    serve = [sys.executable, "-m", "forage.cli", "serve", "lexical", "--data", str(tmp_path)]
    done = subprocess.run(
        [*serve, "--set", f"log_url={url}", "--set", "nats.connect_timeout_ms=500"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert f"error: log_url: cannot reach NATS at {url}" in done.stderr
    assert "Traceback" not in done.stderr


def serving(url: str, data: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forage.cli", "serve", "lexical", "--data", str(data)]
    for flag in (f"log_url={url}", *flags):
        command += ["--set", flag]
    password = {"FORAGE_LEXICAL__NATS__PASSWORD": "wrong"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **(password if "nats.user=ada" in flags else {})},
    )


OTHER_LAYOUT = {"name": "taken_catalog", "subjects": ["taken.log.catalog.*"]}


@pytest.mark.parametrize(
    ("configured", "binary", "flags", "named"),
    [
        ("", OLD_BINARY, (), ("log_url", "2.12 or newer")),
        ("jetstream: false", None, (), ("log_url", "JetStream")),
        (
            'authorization { user: ada, password: "right" }',
            None,
            ("nats.user=ada",),
            ("nats.password", "refuses this login"),
        ),
        ("", None, ("nats.prefix=taken",), ("nats.prefix", "another layout")),
        ("", None, ("nats.replicas=3",), ("nats.replicas",)),
        ("", None, ("nats.user=ada", "nats.creds_file=/x"), ("nats.user", "nats.creds")),
        (
            "",
            None,
            ("nats.interactions_max_age_days=0.001", "snapshots.every_s=900"),
            ("snapshots.every_s", "nats.interactions_max_age_days"),
        ),
        ("", None, ("snapshots.every=5",), ("snapshots.every ", "no such setting")),
        ("", None, ("nats.interactions_max_age_days=-1",), ("nats.interactions_max_age_days",)),
    ],
    ids=[
        *("version", "jetstream", "login", "layout", "replicas", "two logins", "snapshots"),
        *("misspelt", "range"),
    ],
)
def test_whatever_is_refused_ends_the_service_with_status_2_and_names_the_setting(
    tmp_path: Path,
    configured: str,
    binary: str | None,
    flags: tuple[str, ...],
    named: tuple[str, ...],
):
    if binary == "":
        pytest.skip("FORAGE_NATS_SERVER_OLD is not set")
    options = {} if binary is None else {"binary": binary}
    with NatsServer(tmp_path / "server", configured, **options) as running:
        if "nats.prefix=taken" in flags:
            admin = NatsConnection.open(running.url, NatsSettings())
            admin.run(admin.api("STREAM.CREATE.taken_catalog", **OTHER_LAYOUT), "make")
            admin.close()
        done = serving(running.url, tmp_path / "data", *flags)

    assert done.returncode == 2, done.stderr
    assert all(name in done.stderr for name in named), done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong" not in done.stderr


@pytest.mark.parametrize(
    ("url", "given", "named"),
    [
        ("nats://ada:secret@127.0.0.1:4222", {}, "an address with a login in it"),
        ("nats://127.0.0.1", {}, "is not an address of NATS"),
        ("nats://127.0.0.1:4222/path", {}, "is not an address of NATS"),
        ("nats://127.0.0.1:4222?tls=no", {}, "is not an address of NATS"),
        ("nats://:4222", {}, "is not an address of NATS"),
        ("nats:", {}, "is not an address of NATS"),
        ("redis://127.0.0.1:4222", {}, "log_url"),
        (
            "nats://127.0.0.1:4222",
            {"user": "a", "password": "b", "token": "c"},
            "nats.user and nats.token",
        ),
        ("nats://127.0.0.1:4222", {"user": "a"}, "nats.password"),
        ("nats://127.0.0.1:4222", {"creds_file": "/nowhere"}, "nats.creds_file"),
        ("nats://127.0.0.1:4222", {"tls_ca_file": "/nowhere"}, "tls_"),
        ("tls://127.0.0.1:4222", {"tls_ca_file": "/nowhere"}, "tls_"),
        ("tls://127.0.0.1:4222", {"tls_cert_file": "/nowhere"}, "nats.tls_key_file"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    url: str, given: dict[str, object], named: str, tmp_path: Path
):
    with pytest.raises(StartupError) as refused:
        open_log(url, tmp_path, NatsSettings(**given))

    assert named in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.skipif(not OLD_BINARY, reason="FORAGE_NATS_SERVER_OLD is not set")
def test_a_server_that_is_too_old_is_named_with_its_version(tmp_path: Path):
    with NatsServer(tmp_path, binary=OLD_BINARY) as running:
        message = refusal(running.url, NatsSettings())

    assert message.startswith("log_url: ")
    assert "version 2.10." in message
    assert "2.12 or newer" in message


def test_a_server_without_jetstream_is_named(tmp_path: Path):
    with NatsServer(tmp_path, "jetstream: false") as running:
        assert "JetStream" in refusal(running.url, NatsSettings())


def test_more_replicas_than_servers_are_refused_by_name(
    shared_server: NatsServer, settings: NatsSettings
):
    message = refusal(shared_server.url, settings.model_copy(update={"replicas": 3}))

    assert message.startswith("nats.replicas: ")


def test_more_bytes_than_the_server_has_are_refused_by_name(tmp_path: Path):
    folder = json.dumps(str(tmp_path / "jetstream"))
    limited = f"jetstream {{ store_dir: {folder}, max_file_store: 1MB }}"
    with NatsServer(tmp_path, limited) as running:
        message = refusal(running.url, NatsSettings(catalog_max_bytes=2**30))

    assert "nats.catalog_max_bytes" in message


@pytest.mark.parametrize(
    "change",
    [
        {"max_msgs_per_subject": 5},
        {"metadata": {"forage.format": "2"}},
        {"metadata": {}},
        {"discard": "old"},
    ],
)
def test_a_stream_with_another_layout_is_refused_and_left_alone(
    shared_server: NatsServer, settings: NatsSettings, change: dict[str, object]
):
    layout = Layout(settings)
    (wanted,) = [c for c in layout.configurations() if c["name"] == layout.stream(Topic.CATALOG)]
    admin = NatsConnection.open(shared_server.url, settings)
    made = admin.run(admin.api(f"STREAM.CREATE.{wanted['name']}", **{**wanted, **change}), "make")

    message = refusal(shared_server.url, settings)

    after = admin.run(admin.api(f"STREAM.INFO.{wanted['name']}"), "look")
    admin.close()
    assert message.startswith("nats.prefix: ")
    assert f"'{wanted['name']}' has another layout" in message
    assert after["config"] == made["config"]


def test_subjects_that_another_stream_has_are_refused_by_name(
    shared_server: NatsServer, settings: NatsSettings
):
    admin = NatsConnection.open(shared_server.url, settings)
    taken = {"name": f"{settings.prefix}_taken", "subjects": [f"{settings.prefix}.log.>"]}
    admin.run(admin.api(f"STREAM.CREATE.{taken['name']}", **taken), "make")
    admin.close()

    assert refusal(shared_server.url, settings).startswith("nats.prefix: ")


def test_retention_follows_the_settings(shared_server: NatsServer, settings: NatsSettings):
    def retention() -> tuple[int, int]:
        connection = NatsConnection.open(shared_server.url, settings)
        name = Layout(settings).stream(Topic.INTERACTIONS)
        config = connection.run(connection.api(f"STREAM.INFO.{name}"), "look")["config"]
        connection.close()
        return config["max_bytes"], config["max_age"]

    NatsEventLog.open(shared_server.url, settings).close()
    before = retention()
    changed = {"interactions_max_bytes": 10**6, "interactions_max_age_days": 30.0}
    NatsEventLog.open(shared_server.url, settings.model_copy(update=changed)).close()

    assert before == (-1, 0)
    assert retention() == (10**6, 30 * 86_400 * 10**9)


def test_one_setting_opens_log_registry_and_leases(
    shared_server: NatsServer, settings: NatsSettings, tmp_path: Path
):
    for scheme in ("sqlite:log.db", shared_server.url):
        service = ServiceSettings(data_dir=tmp_path, log_url=scheme, nats=settings)
        storage = open_storage(service)
        try:
            storage.log.append([event(Stream.FEEDBACK, "x")])
            assert storage.registry.publish("policy", b"x", {}).version == 1
            assert storage.lease.acquire("learner", "me", 5.0)
        finally:
            storage.close()
            storage.close()

"""A start that cannot work says which setting is at fault, and what is allowed."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from nkeys import (
    PREFIX_BYTE_ACCOUNT,
    PREFIX_BYTE_OPERATOR,
    PREFIX_BYTE_USER,
    KeyPair,
    encode_seed,
    from_seed,
)
from pydantic import SecretStr

from forage.errors import StartupError
from forage.log.engines import open_log, open_storage
from forage.log.interface import Stream, Topic
from forage.log.nats_connection import NatsConnection
from forage.log.nats_log import NatsEventLog
from forage.log.nats_streams import Layout
from forage.settings import NatsSettings, ServiceSettings, load
from forage.testing.log_contract import event
from tests.nats.server import OLD_BINARY, NatsServer

QUICK = {"connect_timeout_ms": 800}


def refusal(url: str, settings: NatsSettings) -> str:
    with pytest.raises(StartupError) as refused:
        NatsEventLog.open(url, settings)
    return refused.value.message


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
    ("server", "given", "named"),
    [
        ('authorization { user: ada, password: "right" }', {}, "nats.user"),
        (
            'authorization { user: ada, password: "right" }',
            {"user": "ada", "password": SecretStr("wrong")},
            "nats.password",
        ),
        ('authorization { token: "right" }', {"token": SecretStr("wrong")}, "nats.token"),
    ],
)
def test_a_wrong_login_is_refused_at_once_and_not_shown(
    tmp_path: Path, server: str, given: dict[str, object], named: str
):
    with NatsServer(tmp_path, server) as running:
        message = refusal(running.url, NatsSettings(**given))

    assert named in message
    assert "refuses this login" in message
    assert "wrong" not in message


@pytest.mark.parametrize(
    ("server", "given"),
    [
        (
            'authorization { user: ada, password: "0123" }',
            {"user": "ada", "password": SecretStr("0123")},
        ),
        ('authorization { token: "right" }', {"token": SecretStr("right")}),
    ],
)
def test_the_right_login_opens_the_log(tmp_path: Path, server: str, given: dict[str, object]):
    with NatsServer(tmp_path, server) as running:
        log = NatsEventLog.open(running.url, NatsSettings(**given))
        assert log.append([event(Stream.FEEDBACK, "x")]) == [1]
        log.close()


def test_secrets_come_from_the_environment_as_they_are_and_are_never_shown():
    environment = {
        "FORAGE_LEXICAL__NATS__USER": "ada",
        "FORAGE_LEXICAL__NATS__PASSWORD": "0123",
        "FORAGE_LEXICAL__NATS__REPLICAS": "3",
    }

    settings = load("lexical", ServiceSettings, environment=environment).settings

    assert settings.nats.password.get_secret_value() == "0123"
    assert settings.nats.replicas == 3
    assert "0123" not in repr(settings)
    with pytest.raises(StartupError) as refused:
        load("lexical", ServiceSettings, flags={"nats.password": ["hush"]})
    assert "nats.password (flag)" in refused.value.message
    assert "hush" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "given", "named"),
    [
        ("nats://ada:secret@127.0.0.1:4222", {}, "log_url"),
        ("nats://127.0.0.1", {}, "log_url"),
        ("nats://127.0.0.1:4222/path", {}, "log_url"),
        ("nats://:4222", {}, "log_url"),
        ("nats:", {}, "log_url"),
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


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate that signs itself, for 127.0.0.1."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    request = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
    subprocess.run(
        [
            *("openssl", *request.split(), "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_is_checked_on_both_sides_and_never_left_out(tmp_path: Path):
    cert, key = certificate(tmp_path, "server")
    own, own_key = certificate(tmp_path, "client")
    tls = (
        f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{own}", verify: true,'
        " timeout: 5 }"
    )
    trusted = {"tls_ca_file": cert, "tls_cert_file": own, "tls_key_file": own_key}
    with NatsServer(tmp_path / "tls", tls, scheme="tls") as running:
        log = NatsEventLog.open(running.url, NatsSettings(**trusted))
        assert log.append([event(Stream.FEEDBACK, "x")]) == [1]
        log.close()
        unknown = refusal(running.url, NatsSettings(**QUICK))
        anonymous = refusal(running.url, NatsSettings(tls_ca_file=cert, **QUICK))
    with NatsServer(tmp_path / "plain", 'authorization { token: "t" }', scheme="tls") as running:
        plain = refusal(running.url, NatsSettings(tls_ca_file=cert, token="t", **QUICK))

    assert unknown.startswith("nats.tls_ca_file")
    assert "certificate" in unknown
    assert "NATS at tls://" in anonymous
    assert plain.startswith("nats.tls_ca_file")
    assert "does not offer TLS" in plain


def new_key(kind: int) -> KeyPair:
    return from_seed(encode_seed(os.urandom(32), kind))


def signed(claims: dict[str, object], issuer: KeyPair) -> str:
    """Return a JWT as NATS reads them: signed by an operator or an account."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {"jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key.decode(), **claims}
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode())}"
    return f"{text}.{part(issuer.sign(text.encode()))}"


def test_credentials_as_text_and_as_a_file_open_the_log(tmp_path: Path):
    operator, account = new_key(PREFIX_BYTE_OPERATOR), new_key(PREFIX_BYTE_ACCOUNT)
    system = new_key(PREFIX_BYTE_ACCOUNT)
    user, stranger = new_key(PREFIX_BYTE_USER), new_key(PREFIX_BYTE_USER)
    unlimited = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1}
    limits |= {"payload": -1, "wildcards": True}

    def claims(of: KeyPair, kind: str, **more: object) -> dict[str, object]:
        nats = {"type": kind, "version": 2, **more}
        return {"name": kind, "sub": of.public_key.decode(), "nats": nats}

    operator_jwt = signed(claims(operator, "operator"), operator)
    system_jwt = signed(claims(system, "account", limits=limits), operator)
    account_jwt = signed(claims(account, "account", limits=limits | unlimited), operator)

    def credentials(of: KeyPair, issuer: KeyPair) -> str:
        jwt = signed(claims(of, "user", subs=-1, data=-1, payload=-1, pub={}, sub={}), issuer)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{of.seed.decode()}\n------END USER NKEY SEED------\n"
        )

    server = (
        f"operator: {operator_jwt}\nresolver: MEMORY\n"
        f"system_account: {system.public_key.decode()}\n"
        f"resolver_preload: {{ {account.public_key.decode()}: {account_jwt},"
        f" {system.public_key.decode()}: {system_jwt} }}"
    )
    good, bad = credentials(user, account), credentials(stranger, new_key(PREFIX_BYTE_ACCOUNT))
    file = tmp_path / "user.creds"
    file.write_text(good)
    with NatsServer(tmp_path / "server", server) as running:
        for settings in (NatsSettings(creds=good), NatsSettings(creds_file=file)):
            log = NatsEventLog.open(running.url, settings)
            assert log.append([event(Stream.FEEDBACK, "x")]) == [1]
            log.close()
        message = refusal(running.url, NatsSettings(creds=bad))
        broken = refusal(running.url, NatsSettings(creds="nonsense"))

    assert "nats.creds" in message
    assert "nats.creds" in broken

"""Logins, credentials and certificates: the right ones open the log, others are named."""

import base64
import json
import os
import shutil
import subprocess
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
from forage.log.interface import Stream
from forage.log.nats_log import NatsEventLog
from forage.settings import NatsSettings, ServiceSettings, load
from forage.testing.log_contract import event
from tests.nats.refusals import QUICK, refusal
from tests.nats.server import NatsServer


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

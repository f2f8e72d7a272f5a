"""How Forage logs in to NATS: addresses, users, tokens, credentials and certificates."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import RawCredentials

from forage.errors import StartupError
from forage.settings import NatsSettings

_SCHEMES = ("nats", "tls")


def servers_of(url: str) -> list[str]:
    """Return the servers of `nats://a:4222,b:4222`, each with the scheme.

    Raises `StartupError` for what is no such list. A login in the address is refused: addresses
    are shown in logs and statuses, settings of `nats.` that are secret are not.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest:
        raise StartupError(
            "log_url: an address with a login in it is not supported; allowed: addresses alone,"
            " with the login in nats.user and nats.password, nats.token or nats.creds"
        )
    servers = [f"{scheme}://{part.partition('://')[2] or part}" for part in rest.split(",")]
    for server in servers:
        try:
            parts = urlsplit(server)
            usable = bool(parts.hostname) and parts.port is not None
        except ValueError:
            usable = False
        if scheme not in _SCHEMES or not usable or parts.path or parts.query:
            raise StartupError(
                f"log_url: '{url}' is not an address of NATS; allowed: nats://HOST:PORT or"
                " tls://HOST:PORT, several separated by commas"
            )
    return servers


def login(settings: NatsSettings, servers: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the client's `connect` that prove who we are.

    Raises `StartupError` naming settings that contradict each other or cannot be read.
    """
    ways = {
        "nats.user": bool(settings.user),
        "nats.token": bool(settings.token.get_secret_value()),
        "nats.creds": bool(settings.creds.get_secret_value()),
        "nats.creds_file": settings.creds_file is not None,
    }
    chosen = [name for name, used in ways.items() if used]
    if len(chosen) > 1:
        raise StartupError(f"{' and '.join(chosen)}: conflicting logins; allowed: one of them")
    if bool(settings.user) != bool(settings.password.get_secret_value()):
        raise StartupError("nats.user, nats.password: one without the other; allowed: both or none")
    options: dict[str, Any] = {}
    if settings.user:
        options = {"user": settings.user, "password": settings.password.get_secret_value()}
    elif settings.token.get_secret_value():
        options = {"token": settings.token.get_secret_value()}
    elif text := settings.creds.get_secret_value():
        _check_credentials(text, "nats.creds")
        options = {"user_credentials": RawCredentials(text)}
    elif settings.creds_file is not None:
        try:
            _check_credentials(settings.creds_file.read_text(), "nats.creds_file")
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"nats.creds_file: {settings.creds_file}: {error}") from error
        # By its name, so that a login that is renewed there is found.
        options = {"user_credentials": str(settings.creds_file)}
    if context := _tls(settings, servers):
        options["tls"] = context
    return options


def _check_credentials(text: str, setting: str) -> None:
    if not all(f"BEGIN {part}" in text for part in ("NATS USER JWT", "USER NKEY SEED")):
        raise StartupError(
            f"{setting}: these are no NATS credentials; allowed: the user's JWT and seed, as"
            " `nsc generate creds` writes them"
        )


def _tls(settings: NatsSettings, servers: Sequence[str]) -> ssl.SSLContext | None:
    files = [settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file]
    if not servers[0].startswith("tls://"):
        if any(files):
            raise StartupError(
                "log_url, nats.tls_*: certificates are set but the address is nats://; allowed:"
                " tls:// with them"
            )
        return None
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        raise StartupError(
            "nats.tls_cert_file, nats.tls_key_file: one without the other; allowed: both or none"
        )
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(file) for file in files if file)
        raise StartupError(f"nats.tls_*: cannot use {names}: {error}") from error
    return context

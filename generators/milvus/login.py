"""What the settings tell the client about a server, and what its refusals mean."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import grpc

from forage.errors import StartupError
from generators.milvus.lean_pymilvus import MilvusException
from generators.milvus.settings import MilvusSettings

_DATABASE_NOT_FOUND = 800
# The channel reconnects by itself; left alone it would wait for up to two minutes between tries.
_GRPC_OPTIONS = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1_000}


def check(settings: MilvusSettings) -> None:
    """Raise `StartupError`, naming the setting, for values that do not go together."""
    problem = _embedded_problem(settings) if settings.embedded else _server_problem(settings)
    if problem:
        raise StartupError(f"milvus.{problem}")


def arguments(settings: MilvusSettings) -> dict[str, object]:
    """Return the client's arguments for a server; `check` has been passed."""
    found: dict[str, object] = {
        "user": settings.user,
        "password": settings.password.get_secret_value(),
        "token": settings.token.get_secret_value(),
        "db_name": settings.database,
        "grpc_options": _GRPC_OPTIONS,
    }
    if settings.tls_cert_file:
        found["ca_pem_path"] = str(settings.tls_ca_file)
        found["client_pem_path"] = str(settings.tls_cert_file)
        found["client_key_path"] = str(settings.tls_key_file)
    elif settings.tls_ca_file:
        found["server_pem_path"] = str(settings.tls_ca_file)
    if settings.tls_server_name:
        found["server_name"] = settings.tls_server_name
    return found


def refusal(settings: MilvusSettings, error: Exception) -> StartupError:
    """Return what to tell an operator about a server that cannot be used, naming the setting."""
    code, said = _code(error), text(error)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        name = "milvus.token" if settings.token.get_secret_value() else "milvus.user"
        advice = "milvus.user with milvus.password, or milvus.token, must be known to the server"
        return StartupError(f"{name}: {settings.uri} refuses it: {said}; {advice}")
    if isinstance(error, MilvusException) and error.code == _DATABASE_NOT_FOUND:
        return StartupError(
            f"milvus.database: {settings.uri} has no database '{settings.database}';"
            " create it, or leave the setting empty for the default one"
        )
    if "handshake failed" in said.lower():
        return StartupError(
            f"milvus.tls_ca_file: no TLS connection to {settings.uri}: {said}; the server's"
            " certificate must be signed by what this file holds, and the server must use TLS"
        )
    return StartupError(
        f"milvus.uri: no Milvus server can be used at {settings.uri} within"
        f" {settings.connect_timeout_s:g} s (milvus.connect_timeout_ms): {said}"
    )


def passing(error: Exception) -> bool:
    """Return whether a connection failed in a way that a starting server explains."""
    return (
        _code(error) is grpc.StatusCode.UNAVAILABLE
        and "handshake failed" not in text(error).lower()
    )


def text(error: Exception) -> str:
    """Return an error's message without the client's wrapping."""
    status = _status(error)
    if status is not None:
        return str(status.details())
    return str(error.message) if isinstance(error, MilvusException) else str(error)


def _code(error: Exception) -> grpc.StatusCode | None:
    status = _status(error)
    return None if status is None else status.code()


def _status(error: Exception) -> grpc.Call | None:
    """Return the failed call: pymilvus wraps it in an error that does not tell what happened."""
    for found in (error, error.__cause__):
        if isinstance(found, grpc.Call):
            return found
    return None


def _embedded_problem(settings: MilvusSettings) -> str:
    for name in ("user", "password", "token", "database", "tls_ca_file", "tls_cert_file"):
        if _given(settings, name):
            return (
                f"{name}: Milvus Lite in {settings.uri} has none; set milvus.uri to a server's"
                " address, or leave this out"
            )
    return ""


def _server_problem(settings: MilvusSettings) -> str:
    uri = urlsplit(settings.uri)
    if uri.scheme not in ("http", "https") or not uri.hostname:
        return "uri: allowed: a file name, http://HOST:PORT or https://HOST:PORT"
    # Not shown: it holds a password.
    if uri.username or uri.password:
        return "uri: credentials do not belong in it; set milvus.user and milvus.password"
    if uri.path.strip("/"):
        return f"uri: '{uri.path}' does not belong in it; set milvus.database"
    if _given(settings, "token") and (_given(settings, "user") or _given(settings, "password")):
        return "token: allowed: a token, or user and password, not both"
    if _given(settings, "user") != _given(settings, "password"):
        return "user: user and password must be set together"
    return _tls_problem(settings, secure=uri.scheme == "https")


def _tls_problem(settings: MilvusSettings, *, secure: bool) -> str:
    files: dict[str, Path | None] = {
        "tls_ca_file": settings.tls_ca_file,
        "tls_cert_file": settings.tls_cert_file,
        "tls_key_file": settings.tls_key_file,
    }
    for name, path in files.items():
        if path and not secure:
            return f"{name}: {settings.uri} is not encrypted; an https:// address is"
        if path and not path.is_file():
            return f"{name}: there is no file {path}"
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        return "tls_cert_file: tls_cert_file and tls_key_file must be set together"
    if settings.tls_cert_file and not settings.tls_ca_file:
        return "tls_ca_file: must be set with tls_cert_file"
    return ""


def _given(settings: MilvusSettings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value() if hasattr(value, "get_secret_value") else value)

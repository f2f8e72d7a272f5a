"""Opens what a service keeps outside its own folders: the log, the registry, the leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forage.errors import StartupError
from forage.lease import FileLease, Lease
from forage.log.interface import EventLog
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry, Registry
from forage.settings import NatsSettings, ServiceSettings


@dataclass(frozen=True, slots=True)
class Storage:
    """What the processes of one Forage share."""

    log: EventLog
    registry: Registry
    lease: Lease
    close: Callable[[], None]
    """Releases files and connections. Calling it twice is harmless."""


def open_storage(settings: ServiceSettings) -> Storage:
    """Open what `log_url` names: a SQLite file with folders beside it, or NATS for all three.

    Raises `StartupError` for an unknown scheme, a newer format, a file that is not a log, or a
    server that cannot be used, naming the setting.
    """
    if _is_nats(settings.log_url):
        return _nats(settings.log_url, settings.nats)
    log = _sqlite(settings.log_url, settings.data_dir)
    # Beside the file and not in the data folder, for replicas have each their own of that.
    shared = (settings.data_dir / settings.log_url.partition(":")[2]).parent
    return Storage(
        log, DirectoryRegistry(shared / "registry"), FileLease(shared / "leases"), log.close
    )


def open_log(url: str, data_dir: Path, nats: NatsSettings | None = None) -> EventLog:
    """Open the log named by `url` alone; `sqlite:FILE` is relative to `data_dir`.

    Raises `StartupError`, see `open_storage`.
    """
    if _is_nats(url):
        _require_nats()
        from forage.log.nats_log import NatsEventLog

        return NatsEventLog.open(url, nats)
    return _sqlite(url, data_dir)


def _is_nats(url: str) -> bool:
    return url.startswith(("nats:", "tls:"))


def _sqlite(url: str, data_dir: Path) -> SqliteEventLog:
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or not rest:
        raise StartupError(
            f"log_url: '{url}' is not supported; allowed: sqlite:FILE, nats://HOST:PORT or"
            " tls://HOST:PORT"
        )
    return SqliteEventLog.open(data_dir / rest)


def _nats(url: str, settings: NatsSettings) -> Storage:
    _require_nats()
    from forage.log.nats_connection import NatsConnection
    from forage.log.nats_lease import NatsLease
    from forage.log.nats_log import NatsEventLog
    from forage.log.nats_registry import NatsRegistry

    connection = NatsConnection.open(url, settings)
    try:
        log = NatsEventLog.on(connection, owns_connection=True)
    except BaseException:
        connection.close()
        raise
    return Storage(log, NatsRegistry(connection), NatsLease(connection), log.close)


def _require_nats() -> None:
    try:
        import nats  # noqa: F401
    except ImportError as error:
        raise StartupError(
            "log_url: NATS needs the package nats-py; install it with: pip install"
            " forage-mesh[nats]"
        ) from error

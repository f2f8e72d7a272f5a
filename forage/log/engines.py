"""Opens an event log by URL."""

from __future__ import annotations

from pathlib import Path

from forage.errors import StartupError
from forage.log.interface import EventLog
from forage.log.sqlite import SqliteEventLog


def open_log(url: str, data_dir: Path) -> EventLog:
    """Open the log named by `url`; `sqlite:FILE` is relative to `data_dir`.

    Raises `StartupError` for an unknown scheme, a newer format, or a file that is not a log.
    """
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or not rest:
        raise StartupError(f"log_url: '{url}' is not supported; allowed: sqlite:FILE")
    return SqliteEventLog.open(data_dir / rest)

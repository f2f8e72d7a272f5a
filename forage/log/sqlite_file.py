"""The SQLite file of an event log: its layout, how it is created, checked and connected to."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from forage.durable import sync_directory
from forage.errors import StartupError
from forage.log.interface import Topic

APPLICATION_ID = 0x464F5247
"""Marks the file as a Forage event log: `FORG` in ASCII (SQLite header, offset 68)."""
FORMAT_VERSION = 1
"""The newest layout this code can read, kept in `PRAGMA user_version`."""

_BUSY_TIMEOUT_S = 10.0

_TABLES = "".join(
    f"""
    CREATE TABLE {topic} (
        sequence INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        key TEXT NOT NULL,
        time REAL NOT NULL,
        headers TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (stream, key)
    );
    CREATE INDEX {topic}_by_stream ON {topic} (stream, sequence);
    INSERT INTO heads (topic, sequence) VALUES ('{topic}', 0);
    """
    for topic in Topic
)
# A table of heads, rather than max(sequence), so that no sequence is ever given out twice.
_SCHEMA = f"""
    BEGIN;
    CREATE TABLE heads (topic TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
    {_TABLES}
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT_VERSION};
    COMMIT;
"""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Connect to an existing log, such that commits survive a crash of the machine.

    The connection may be passed between threads, but used by one at a time.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = FULL")
    # Only macOS knows it, where fsync alone does not reach the disk.
    connection.execute("PRAGMA fullfsync = ON")
    return connection


def create(path: Path) -> None:
    """Make an empty log appear at `path` at once, however many processes try it together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / path.name
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        with suppress(FileExistsError):
            os.link(draft, path)
    sync_directory(path.parent)


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StartupError` unless the file is a Forage event log of a supported version."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StartupError(f"{path} is not a Forage event log", metadata={"file": str(path)})
    if version != FORMAT_VERSION:
        raise StartupError(
            f"event log {path} has format version {version}; this Forage supports version"
            f" {FORMAT_VERSION}",
            metadata={"file": str(path), "found": str(version), "supported": str(FORMAT_VERSION)},
        )
    connection.execute("SELECT topic, sequence FROM heads").fetchall()

"""Vectors on disk, so that no process encodes a catalogue text that another one has encoded."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from forage.errors import StorageError

Vectors = npt.NDArray[np.float32]

T = TypeVar("T")
_PATIENCE = 30.0
"""Seconds to wait for another process to finish its transaction."""
_KEYS_PER_SELECT = 500
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_log = logging.getLogger(__name__)


class VectorCache:
    """Vectors by (encoder identity, text), shared by the processes of one machine.

    A cache and nothing more: a damaged file is set aside with a warning and a new one begun.
    Every method raises `StorageError` if the disk is full, read-only or gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def get(self, identity: str, texts: Sequence[str], dimension: int) -> list[Vectors | None]:
        """Return the cached vector of each text, or None where there is none."""
        keys = [_key(identity, text) for text in texts]

        def read(database: sqlite3.Connection) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = {}
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                part = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(part))
                found.update(
                    database.execute(
                        f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part
                    )
                )
            return found

        found = self._guarded(read)
        blobs = (found.get(key, b"") for key in keys)
        return [np.frombuffer(b, "<f4") if len(b) == 4 * dimension else None for b in blobs]

    def put(self, identity: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Store one vector per text, all of them or none."""
        rows = [
            (_key(identity, text), vector.astype("<f4").tobytes())
            for text, vector in zip(texts, vectors, strict=True)
        ]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

        self._guarded(write)

    def close(self) -> None:
        """Close the file. Closing twice is harmless; using the cache again opens it again."""
        with self._lock:
            self._disconnect()

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`; if the file turns out to be damaged, set it aside and run it once more."""
        with self._lock:
            try:
                return work(self._connect())
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _DAMAGE:
                    raise StorageError(f"vector cache {self._path}: {error}") from error
                _log.warning(
                    "vector cache %s is damaged (%s): starting a new one", self._path, error
                )
            except OSError as error:
                raise StorageError(f"vector cache {self._path}: {error}") from error
            self._disconnect()
            try:
                self._set_aside()
                return work(self._connect())
            except (OSError, sqlite3.Error) as error:
                raise StorageError(f"vector cache {self._path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=_PATIENCE, check_same_thread=False)
            _use_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
            )
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _set_aside(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.replace(self._path.with_name(f"{self._path.name}.damaged{suffix}"))


def _use_wal(database: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not itself wait for other processes here."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.005)


def _key(identity: str, text: str) -> bytes:
    return hashlib.sha256(f"{identity}\0{text}".encode()).digest()

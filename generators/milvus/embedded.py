"""Milvus Lite as a child process that lives exactly as long as this one.

Started here and not through the `milvus_lite` package, whose start-up waits half a second, whose
child dies of the terminal's Ctrl-C, and which imports setuptools.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import IO

from forage.errors import StartupError, UnavailableError

_START_S = 10.0
_STOP_S = 5.0
_POLL_S = 0.01
_SOCKET = "milvus.sock"


class EmbeddedMilvus:
    """Runs Milvus Lite on one file, listening on a Unix socket.

    The child waits for a file lock that this process holds, and ends when it gets it: so it also
    ends when this process is killed.
    """

    def __init__(self, file: Path) -> None:
        """Describe the engine; nothing runs before `start`."""
        self._file = file.absolute()
        self._lock_path = self._file.with_name(f".{self._file.name}.lock")
        self._mutex = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._sockets: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> str:
        """Start the child and return its address.

        Raises `StartupError` if another process has the file, and `UnavailableError` if the child
        does not come up, as when the file is damaged.
        """
        with self._mutex:
            self._lock = self._acquire()
            self._sockets = tempfile.TemporaryDirectory(prefix="forage-milvus-")
            socket_path = Path(self._sockets.name) / _SOCKET
            library = _library()
            address = f"unix:{socket_path}"
            self._child = subprocess.Popen(
                [library / "milvus", self._file, address, "ERROR", self._lock_path],
                # Milvus Lite needs a home that it can write to, wherever ours is.
                env={
                    **os.environ,
                    "LD_LIBRARY_PATH": str(library),
                    "HOME": self._sockets.name,
                },
                cwd=self._file.parent,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not _accepts(socket_path):
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UnavailableError(f"Milvus Lite does not start on {self._file}")
            time.sleep(_POLL_S)
        return address

    def stop(self) -> None:
        """End the child, if it runs, and release the file."""
        with self._mutex:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            if self._child is not None:
                try:
                    self._child.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()
                self._child = None
            if self._sockets is not None:
                self._sockets.cleanup()
                self._sockets = None

    def answers(self) -> bool:
        """Return whether the child runs and takes connections."""
        child, sockets = self._child, self._sockets
        if child is None or sockets is None or child.poll() is not None:
            return False
        return _accepts(Path(sockets.name) / _SOCKET)

    @property
    def process_id(self) -> int | None:
        """The child's process id, for status and tests; None if it does not run."""
        return self._child.pid if self._child is not None else None

    def intact(self) -> bool:
        """Return whether the file is there and is a sound SQLite database; call when stopped."""
        if not self._file.is_file():
            return False
        try:
            # Writable, because a kill in mid-write leaves a journal that has to be rolled back.
            uri = f"{self._file.as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True)) as database:
                rows: list[tuple[str]] = database.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.DatabaseError:
            return False
        return rows == [("ok",)]

    def discard(self) -> None:
        """Delete the file and what belongs to it; call when stopped."""
        for path in self._file.parent.glob(f"{self._file.name}*"):
            path.unlink()

    def _acquire(self) -> IO[bytes]:
        """Take the lock; a child of a killed process holds it for the moment that it ends in."""
        deadline = time.monotonic() + _START_S
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock_path.open("ab")
        except OSError as error:
            raise StartupError(f"cannot open {self._lock_path}: {error}") from error
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    lock.close()
                    raise StartupError(f"{self._file} is in use by another process") from error
                time.sleep(_POLL_S)
            else:
                return lock


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _library() -> Path:
    spec = importlib.util.find_spec("milvus_lite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        library = Path(folder) / "lib"
        if (library / "milvus").is_file():
            return library
    raise StartupError("Milvus Lite is not installed: pip install milvus-lite==2.5.1")

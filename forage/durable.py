"""Files that survive a crash: atomic replacement, and a lock between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forage.errors import StorageError


def replace_file(path: Path, *chunks: bytes | memoryview) -> None:
    """Make `path` hold the chunks, one after the other, durably and all or nothing.

    A reader, or a crash at any moment, finds the old content or the new, never a mixture. Only
    one writer at a time may replace the same path. Raises `StorageError` naming the file.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            # On a full disk the half-written draft would keep the space that others wait for.
            draft.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}", metadata={"file": str(path)}) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: created, renamed and removed files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively, among all threads and processes of the machine.

    The kernel releases the lock if its holder dies. Raises `StorageError` if the file cannot be
    opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot lock {path}: {error}", metadata={"file": str(path)}) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

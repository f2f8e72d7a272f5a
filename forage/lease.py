"""Leases: at most one process at a time does a job, such as learning."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from forage.durable import locked, replace_file
from forage.errors import InvalidArgumentError, StorageError

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


class Lease(Protocol):
    """Grants a name to one holder at a time, for a limited time.

    A holder renews well within its time to live. If it dies, another acquires the lease once that
    time is over. A holder that was paused for longer than its time to live may believe that it
    still has the lease, so what it publishes must also be guarded by compare-and-set. Any method
    may raise `StorageError`.
    """

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take the lease if it is free, expired, or this holder's already; return whether held.

        `holder` is unique to the process, such as host, process id and start time.
        """
        ...

    def renew(self, name: str, holder: str, ttl_s: float) -> bool:
        """Hold on for another `ttl_s` seconds; False if the lease is no longer this holder's."""
        ...

    def release(self, name: str, holder: str) -> None:
        """Give the lease back; harmless if it is no longer this holder's."""
        ...


def checked_name(name: str) -> str:
    """Return the name; raises `InvalidArgumentError` if no lease may be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            "name", f"'{name}' is not a name", allowed="lower-case letters, digits, . - and _"
        )
    return name


def check_ttl(ttl_s: float) -> None:
    """Raise `ValueError` unless there is some time to live."""
    if not ttl_s > 0:
        raise ValueError(f"ttl_s is {ttl_s}, must be positive")


class FileLease:
    """A `Lease` among the processes of one machine: one small file per name, changed under lock."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Keep the files in `root`; `clock` is the time that all processes share, in seconds."""
        self._root = root
        self._clock = clock

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take the lease if possible; see `Lease.acquire`."""
        path = self._file(name)
        with locked(path.with_suffix(".lock")):
            held_by, free = self._read(path)
            if not free and held_by != holder:
                return False
            self._write(path, holder, ttl_s)
        return True

    def renew(self, name: str, holder: str, ttl_s: float) -> bool:
        """Hold on to the lease; see `Lease.renew`."""
        path = self._file(name)
        with locked(path.with_suffix(".lock")):
            held_by, _ = self._read(path)
            if held_by != holder:
                return False
            self._write(path, holder, ttl_s)
        return True

    def release(self, name: str, holder: str) -> None:
        """Give the lease back; see `Lease.release`."""
        path = self._file(name)
        with locked(path.with_suffix(".lock")):
            held_by, _ = self._read(path)
            if held_by == holder:
                path.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._root / f"{checked_name(name)}.lease"

    def _read(self, path: Path) -> tuple[str, bool]:
        """Return who has the lease, and whether it is free to be taken by another."""
        try:
            state = json.loads(path.read_bytes())
            granted, ttl_s, holder = float(state["granted"]), float(state["ttl_s"]), state["holder"]
        except FileNotFoundError:
            return "", True
        except OSError as error:
            raise StorageError(f"cannot read lease {path}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            _logger.warning("lease %s is damaged, so it is free: %r", path, error)
            return "", True
        # Granted in the future: the clock was set back, and the holder may well be gone.
        return holder, not 0 <= self._clock() - granted < ttl_s

    def _write(self, path: Path, holder: str, ttl_s: float) -> None:
        check_ttl(ttl_s)
        state = {"holder": holder, "granted": self._clock(), "ttl_s": ttl_s}
        replace_file(path, json.dumps(state).encode())

"""Publishes snapshots of a service's projections; of several replicas, one at a time does."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Protocol, TypeVar

from forage.errors import ConflictError, ForageError
from forage.log.projection import Projection
from forage.log.snapshots import IndexSnapshots, Newest, kind_of, portable

T = TypeVar("T")

_CHECK_S = 5.0
_RETRY_S = 60.0
_LEASE_S = 300.0
"""How long a publisher that died keeps others from publishing."""
_POLL_S = 0.5
_logger = logging.getLogger(__name__)


class Followed(Protocol):
    """A projection that is being followed."""

    @property
    def projection(self) -> Projection:
        """The projection."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it has caught up with the log."""
        ...

    def between_batches(self, work: Callable[[], T]) -> Future[T]:
        """Have the projection's own thread make its state durable and then do some work."""
        ...


class SnapshotPublisher(threading.Thread):
    """Looks every few seconds whether a projection has changed enough to be copied again."""

    def __init__(self, snapshots: IndexSnapshots, followed: Sequence[Followed]) -> None:
        """Publish for those that have files to be copied."""
        super().__init__(name="snapshots", daemon=True)
        self._snapshots = snapshots
        self._followed = [f for f in followed if portable(f.projection) is not None]
        # What was last seen, and when to look again, so that the registry is seldom asked.
        self._newest = {f.projection.name: Newest() for f in self._followed}
        self._not_before = dict.fromkeys(self._newest, 0.0)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._stopping = threading.Event()

    def stop(self, timeout_s: float) -> None:
        """End; what is being uploaded has so long to finish."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout_s)

    def run(self) -> None:
        """Publish what is due until stopped."""
        while not self._stopping.wait(min(_CHECK_S, self._snapshots.settings.every_s)):
            for followed in self._followed:
                if followed.ready and not self._stopping.is_set():
                    self._attempt(followed)

    def _attempt(self, followed: Followed) -> None:
        name = followed.projection.name
        if time.monotonic() < self._not_before[name] or not self._due(followed):
            return
        try:
            self._publish(followed)
        except ConflictError:
            _logger.info("another replica has published a snapshot of %s", name)
        except Exception as error:
            self._not_before[name] = time.monotonic() + _RETRY_S
            if not self._stopping.is_set():
                defect = None if isinstance(error, ForageError) else error
                _logger.warning("no snapshot of %s: %s", name, error, exc_info=defect)

    def _due(self, followed: Followed) -> bool:
        """Return whether a snapshot is due as far as is known here."""
        settings = self._snapshots.settings
        newest = self._newest[followed.projection.name]
        state = portable(followed.projection)
        if state is None or state.sequence == 0:
            return False
        if newest.sequence == 0:
            return True
        age_s = self._snapshots.clock() - newest.created
        # Before the log forgets what is not in the newest one, even a single record is enough.
        needed = 1 if age_s >= self._snapshots.forgets_s / 2 else settings.least_changes
        return age_s >= settings.every_s and state.sequence - newest.sequence >= needed

    def _publish(self, followed: Followed) -> None:
        self._look(followed)
        if not self._due(followed):
            return
        name = followed.projection.name
        lease = kind_of(name)
        if not self._snapshots.lease.acquire(lease, self._holder, _LEASE_S):
            self._not_before[name] = time.monotonic() + _CHECK_S
            return
        try:
            # Whoever had the lease before may have published in between.
            current = self._look(followed)
            if self._due(followed):
                with self._snapshots.scratch(followed.projection) as folder:
                    self._copy(followed, folder / "archive.tar", current)
        finally:
            self._snapshots.lease.release(lease, self._holder)

    def _look(self, followed: Followed) -> int | None:
        """Ask the registry; return the version that is current."""
        current, newest = self._snapshots.newest(followed.projection)
        self._newest[followed.projection.name] = newest or Newest()
        return current

    def _copy(self, followed: Followed, archive: Path, current: int | None) -> None:
        began = time.monotonic()
        projection = followed.projection
        packing = followed.between_batches(lambda: self._snapshots.take(projection, archive))
        while not packing.done():
            if self._stopping.is_set():
                packing.cancel()
            wait([packing], _POLL_S)
        if packing.cancelled() or (note := packing.result()) is None:
            return
        packed = time.monotonic()
        info = self._snapshots.publish(archive, note, expected=current)
        self._newest[projection.name] = Newest(note.sequence, info.created)
        _logger.info(
            "published snapshot %d of projection %s: sequence %d, %d bytes, packed in %.2f s,"
            " stored in %.2f s",
            info.version,
            projection.name,
            note.sequence,
            info.size,
            packed - began,
            time.monotonic() - packed,
        )

"""Services that follow one log and share snapshots, for the tests of those."""

import logging
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from forage.lease import FileLease
from forage.log import Event, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.settings import SnapshotSettings
from tests.waiting import eventually

KIND = "index-tally"


class Tally:
    """Keeps the keys it has seen, in one file, and remembers which records it was given."""

    name = "tally"
    streams: tuple[Stream, ...] = ()

    def __init__(
        self, folder: Path, topic: Topic = Topic.CATALOG, version: int = 1, slow_s: float = 0.0
    ) -> None:
        self.topic = topic
        self.keys: list[str] = []
        self.given: list[int] = []
        self._slow_s = slow_s
        self.file = CheckpointFile(folder / "tally", name="tally", version=version)

    def restore(self) -> int:
        found = self.file.load()
        if found is None:
            return 0
        self.keys = found[1].decode().split()
        return found[0]

    def apply(self, records: Sequence[Record]) -> None:
        threading.Event().wait(self._slow_s)
        self.keys += [record.key for record in records]
        self.given += [record.sequence for record in records]

    def checkpoint(self, sequence: int) -> None:
        self.file.save(sequence, " ".join(self.keys).encode())

    def saved(self) -> SavedState:
        return self.file.saved()


class AskedLease(FileLease):
    """A lease that remembers whether it was granted whenever it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.granted: list[bool] = []

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        self.granted.append(super().acquire(name, holder, ttl_s))
        return self.granted[-1]


class World:
    """One log and one registry, and services that follow it, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SqliteEventLog.open(folder / "log.db")
        self.now = 1_000.0
        self.registry = DirectoryRegistry(folder / "registry", clock=lambda: self.now)
        self.lease = AskedLease(folder / "leases")
        self._running: list[Follower] = []

    def snapshots(
        self, folder: Path, log: SqliteEventLog | None = None, **changes
    ) -> IndexSnapshots:
        forgets_s = changes.pop("forgets_s", math.inf)
        settings = SnapshotSettings(**{"every_s": 0.1, "least_changes": 1, **changes})
        return IndexSnapshots(
            settings,
            log or self.log,
            self.registry,
            self.lease,
            folder,
            forgets_s=forgets_s,
            clock=lambda: self.now,
        )

    def follow(self, name: str, log: SqliteEventLog | None = None, **changes) -> Tally:
        """Start a service and wait until it has caught up."""
        folder = self.folder / name
        given = {k: changes.pop(k) for k in ("topic", "version") if k in changes}
        tally = Tally(folder, **given)
        follower = Follower(
            log or self.log,
            [tally],
            checkpoint_every_s=0.02,
            snapshots=self.snapshots(folder, log, **changes),
        )
        self._running.append(follower)
        follower.start()
        assert follower.caught_up.wait(10.0)
        return tally

    def stop(self) -> None:
        while self._running:
            self._running.pop().stop()

    def fill(self, start: int, end: int, stream: Stream = Stream.CATALOG) -> None:
        self.log.append([Event(stream, str(n), b"x%d" % n, 1.0) for n in range(start, end)])

    def versions(self) -> list[int]:
        return [info.version for info in self.registry.history(KIND)]

    def published(self, topic: Topic = Topic.CATALOG) -> None:
        """Have a first service publish a snapshot of all there is, and stop it."""
        before = max(self.versions(), default=0)
        self.follow(f"publisher-{before}", topic=topic)
        eventually(lambda: max(self.versions(), default=0) > before)
        self.stop()


def refusals(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.message for r in caplog.records if r.levelno >= logging.WARNING)

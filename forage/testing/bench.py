"""A generator at work on a real log, as conformance tests need it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from forage.catalog.item import Item
from forage.lease import FileLease
from forage.log import Event, EventLog, Projection, Topic
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.retrieval import Deadline, Query, Retrieval, Retriever
from forage.services import Runtime
from forage.settings import SnapshotSettings
from forage.telemetry import Telemetry
from forage.testing import catalog

WAIT_S = 30.0
"""How long to wait for a projection, and for an answer."""


class Generator(Retriever, Protocol):
    """What a generator service serves; the same as `generators.servicer.Generator`."""

    @property
    def projections(self) -> Sequence[Projection]:
        """What the follower feeds."""
        ...

    def entries(self) -> dict[str, int]:
        """Return how many entries each projection holds."""
        ...

    def close(self) -> None:
        """Release the engine."""
        ...


OpenGenerator = Callable[[Path, Runtime], Generator]


class Bench:
    """A log holding the fixture catalogue, and a generator that a follower keeps up to date."""

    def __init__(self, data_dir: Path, open_generator: OpenGenerator) -> None:
        """Create the log in `data_dir`; nothing is in it and nothing runs yet."""
        self.data_dir = data_dir
        self.log: EventLog = SqliteEventLog.open(data_dir / "log.db")
        self.registry = DirectoryRegistry(data_dir / "registry")
        self._open_generator = open_generator
        self._executor = ThreadPoolExecutor(2)
        self._generator: Generator | None = None
        self._follower: Follower | None = None
        self.items: dict[str, Item] = {}

    @property
    def generator(self) -> Generator:
        """The generator that runs now; another one after a restart."""
        assert self._generator is not None, "the bench is stopped"
        return self._generator

    @property
    def follower(self) -> Follower:
        """The follower that feeds the generator."""
        assert self._follower is not None, "the bench is stopped"
        return self._follower

    def open(self) -> Generator:
        """Return a generator on this bench's folder that no follower feeds; close it yourself."""
        runtime = Runtime(
            log=self.log,
            registry=self.registry,
            schema=catalog.SCHEMA,
            telemetry=Telemetry.disabled(),
            executor=self._executor,
        )
        return self._open_generator(self.data_dir, runtime)

    def start(self, *, snapshots: bool = False) -> None:
        """Open the generator and wait until it has taken in the whole log.

        With `snapshots` it starts from one if there is one, and publishes what has changed.
        """
        self._generator = self.open()
        self._follower = Follower(
            self.log,
            self._generator.projections,
            linger_s=0,
            snapshots=self.snapshots() if snapshots else None,
        )
        self._follower.start()
        if not self._follower.caught_up.wait(WAIT_S):
            raise TimeoutError(f"not caught up after {WAIT_S} s: {self._follower.status()}")

    def snapshots(self) -> IndexSnapshots:
        """Return what keeps snapshots in this bench's registry, often."""
        settings = SnapshotSettings(every_s=0.1, least_changes=1)
        lease = FileLease(self.data_dir / "registry" / "leases")
        return IndexSnapshots(settings, self.log, self.registry, lease, self.data_dir)

    def stop(self) -> None:
        """Make all state durable and close the generator, as a service does when it ends."""
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def restart(self, *, snapshots: bool = False) -> None:
        """Stop, and start again on the same folder."""
        self.stop()
        self.start(snapshots=snapshots)

    def close(self) -> None:
        """Stop, and release the log."""
        self.stop()
        self._executor.shutdown()
        self.log.close()

    def upsert(self, *items: Item) -> None:
        """Put items into the catalogue, and wait for the generator if it runs."""
        self.items.update((item.item_id, item) for item in items)
        self.append(*(catalog.upsert(item) for item in items))

    def delete(self, *item_ids: str) -> None:
        """Take items out of the catalogue, and wait for the generator if it runs."""
        for item_id in item_ids:
            self.items.pop(item_id, None)
        self.append(*(catalog.delete(item_id) for item_id in item_ids))

    def append(self, *events: Event) -> None:
        """Append events of one topic, and wait for the generator if it runs."""
        sequence = max(self.log.append(events), default=0)
        if self._follower is not None:
            topic = events[0].stream.topic
            self._follower.wait_for(topic, sequence, Deadline.after(WAIT_S))

    def retrieve(self, query: Query, limit: int = 50) -> Retrieval:
        """Retrieve with time to spare, and with reasons."""
        return self.generator.retrieve(query, limit, Deadline.after(WAIT_S), explain=True)

    def folders(self) -> list[Path]:
        """Return the projections' folders: all in `data_dir` but the log and the registry."""
        kept = [p for p in sorted(self.data_dir.iterdir()) if p.is_dir() and p.name != "registry"]
        return [p for p in kept if not p.name.startswith(".")]

    def delete_folders(self) -> None:
        """Delete what the projections keep. The bench must be stopped."""
        for folder in self.folders():
            shutil.rmtree(folder)

    def unrestored(self) -> list[str]:
        """Return what the generator does not find on its disk, by projection; stopped benches."""
        generator = self.open()
        try:
            found = {p.name: (p.restore(), self._end(p)) for p in generator.projections}
        finally:
            generator.close()
        return [f"{n}: {has} of {end}" for n, (has, end) in found.items() if has != end]

    def _end(self, projection: Projection) -> int:
        return self.log.head(Topic(projection.topic))

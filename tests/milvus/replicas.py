"""Several semantic processes on one log, one lease and one collection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from forage.catalog.item import Item
from forage.lease import FileLease, Lease
from forage.log import Event, Topic
from forage.log.follower import Follower
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.retrieval import Deadline, Query
from forage.services import Runtime
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.bench import WAIT_S
from forage.testing.projection_contract import ids
from generators.semantic.retriever import SemanticRetriever
from tests.milvus.semantic import drop, open_semantic, prefix


class Replica:
    """One process's part: a retriever and its follower, with a vector cache of its own."""

    def __init__(self, retriever: SemanticRetriever, log: SqliteEventLog) -> None:
        self.retriever = retriever
        self.follower = Follower(log, retriever.projections)
        self._log = log

    def start(self) -> Self:
        self.follower.start()
        return self

    def stop(self) -> None:
        self.follower.stop()
        self.retriever.close()

    def abandon(self) -> None:
        """End as a killed process does: the lease is not given back."""
        self.follower.stop()
        self.retriever._store.close()

    def catch_up(self) -> Self:
        self.follower.wait_for(Topic.CATALOG, self._log.head(Topic.CATALOG), Deadline.after(WAIT_S))
        return self

    @property
    def lag(self) -> int:
        return self.follower.status()[0].lag

    def find(self, query: Query, limit: int = 100, seconds: float = WAIT_S) -> list[str]:
        found = self.retriever.retrieve(query, limit, Deadline.after(seconds))
        return ids(found.hits)

    def embedded(self) -> int:
        """Return how many texts this process has embedded for the collection."""
        cache = self.retriever._cache
        return int(
            cache._guarded(lambda db: db.execute("SELECT count(*) FROM vectors").fetchone()[0])
        )


class Replicas:
    """What the processes share, with the fixture catalogue in the log."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self.uri = uri
        self.log = SqliteEventLog.open(folder / "log.db")
        self.lease: Lease = FileLease(folder / "leases")
        self._executor = ThreadPoolExecutor(2)
        self._made: list[Replica] = []
        self.items: dict[str, Item] = {}
        self.upsert(*catalog.items())

    def replica(self, role: str, *, lease: Lease | None = None, **milvus: Any) -> Replica:
        data_dir = self._folder / f"replica-{len(self._made)}"
        runtime = Runtime(
            log=self.log,
            registry=DirectoryRegistry(self._folder / "registry"),
            schema=catalog.SCHEMA,
            telemetry=Telemetry.disabled(),
            executor=self._executor,
            lease=lease or self.lease,
        )
        made = Replica(
            open_semantic(
                self.uri,
                data_dir,
                runtime,
                {"collection": prefix(self._folder), "write_timeout_ms": 5_000, **milvus},
                role=role,
            ),
            self.log,
        )
        self._made.append(made)
        return made

    def upsert(self, *items: Item) -> int:
        self.items.update((item.item_id, item) for item in items)
        return self.append(*(catalog.upsert(item) for item in items))

    def delete(self, *item_ids: str) -> int:
        for item_id in item_ids:
            self.items.pop(item_id, None)
        return self.append(*(catalog.delete(item_id) for item_id in item_ids))

    def append(self, *events: Event) -> int:
        return max(self.log.append(events))

    def close(self, *, server_runs: bool = True) -> None:
        for made in self._made:
            made.stop()
        self._executor.shutdown()
        self.log.close()
        if server_runs:
            drop(self.uri, self._folder)

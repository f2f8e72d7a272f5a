"""The mesh in one process with a log of its own that simulated users write to.

Retrievers, understanding and features are those of `evaluation.mesh`. What is added is a clean
log for every simulation and feeding that waits, so that a simulation is exactly repeatable.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.collections.collection import Collection
from evaluation.mesh import Mesh
from forage import wire
from forage.catalog.item import Item
from forage.log import Event, Stream
from forage.retrieval import Deadline, Query, Retrieval, UserContext
from forage.v1 import generator_service_pb2, item_pb2
from orchestrator.bandit import derive_rng

_BATCH = 1_000


class World:
    """A mesh without a network, opened by `with`; nothing of an earlier simulation is in it."""

    def __init__(self, folder: Path, collection: Collection) -> None:
        """Index the collection from scratch in `folder`, which is this world's alone.

        It is emptied first, and gone afterwards. Vectors are kept beside it, for all worlds there.
        """
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "embeddings.db").symlink_to((folder.parent / "embeddings.db").resolve())
        self.mesh = Mesh(collection, folder)
        self.schema = collection.schema
        self.items = collection.items

    def __enter__(self) -> World:
        self.mesh.open()
        self.settings = self.mesh.settings.orchestrator
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.close()
        shutil.rmtree(self._folder)

    def upsert(self, items: Sequence[Item], *, time: float) -> None:
        """Put items into the catalogue."""
        self.append([_upsert(self, item, time) for item in items])

    def append(self, events: Sequence[Event]) -> None:
        """Append events of one topic and wait until every projection has seen them."""
        for start in range(0, len(events), _BATCH):
            self.mesh.log.append(events[start : start + _BATCH])
        self.mesh.follow()

    def understand(
        self,
        text: str,
        *,
        request_id: str,
        time: float,
        user: UserContext | None = None,
        like_item_ids: tuple[str, ...] = (),
    ) -> Query:
        """Understand as the orchestrator does, with the seed it would give to the generators."""
        rng = derive_rng(self.settings.plan.seed, request_id, "generators")
        return self.mesh.understanding.understand(
            text,
            user=user,
            like_item_ids=like_item_ids,
            time=time,
            request_id=request_id,
            seed=int(rng.integers(2**63)),
        )

    def retrieve(self, query: Query, fan_outs: Mapping[str, int]) -> dict[str, Retrieval]:
        """Return what each named generator finds; those with a fan-out of 0 are not asked."""
        return {
            name: self.mesh.generators[name].retrieve(query, fan_out, Deadline.after(math.inf))
            for name, fan_out in fan_outs.items()
            if fan_out
        }

    @staticmethod
    def hits(retrieval: Retrieval) -> list[generator_service_pb2.Hit]:
        """Return what was found as the orchestrator receives it."""
        return wire.hits_to_proto(retrieval.hits, explain=False)


def _upsert(world: World, item: Item, time: float) -> Event:
    record = item_pb2.CatalogRecord(upsert=wire.item_to_proto(item, world.schema))
    return Event(Stream.CATALOG, item.item_id, record.SerializeToString(), time)

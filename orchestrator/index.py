"""The orchestrator's view of the catalogue: items for answers and names for understanding."""

from __future__ import annotations

from collections.abc import Sequence

from forage import wire
from forage.catalog import Item, Schema
from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.view import CatalogView
from forage.log import Record, SavedState, Stream, Topic
from orchestrator.understanding import Gazetteer


class CatalogProjection:
    """Keeps items and names in memory; the items are saved, and names are made from them."""

    name = "orchestrator.catalog"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(self, schema: Schema, checkpoint: CatalogCheckpoint | None = None) -> None:
        """Begin empty; without a checkpoint, every start reads the compacted log."""
        self.view = CatalogView(schema)
        self.gazetteer = Gazetteer(schema)
        self._checkpoint = checkpoint

    def restore(self) -> int:
        """Load the checkpoint; the follower reads the rest of the log."""
        found = None if self._checkpoint is None else self._checkpoint.load()
        if found is None:
            return 0
        sequence, columns = found
        self.view.load(columns)
        for item in self.view.items():
            self.gazetteer.upsert(item)
        return sequence

    def checkpoint(self, sequence: int) -> None:
        """Save the items if many have changed; the log holds them in any case."""
        if self._checkpoint is not None and self._checkpoint.due(len(self.view)):
            self._checkpoint.save(self.view.dump())

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return SavedState("", {}, 0) if self._checkpoint is None else self._checkpoint.saved()

    def apply(self, records: Sequence[Record]) -> None:
        """Take in upserts and deletes, the last of each item."""
        latest: dict[str, Item | None] = dict(wire.catalog_change(r) for r in records)
        upserts = [item for item in latest.values() if item is not None]
        deletes = [item_id for item_id, item in latest.items() if item is None]
        self.view.apply(upserts, deletes)
        for item in upserts:
            self.gazetteer.upsert(item)
        for item_id in deletes:
            self.gazetteer.delete(item_id)
        if self._checkpoint is not None:
            self._checkpoint.note(records[-1], len(latest))

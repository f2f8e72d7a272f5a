"""The orchestrator's view of the catalogue: items for answers and names for understanding."""

from __future__ import annotations

from collections.abc import Sequence

from forage import wire
from forage.catalog import Item, Schema
from forage.catalog.view import CatalogView
from forage.log import Record, Stream, Topic
from orchestrator.understanding import Gazetteer


class CatalogProjection:
    """Keeps items and names in memory; rebuilt from the compacted log at every start."""

    name = "orchestrator.catalog"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(self, schema: Schema) -> None:
        self.view = CatalogView(schema)
        self.gazetteer = Gazetteer(schema)

    def restore(self) -> int:
        """Return 0: nothing is kept on disk."""
        return 0

    def checkpoint(self, sequence: int) -> None:
        """Keep nothing: the compacted log is as small as a checkpoint would be."""

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

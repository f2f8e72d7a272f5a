"""A catalogue view on disk, with whatever is derived from it: a start need not read the log."""

from __future__ import annotations

import json
import logging
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

from forage.catalog.columns import DERIVED_BY, Columns
from forage.catalog.schema import Schema
from forage.log import EventLog, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile

_FORMAT = 1
_LEAST_CHANGES = 20
_STALE_SHARE = 0.5
_logger = logging.getLogger(__name__)


class CatalogCheckpoint:
    """Saves what a projection keeps of the catalogue, when that is worth the writing.

    The log holds the same, so the file is a shortcut and may be older than the projection: it is
    written anew when half of the catalogue has changed. One of another schema, other rules,
    another release or another log is as good as none.
    """

    def __init__(self, folder: Path, log: EventLog, schema: Schema, rules: object = None) -> None:
        """Keep a file in `folder`; `rules` are all else, as JSON, that the state depends on."""
        described = [_described(schema), DERIVED_BY, rules]
        digest = blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()
        self._file = CheckpointFile(
            folder / "catalog.checkpoint", name=f"catalog {digest}", version=_FORMAT
        )
        self._log = log
        self._changes = 0
        self._last: Record | None = None

    def note(self, record: Record, changes: int) -> None:
        """Take in that the state now includes `changes` more items, up to this record."""
        self._changes += changes
        self._last = record

    def due(self, items: int) -> bool:
        """Return whether enough has changed, with this many items in all, to save it."""
        return self._changes >= max(_LEAST_CHANGES, _STALE_SHARE * items)

    def save(self, columns: Columns) -> None:
        """Make the state durable as of the last record; raises `StorageError`."""
        if self._last is None:
            return
        saved = Columns({"last": [self._last.key, crc32(self._last.payload)]})
        saved.put("state", columns)
        self._file.save(self._last.sequence, saved.to_bytes())
        self._changes = 0

    def saved(self) -> SavedState:
        """Describe the file; see `Portable.saved`."""
        return self._file.saved()

    def load(self) -> tuple[int, Columns] | None:
        """Return (sequence, state); None if there is none that belongs to this log."""
        found = self._file.load()
        if found is None:
            return None
        sequence, content = found
        columns = Columns.from_bytes(content)
        key, checksum = columns.names["last"]
        last = self._log.get(Stream.CATALOG, key)
        superseded = last is not None and last.sequence > sequence
        same = last is not None and (last.sequence, crc32(last.payload)) == (sequence, checksum)
        if sequence > self._log.head(Topic.CATALOG) or not (superseded or same):
            _logger.warning("discarding the catalogue's checkpoint: it belongs to another log")
            return None
        return sequence, columns.part("state")


def _described(schema: Schema) -> dict[str, Any]:
    """Return the schema as JSON that does not depend on the order of sets."""
    described = schema.model_dump(mode="json")
    for attribute in described["attributes"].values():
        attribute["roles"] = sorted(attribute["roles"])
    return described

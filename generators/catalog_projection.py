"""The catalogue in memory as a projection, with whatever index a generator derives from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from forage import wire
from forage.catalog.checkpoint import CatalogCheckpoint
from forage.catalog.columns import Columns
from forage.catalog.item import Item
from forage.catalog.view import CatalogView
from forage.log import EventLog, Record, SavedState, Stream, Topic

_PAGE = 1000
ScalarT = TypeVar("ScalarT", bound=np.generic)


class DerivedIndex(Protocol):
    """What a generator keeps beside the catalogue view, addressed by the view's indices."""

    def replace(self, index: int, old: Item | None, new: Item | None) -> None:
        """Take in that the item at `index` was `old` and is `new`; None: absent."""
        ...

    def commit(self) -> None:
        """Make the index consistent after a number of `replace`."""
        ...

    def dump(self) -> Columns:
        """Return everything as columns."""
        ...

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned, and commit it."""
        ...


class CatalogProjection:
    """Keeps a `CatalogView` and a derived index up to date, together under one lock.

    The catalogue topic is compacted, so the log is the durable form of this state; a checkpoint
    only saves deriving it again.
    """

    def __init__(
        self,
        name: str,
        log: EventLog,
        view: CatalogView,
        index: DerivedIndex,
        lock: threading.Lock,
        checkpoint: CatalogCheckpoint,
    ) -> None:
        self._name = name
        self._log = log
        self._view = view
        self._index = index
        self._lock = lock
        self._checkpoint = checkpoint

    @property
    def name(self) -> str:
        """Name in status and metrics."""
        return self._name

    @property
    def topic(self) -> Topic:
        """The topic it follows."""
        return Topic.CATALOG

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams it wants."""
        return (Stream.CATALOG,)

    def restore(self) -> int:
        """Load the checkpoint and read the rest of the topic; return where that ended."""
        applied = self._loaded()
        while records := self._log.read(Topic.CATALOG, applied, _PAGE, self.streams):
            self._take_in(records, commit=False)
            applied = records[-1].sequence
        with self._lock:
            self._index.commit()
        self.checkpoint(applied)
        return applied

    def _loaded(self) -> int:
        found = self._checkpoint.load()
        if found is None:
            return 0
        sequence, columns = found
        with self._lock:
            self._view.load(columns.part("view"))
            self._index.load(columns.part("index"))
        return sequence

    def apply(self, records: Sequence[Record]) -> None:
        """Take in upserts and deletes; applying a record again changes nothing."""
        self._take_in(records, commit=True)

    def _take_in(self, records: Sequence[Record], *, commit: bool) -> None:
        changes = dict(wire.catalog_change(record) for record in records)
        with self._lock:
            before = {item_id: self._view.get(item_id) for item_id in changes}
            self._view.apply(
                [item for item in changes.values() if item is not None],
                [item_id for item_id, item in changes.items() if item is None],
            )
            for item_id, old in before.items():
                index = self._view.index_of(item_id)
                new = self._view.get(item_id)
                if index is not None and old != new:
                    self._index.replace(index, old, new)
            if commit:
                self._index.commit()
        self._checkpoint.note(records[-1], len(changes))

    def checkpoint(self, sequence: int) -> None:
        """Save the state if much has changed; the log holds it in any case."""
        if self._checkpoint.due(len(self._view)):
            columns = Columns()
            columns.put("view", self._view.dump())
            columns.put("index", self._index.dump())
            self._checkpoint.save(columns)

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._checkpoint.saved()


def grown(array: npt.NDArray[ScalarT], size: int, fill: float = 0) -> npt.NDArray[ScalarT]:
    """Return the array if it has at least `size` rows, or a copy of at least twice its length."""
    if len(array) >= size:
        return array
    larger = np.full((max(size, 2 * len(array), 1024), *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger

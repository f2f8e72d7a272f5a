"""The catalogue in memory as a projection, with whatever index a generator derives from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from forage import wire
from forage.catalog.item import Item
from forage.catalog.view import CatalogView
from forage.log import EventLog, Record, Stream, Topic

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


class CatalogProjection:
    """Keeps a `CatalogView` and a derived index up to date, together under one lock.

    It has no files of its own: the catalogue topic is compacted, so the log already is the
    shortest durable form of this state, and `restore` reads it from there.
    """

    def __init__(
        self, name: str, log: EventLog, view: CatalogView, index: DerivedIndex, lock: threading.Lock
    ) -> None:
        self._name = name
        self._log = log
        self._view = view
        self._index = index
        self._lock = lock

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
        """Read the compacted topic; return the sequence it ended at."""
        applied = 0
        while records := self._log.read(Topic.CATALOG, applied, _PAGE, self.streams):
            self.apply(records)
            applied = records[-1].sequence
        return applied

    def apply(self, records: Sequence[Record]) -> None:
        """Take in upserts and deletes; applying a record again changes nothing."""
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
            self._index.commit()

    def checkpoint(self, sequence: int) -> None:
        """Do nothing: the log holds this state."""


def grown(array: npt.NDArray[ScalarT], size: int, fill: float = 0) -> npt.NDArray[ScalarT]:
    """Return the array if it has at least `size` rows, or a copy of at least twice its length."""
    if len(array) >= size:
        return array
    larger = np.full((max(size, 2 * len(array), 1024), *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger

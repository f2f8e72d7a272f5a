"""The catalogue in memory: every item by id, and which items satisfy a filter."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from forage.catalog import years
from forage.catalog.columns import Columns, item_columns, items_of
from forage.catalog.compact import Compactor
from forage.catalog.item import Item, Value
from forage.catalog.postings import NumberColumn, Postings
from forage.catalog.schema import Role, Schema
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter, Interpretation

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class CatalogView:
    """All items of the catalogue in one process, for one writer thread and many readers.

    Every item has an index, a small integer that never changes and is never given to another
    item, so that arrays beside the view can be addressed by it. A deleted item keeps its index
    reserved and gets it back when it returns. Readers of one item never wait; `filter` sees
    the catalogue before or after an `apply`, never amid one.
    """

    def __init__(self, schema: Schema) -> None:
        self._compactor = Compactor()
        self._lock = threading.Lock()
        self._index: dict[str, int] = {}
        self._ids: list[str] = []
        self._items: list[Item | None] = []
        self._count = 0
        self._present = np.zeros(1024, np.bool_)
        self._kinds = Postings()
        self._keywords = {n: Postings() for n in schema.with_role(Role.KEYWORD)}
        self._references = {n: Postings() for n in self._keywords}
        self._numbers = {n: NumberColumn() for n, a in schema.attributes.items() if a.numeric}

    def apply(self, upserts: Iterable[Item], deletes: Collection[str] = ()) -> None:
        """Take in new and changed items, then remove those whose ids are in `deletes`."""
        with self._lock:
            for item in upserts:
                self._put(self._compactor.compact(item))
            for item_id in deletes:
                index = self._index.get(item_id)
                if index is not None:
                    self._replace(index, None)

    def get(self, item_id: str) -> Item | None:
        """Return the item, or None if the catalogue has none of this id."""
        index = self._index.get(item_id)
        return None if index is None else self._items[index]

    def at(self, index: int) -> Item | None:
        """Return the item with this index, or None if it was deleted."""
        return self._items[index]

    def index_of(self, item_id: str) -> int | None:
        """Return the item's index; None if the id was never seen. Deleted items keep theirs."""
        return self._index.get(item_id)

    def id_at(self, index: int) -> str:
        """Return the id of the item, present or deleted, that has this index."""
        return self._ids[index]

    @property
    def size(self) -> int:
        """How many indices have been given out: the length of a mask."""
        return len(self._items)

    def __len__(self) -> int:
        """Return the number of items present."""
        return self._count

    def __contains__(self, item_id: object) -> bool:
        """Return whether an item of this id is present."""
        return isinstance(item_id, str) and self.get(item_id) is not None

    def items(self) -> Iterator[Item]:
        """Yield the items present when called, in order of their indices."""
        return (item for item in list(self._items) if item is not None)

    def filter(self, filters: Sequence[Filter]) -> Mask:
        """Return which items satisfy every filter, as a mask over indices of length `size`.

        The meaning is that of `forage.catalog.matches`, for filters that `validate` accepts;
        raises `InvalidArgumentError` for an attribute that cannot be filtered.
        """
        with self._lock:
            size = self.size
            mask = self._present[:size].copy()
            for wanted in filters:
                mask &= self._matching(wanted, size) != wanted.exclude
            return mask

    def agreement(self, readings: Sequence[Interpretation]) -> Floats | None:
        """Return the chance that items are of the years that readings name, by index, in [0, 1].

        None if they name none. An item of other years keeps the chance that the words meant
        something else, as in `Blade Runner 2049`; of several years any will do.
        """
        named: dict[tuple[str, float, float], float] = {}
        for reading in readings:
            for slot in reading.slots:
                span = years.span(slot.value) if slot.attribute in self._numbers else None
                confidence = reading.confidence * slot.confidence
                if span is not None and confidence > 0:
                    key = (slot.attribute, *span)
                    named[key] = min(1.0, named.get(key, 0.0) + confidence)
        if not named:
            return None
        with self._lock:
            size = self.size
            found = np.zeros(size, np.bool_)
            for attribute, first, last in named:
                found |= self._numbers[attribute].mask(first, last, size)
        doubt = math.prod(1.0 - confidence for confidence in named.values())
        return np.where(found, 1.0, doubt)

    def dump(self) -> Columns:
        """Return everything as columns; for the writer's thread."""
        columns = Columns()
        columns.put("items", item_columns(self._ids, self._items))
        for name, part in self._postings().items():
            columns.put(name, part.dump())
        for name, column in self._numbers.items():
            columns.put(f"number {name}", column.dump(self.size))
        return columns

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned for a view with the same schema."""
        ids, items = items_of(columns.part("items"), self._compactor)
        parts = {name: columns.part(name) for name in self._postings()}
        numbers = {name: columns.part(f"number {name}") for name in self._numbers}
        present = np.fromiter((item is not None for item in items), np.bool_, len(items))
        with self._lock:
            for name, postings in self._postings().items():
                postings.load(parts[name])
            for name, column in self._numbers.items():
                column.load(numbers[name])
            self._ids, self._items = ids, items
            self._index = {item_id: index for index, item_id in enumerate(ids)}
            self._present, self._count = present, int(present.sum())

    def _postings(self) -> dict[str, Postings]:
        return {
            "kinds": self._kinds,
            **{f"keyword {name}": postings for name, postings in self._keywords.items()},
            **{f"reference {name}": postings for name, postings in self._references.items()},
        }

    def _matching(self, wanted: Filter, size: int) -> Mask:
        mask = np.zeros(size, np.bool_)
        if wanted.attribute == "kind":
            for value in wanted.values:
                self._kinds.mark(value, mask)
            return mask
        if wanted.values and wanted.attribute in self._keywords:
            for value in wanted.values:
                self._keywords[wanted.attribute].mark(value.casefold(), mask)
                self._references[wanted.attribute].mark(value, mask)
            return mask
        if not wanted.values and wanted.attribute in self._numbers:
            low = -np.inf if wanted.minimum is None else wanted.minimum
            high = np.inf if wanted.maximum is None else wanted.maximum
            return self._numbers[wanted.attribute].mask(low, high, size)
        raise InvalidArgumentError(
            "filters",
            f"'{wanted.attribute}' cannot be filtered like this",
            allowed="values of a keyword attribute, or a range of a numeric one",
        )

    def _put(self, item: Item) -> None:
        index = self._index.get(item.item_id)
        if index is None:
            index = len(self._items)
            self._ids.append(item.item_id)
            self._items.append(None)
            self._index[item.item_id] = index
        self._replace(index, item)

    def _replace(self, index: int, item: Item | None) -> None:
        old = self._items[index]
        self._items[index] = item
        self._count += (item is not None) - (old is not None)
        if index >= len(self._present):
            more = np.zeros(max(1024, len(self._present)), np.bool_)
            self._present = np.concatenate([self._present, more])
        self._present[index] = item is not None
        self._kinds.replace(index, {old.kind} if old else set(), {item.kind} if item else set())
        for name, postings in self._keywords.items():
            was, now = old.values(name) if old else (), item.values(name) if item else ()
            if was or now:
                postings.replace(index, _folded(was), _folded(now))
                self._references[name].replace(index, _named(was), _named(now))
        for name, column in self._numbers.items():
            values = item.values(name) if item else ()
            if values or old:
                column.replace(index, [float(value.value) for value in values])


def _folded(values: tuple[Value, ...]) -> set[str]:
    return {str(v.value).casefold() for v in values}


def _named(values: tuple[Value, ...]) -> set[str]:
    return {v.item_id for v in values if v.item_id}

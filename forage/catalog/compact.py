"""Items that share what they have in common, so that a whole catalogue fits into little memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from forage.catalog.item import Item, Value

Stored = str | float | tuple[Value, ...]
"""One plain value as it is, anything else as values."""


class CompactAttributes(Mapping[str, tuple[Value, ...]]):
    """An immutable mapping of attributes to values, at about a third of the size of a dict.

    The keys are shared by all items with the same attributes, and a single value of weight 1
    is kept as a bare string or number that becomes a `Value` when it is asked for.
    """

    __slots__ = ("_names", "_stored")

    def __init__(self, names: Mapping[str, int], stored: tuple[Stored, ...]) -> None:
        self._names = names
        self._stored = stored

    @property
    def stored(self) -> tuple[Stored, ...]:
        """What is kept, in the order of the attributes; a tuple may be empty."""
        return self._stored

    def __getitem__(self, name: str) -> tuple[Value, ...]:
        """Return the values of the attribute."""
        stored = self._stored[self._names[name]]
        return stored if isinstance(stored, tuple) else (Value(stored),)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the attributes' names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of attributes."""
        return len(self._names)

    def __repr__(self) -> str:
        """Show the attributes as a dict would."""
        return repr(dict(self))


class Compactor:
    """Makes equal copies of items out of shared parts; values are shared by whoever reads them."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, ...], Mapping[str, int]] = {}

    def compact(self, item: Item) -> Item:
        """Return an item equal to `item`."""
        shape = self.shape(tuple(item.attributes))
        stored = tuple(map(_store, item.attributes.values()))
        return Item(item.item_id, sys.intern(item.kind), CompactAttributes(shape, stored))

    def shape(self, names: tuple[str, ...]) -> Mapping[str, int]:
        """Return the one mapping from these attributes to their places."""
        shape = self._shapes.get(names)
        if shape is None:
            shape = {sys.intern(name): position for position, name in enumerate(names)}
            self._shapes[names] = shape
        return shape


def _store(values: tuple[Value, ...]) -> Stored:
    if len(values) == 1:
        (only,) = values
        if only.weight == 1.0 and not only.item_id and not only.predicted:
            return only.value
    return tuple(values)

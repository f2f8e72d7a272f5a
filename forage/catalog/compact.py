"""Items that share what they have in common, so that a whole catalogue fits into little memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from forage.catalog.item import Item, Value
from forage.catalog.schema import Role, Schema

_POOL_LIMIT = 50_000

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
    """Makes equal copies of items out of shared parts.

    Values of keyword, entity and number attributes recur in other items, and are shared through
    a pool, which is emptied when it is full, so that memory stays bounded.
    """

    def __init__(self, schema: Schema) -> None:
        self._recurring = frozenset(
            schema.with_role(Role.KEYWORD)
            + schema.with_role(Role.ENTITY)
            + schema.with_role(Role.NUMBER)
        )
        self._weights: dict[float, float] = {}
        self._pool: dict[tuple[float, bool], dict[str | float, Value]] = {}
        self._pooled = 0
        self._shapes: dict[tuple[str, ...], Mapping[str, int]] = {}

    def compact(self, item: Item) -> Item:
        """Return an item equal to `item`."""
        names = tuple(item.attributes)
        shape = self._shapes.get(names)
        if shape is None:
            shape = {sys.intern(name): position for position, name in enumerate(names)}
            self._shapes[names] = shape
        stored = tuple(
            self._store(values, recurring=name in self._recurring)
            for name, values in item.attributes.items()
        )
        return Item(item.item_id, sys.intern(item.kind), CompactAttributes(shape, stored))

    def _store(self, values: tuple[Value, ...], *, recurring: bool) -> Stored:
        shared = tuple(map(self._shared, values)) if recurring else tuple(values)
        if len(shared) == 1:
            (only,) = shared
            if only.weight == 1.0 and not only.item_id and not only.predicted:
                return only.value
        return shared

    def _shared(self, value: Value) -> Value:
        alike = self._pool.setdefault((value.weight, value.predicted), {})
        found = alike.get(value.value)
        if found is not None and found.item_id == value.item_id:
            return found
        if self._pooled >= _POOL_LIMIT:
            self._pool.clear()
            self._weights.clear()
            self._pooled = 0
        text = value.value
        if value.item_id and isinstance(text, str):
            # The same name occurs with several weights; its strings are shared even then.
            text = sys.intern(text)
        weight = self._weights.setdefault(value.weight, value.weight)
        value = Value(text, weight, sys.intern(value.item_id), value.predicted)
        self._pool.setdefault((value.weight, value.predicted), {})[value.value] = value
        self._pooled += 1
        return value

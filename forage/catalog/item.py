"""Items: the things that are searched for. A film, a person, a track, a product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Value:
    """One value of one attribute of one item.

    `value` is text for `text`, `keyword` and `entity` attributes, a finite float for `number`
    and `popularity`, and seconds since the Unix epoch for `time`.
    """

    value: str | float
    weight: float = 1.0
    """How strongly the value holds, in (0, 1]: an artist may be pop .9 and country .4."""
    item_id: str = ""
    """For an entity: the item that the value names, such as `person:tom-hanks`. May be empty."""
    predicted: bool = False
    """True if content understanding supplied the value, rather than the catalogue's owner."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the catalogue, as its latest upsert described it."""

    item_id: str
    kind: str
    attributes: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def values(self, attribute: str) -> tuple[Value, ...]:
        """Return the attribute's values, or an empty tuple if the item has none."""
        return self.attributes.get(attribute, ())

    def texts(self, attribute: str) -> tuple[str, ...]:
        """Return the attribute's values as text, in catalogue order."""
        return tuple(str(v.value) for v in self.values(attribute))

    def number(self, attribute: str) -> float | None:
        """Return the attribute's first value as a number, or None if it has none."""
        for value in self.values(attribute):
            return float(value.value)
        return None

    def references(self) -> Iterator[tuple[str, Value]]:
        """Yield (attribute, value) for every value that names another item."""
        for attribute, values in self.attributes.items():
            for value in values:
                if value.item_id:
                    yield attribute, value

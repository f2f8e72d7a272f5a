"""Which fields the index has, as the catalogue's schema demands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from forage.catalog import years
from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from generators.lexical.analysis import item_term, title_term, value_term, words


@dataclass(frozen=True)
class Layout:
    """The fields of the index.

    *Text* fields hold tokens with positions and are scored by BM25. *Value* fields hold whole
    keyword values, each as one term, for filters and slots, and the years and decades of numbers,
    for slots. *Number* fields are for ranges. The scored fields are numbered: texts first, then
    values, then the title as a whole.
    """

    texts: tuple[str, ...]
    boosts: tuple[float, ...]
    """Of the texts, in the same order."""
    values: tuple[str, ...]
    numbers: tuple[str, ...]
    times: frozenset[str]
    """Those of `numbers` that are times."""
    title: str
    popularity: str | None
    others: frozenset[str]
    """Attributes of the schema that this generator cannot search."""

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """Return the layout for a schema."""
        texts = schema.with_role(Role.TEXT)
        values = tuple(
            n for n, a in schema.attributes.items() if a.roles & {Role.KEYWORD, Role.NUMBER}
        )
        numbers = tuple(n for n, a in schema.attributes.items() if a.numeric)
        return cls(
            texts=texts,
            boosts=tuple(schema.attributes[name].boost for name in texts),
            values=values,
            numbers=numbers,
            times=frozenset(schema.with_role(Role.TIME)),
            title=schema.title,
            popularity=schema.popularity,
            others=frozenset(schema.attributes.keys() - {*texts, *values, *numbers}),
        )

    @property
    def searchable(self) -> tuple[str, ...]:
        """The names that the query language knows as fields."""
        return tuple(dict.fromkeys(("kind", *self.texts, *self.values, *self.numbers)))

    @cached_property
    def title_field(self) -> int:
        """The number of the field that holds whole titles."""
        return len(self.texts) + len(self.values)

    @cached_property
    def fields(self) -> int:
        """How many scored fields there are."""
        return self.title_field + 1

    def value_field(self, attribute: str) -> int:
        """Return the number of the value field of an attribute."""
        return len(self.texts) + self.values.index(attribute)

    def field_name(self, field: int) -> str:
        """Return the attribute that a scored field belongs to."""
        names = (*self.texts, *self.values, self.title)
        return names[field]

    def fingerprint(self, *more: object) -> str:
        """Return a hash of the layout, and of whatever else an index depends on."""
        described = [self.texts, self.values, self.numbers, self.title, self.popularity, more]
        return blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Document:
    """An item as the engines index it."""

    row: int
    """Number in the corpus; every upsert of an item gets a new one."""
    item_id: str
    kind: str
    texts: Mapping[str, Sequence[str]]
    """By text field: its values."""
    values: Mapping[str, Mapping[str, float]]
    """By value field: term to the weight of the value, in (0, 1]."""
    named: Mapping[str, Sequence[str]]
    """By value field: the terms of the items that its values name, for filters."""
    titles: Sequence[str]
    """Terms of the whole titles."""
    numbers: Mapping[str, Sequence[float]]
    popularity: float
    """In [0, 1]."""

    @cached_property
    def packed(self) -> bytes:
        """What the corpus needs of the document, for the engine to keep."""
        kept = [self.item_id, self.kind, self.texts, self.values, self.titles, self.popularity]
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def tie(self) -> float:
        """In [0, 1); orders items of equal score, the same way wherever they are indexed."""
        return tie(self.item_id)


def tie(item_id: str) -> float:
    """Return a number in [0, 1) that depends on the item id alone."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=6).digest(), "big") / 2.0**48


def document(item: Item, row: int, layout: Layout) -> Document:
    """Return what the engines index of an item."""
    texts = {name: item.texts(name) for name in layout.texts if item.values(name)}
    values: dict[str, dict[str, float]] = {}
    named: dict[str, list[str]] = {}
    for name in layout.values:
        weights = values.setdefault(name, {})
        for value in item.values(name):
            for text in years.spoken(value.value):
                term = value_term(text)
                weights[term] = max(value.weight, weights.get(term, 0.0))
            if value.item_id:
                named.setdefault(name, []).append(item_term(value.item_id))
    popularity = item.number(layout.popularity) if layout.popularity else None
    return Document(
        row=row,
        item_id=item.item_id,
        kind=item.kind,
        texts=texts,
        values=values,
        named=named,
        titles=[title_term(t) for title in texts.get(layout.title, ()) if (t := words(title))],
        numbers={
            name: [float(v.value) for v in item.values(name)]
            for name in layout.numbers
            if item.values(name)
        },
        popularity=min(1.0, max(0.0, popularity or 0.0)),
    )


def unpack(packed: bytes, row: int) -> Document:
    """Return a document again, without what only filters need."""
    item_id, kind, texts, values, titles, popularity = json.loads(packed)
    found = Document(row, item_id, kind, texts, values, {}, titles, {}, popularity)
    found.__dict__["packed"] = packed
    return found

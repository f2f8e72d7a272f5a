"""Predicted queries: what people will probably type for an item, before anyone has.

Roles decide, never names: an item is wanted by its title, its title without article, subtitle
or bracket, by other short texts (aliases), and by the entities it is related to. Variants that
keep the words (kind words, word order, misspellings, prefixes) are not stored; `backoff` makes
them from the query.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns, ragged, spans
from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.text import normalize, tokenize
from generators.evidence import Floats

Indices = npt.NDArray[np.int64]

_ARTICLES = "the a an | le la les l un une | der die das ein eine | el los las | il lo gli"
ARTICLES = frozenset(_ARTICLES.split()) - {"|"}
TITLE, SHORT_TITLE, ALIAS, ENTITY = 0.6, 0.5, 0.5, 0.25
"""How probably someone who types such a query wants the item, if it is as popular as can be."""
PREDICTED_VALUE = 0.6
"""What a predicted attribute value is worth, relative to one that the catalogue's owner gave."""
_LONGEST_ALIAS = 6
_SUBTITLE = re.compile(r"\s*(?::\s|\s[-–—]\s|\().*")
_FIELD_BITS, _CHANCE_BITS = 16, 8
_CHANCES, _FIELDS = (1 << _CHANCE_BITS) - 1, (1 << _FIELD_BITS) - 1
_normalized = lru_cache(maxsize=8192)(normalize)
_NOTHING = np.zeros(0, np.int64)


def without_article(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tokens without a leading article, if more than that is left."""
    return tokens[1:] if len(tokens) > 1 and tokens[0] in ARTICLES else tokens


class Predictions:
    """Query key → (index, field, chance) of the items that it probably wants.

    Indices are those of the catalogue view. A posting is one 64-bit integer: index, chance in
    1/255, field number; most keys have one posting only.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._entities = schema.with_role(Role.ENTITY)
        self._aliases = tuple(
            name
            for name in schema.with_role(Role.TEXT)
            if name != schema.title and name not in self._entities
        )
        self.fields = (schema.title, *(n for n in schema.attributes if n != schema.title))
        self._numbers = {name: number for number, name in enumerate(self.fields)}
        self._postings: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return len(self._postings)

    def queries(self, item: Item) -> Iterator[tuple[str, str, float]]:
        """Yield (key, field, chance in (0, 1]) of the item's predicted queries, with repeats."""
        for value in item.values(self._schema.title):
            yield from self._title_queries(str(value.value))
        for name in self._aliases:
            for value in item.values(name):
                tokens = tokenize(str(value.value))
                if len(tokens) <= _LONGEST_ALIAS:
                    yield " ".join(tokens), name, ALIAS * value.weight
        for name in self._entities:
            for value in item.values(name):
                trust = PREDICTED_VALUE if value.predicted else 1.0
                yield _normalized(str(value.value)), name, ENTITY * value.weight * trust

    def _title_queries(self, title: str) -> Iterator[tuple[str, str, float]]:
        field = self._schema.title
        tokens = tokenize(title)
        yield " ".join(tokens), field, TITLE
        main = tokenize(_SUBTITLE.sub("", title))
        for short in {without_article(tokens), main, without_article(main)}:
            yield " ".join(short), field, SHORT_TITLE

    def add(self, item: Item, index: int) -> list[str]:
        """Predict the item's queries; return the keys that are new."""
        new = []
        for key, posting in self._item_postings(item, index):
            found = self._postings.get(key)
            if found is None:
                self._postings[key] = array("q", (posting,))
                new.append(key)
            else:
                found.append(posting)
        return new

    def discard(self, item: Item, index: int) -> list[str]:
        """Take back what `add` predicted for the same item and index; return the keys now gone."""
        gone = []
        for key, posting in self._item_postings(item, index):
            found = self._postings[key]
            found.remove(posting)
            if not found:
                del self._postings[key]
                gone.append(key)
        return gone

    def _item_postings(self, item: Item, index: int) -> Iterator[tuple[str, int]]:
        """Yield (key, posting), one for each field: the one with the best chance."""
        best: dict[tuple[str, str], float] = {}
        for key, field, chance in self.queries(item):
            if key:
                best[key, field] = max(chance, best.get((key, field), 0.0))
        for (key, field), chance in best.items():
            chance_and_field = round(chance * _CHANCES) << _FIELD_BITS | self.field_number(field)
            yield key, index << (_CHANCE_BITS + _FIELD_BITS) | chance_and_field

    def field_number(self, field: str) -> int:
        """Return the number that `find` knows the attribute by; -1 for an unknown one."""
        return self._numbers.get(field, -1)

    def find(self, keys: Sequence[str]) -> tuple[Indices, Indices, Floats]:
        """Return indices, field numbers and chances of what the keys predict, unordered.

        An item that several keys or fields predict is repeated.
        """
        found = [self._postings[key] for key in keys if key in self._postings]
        packed: Indices = np.concatenate([np.array(p) for p in found]) if found else _NOTHING
        chances = (packed >> _FIELD_BITS & _CHANCES) / _CHANCES
        return packed >> (_CHANCE_BITS + _FIELD_BITS), packed & _FIELDS, chances

    def __contains__(self, key: str) -> bool:
        return key in self._postings

    def dump(self) -> Columns:
        """Return everything as columns."""
        lists = [np.frombuffer(found, np.int64) for found in self._postings.values()]
        return Columns({"keys": list(self._postings)}, ragged(lists, np.int64))

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned."""
        content = columns.arrays["content"].tobytes()
        self._postings = {
            key: array("q", content[start:end])
            for key, (start, end) in zip(
                columns.names["keys"], spans(columns.arrays["lengths"], 8), strict=True
            )
        }

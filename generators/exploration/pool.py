"""Which items are relevant enough to a search to be worth a look, and how relevant."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns
from forage.catalog.item import Item
from forage.catalog.postings import Postings
from forage.catalog.schema import Role, Schema
from forage.catalog.view import CatalogView
from forage.retrieval import Interpretation, Query
from forage.text import tokenize
from generators.catalog_projection import grown
from generators.evidence import Floats
from generators.exploration.posterior import ItemLearner

_READINGS = 3
_EXAMPLES = 5
_LEAST_SHARE = 0.2
"""Share of the words, weighted by rarity, that a title must have in common with the query."""
_NAMED_NEIGHBOURS = 0.5
"""Relevance of what is related to an item that the query names, relative to the item."""


class ExplorationIndex:
    """What exploration keeps of the catalogue, by the indices of the catalogue view."""

    def __init__(self, schema: Schema, view: CatalogView) -> None:
        self.popularity: Floats = np.zeros(0)
        """In [0, 1]; NaN where the catalogue tells none."""
        self.usual_popularity = 0.0
        """The median; taken where the catalogue tells none, for unknown is not unwanted."""
        self.dates: Floats = np.zeros(0)
        """Seconds since the epoch; NaN where the catalogue tells none."""
        self.hashes: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        """Of the item ids: an order that does not depend on the order of arrival."""
        self.rows: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Rows of the learner's counts; -1 for items never shown."""
        self.newest = -np.inf
        self.learner: ItemLearner | None = None
        self._schema = schema
        self._view = view
        self._entities = schema.with_role(Role.ENTITY)
        self._tokens = Postings()
        self._values = Postings()

    def replace(self, index: int, old: Item | None, new: Item | None) -> None:
        """Take in that the item at `index` was `old` and is `new`."""
        self._grow(index + 1)
        self._tokens.replace(index, self._title_tokens(old), self._title_tokens(new))
        self._values.replace(index, self._entity_keys(old), self._entity_keys(new))
        schema = self._schema
        popularity = new.number(schema.popularity) if new and schema.popularity else None
        date = new.number(schema.freshness) if new and schema.freshness else None
        self.popularity[index] = np.nan if popularity is None else popularity
        self.dates[index] = np.nan if date is None else date
        if old is None and new is not None:
            digest = hashlib.blake2b(new.item_id.encode(), digest_size=8).digest()
            self.hashes[index] = int.from_bytes(digest, "little")
            self.rows[index] = self.learner.row(new.item_id) if self.learner else -1

    def _grow(self, size: int) -> None:
        self.popularity = grown(self.popularity, size, np.nan)
        self.dates = grown(self.dates, size, np.nan)
        self.hashes = grown(self.hashes, size)
        self.rows = grown(self.rows, size, -1)

    def commit(self) -> None:
        """Find the newest date and the usual popularity."""
        dates = self.dates[~np.isnan(self.dates)]
        self.newest = float(dates.max()) if dates.size else -np.inf
        popularity = self.popularity[~np.isnan(self.popularity)]
        self.usual_popularity = float(np.median(popularity)) if popularity.size else 0.0

    def dump(self) -> Columns:
        """Return everything as columns but where the learner counts, which is its to tell."""
        size = self._view.size
        columns = Columns(
            arrays={
                "popularity": self.popularity[:size],
                "dates": self.dates[:size],
                "hashes": self.hashes[:size],
            }
        )
        columns.put("tokens", self._tokens.dump())
        columns.put("values", self._values.dump())
        return columns

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned; the view is loaded before."""
        arrays = columns.arrays
        self.popularity = arrays["popularity"].copy()
        self.dates, self.hashes = arrays["dates"].copy(), arrays["hashes"].copy()
        self._tokens.load(columns.part("tokens"))
        self._values.load(columns.part("values"))
        self.rows = np.full(len(self.hashes), -1, np.int64)
        if self.learner is not None:
            for index in range(len(self.rows)):
                self.rows[index] = self.learner.row(self._view.id_at(index))
        self.commit()

    def link(self, item_id: str, row: int) -> None:
        """Take in where the learner counts the item, if the catalogue has it."""
        index = self._view.index_of(item_id)
        if index is not None:
            self.rows[index] = row

    def relevance(self, query: Query, *, taste_weight: float) -> Floats:
        """Return how relevant each item is to the query, at least 0, by item index.

        Words narrow the pool: taste then only reorders it. Without any, every item is relevant
        to the need to find something new, those near the user's taste more so.
        """
        size = self._view.size
        tokens = query.tokens or tokenize(query.text)
        liked = query.like_item_ids[:_EXAMPLES]
        taste = self._related(query.user.recent_item_ids[:_EXAMPLES], size)
        found = np.zeros(size)
        if tokens or liked or query.interpretations:
            for reading in query.interpretations[:_READINGS]:
                self._read(reading, found)
            np.maximum(found, self._matched(tokens, size), out=found)
            np.maximum(found, self._related(liked, size), out=found)
            agreement = self._view.agreement(query.interpretations)
            if agreement is not None:
                # Years narrow what else is named; where nothing else is, they are what is named.
                found = found * agreement if found.any() else (agreement == 1.0).astype(float)
            found *= 1.0 + taste_weight * taste
        else:
            found = 1.0 + taste_weight * taste
        for item_id in (*liked, *query.user.recent_item_ids):
            index = self._view.index_of(item_id)
            if index is not None and index < size:
                found[index] = 0.0
        return found

    def _read(self, reading: Interpretation, found: Floats) -> None:
        """Raise `found` for items that have a slot's value, are it, or are related to it."""
        for slot in reading.slots:
            confidence = _share(reading.confidence) * _share(slot.confidence)
            having = self._values.find(_value_key(slot.attribute, slot.value))
            found[having] = np.maximum(found[having], confidence)
            named = self._view.index_of(slot.item_id)
            if named is None or named >= len(found):
                continue
            found[named] = max(found[named], confidence)
            if slot.attribute == self._schema.title:
                related = _NAMED_NEIGHBOURS * self._related((slot.item_id,), len(found))
                np.maximum(found, confidence * related, out=found)

    def _matched(self, tokens: Sequence[str], size: int) -> Floats:
        """Return the share of the query's words in the title, weighted by rarity, in [0, 1]."""
        matched, total = np.zeros(size), 0.0
        for token in dict.fromkeys(tokens):
            having = self._tokens.find(token)
            rarity = math.log1p(size / (1.0 + having.size))
            matched[having] += rarity
            total += rarity
        share = matched / max(total, 1e-9)
        return np.where(share >= _LEAST_SHARE, share, 0.0)

    def _related(self, item_ids: Iterable[str], size: int) -> Floats:
        """Return how much items have in common with the given ones, in [0, 1]; rare counts more."""
        items = [item for item_id in item_ids if (item := self._view.get(item_id)) is not None]
        shared = np.zeros(size)
        for key in sorted({key for item in items for key in self._links(item)}):
            having = self._values.find(key)
            shared[having] += 1.0 / math.sqrt(max(1, having.size))
        for named_id in sorted({value.item_id for item in items for _, value in item.references()}):
            index = self._view.index_of(named_id)
            if index is not None and index < size:
                shared[index] += 1.0
        most = shared.max(initial=0.0)
        return shared / most if most else shared

    def _links(self, item: Item) -> set[str]:
        """Return the values by which others are related: the item's own, and those that name it."""
        naming = [n for n in self._entities if self._schema.attributes[n].kind == item.kind]
        titles = item.texts(self._schema.title)
        return self._entity_keys(item) | {_value_key(n, t) for n in naming for t in titles}

    def _title_tokens(self, item: Item | None) -> set[str]:
        texts = item.texts(self._schema.title) if item else ()
        return {token for text in texts for token in tokenize(text)}

    def _entity_keys(self, item: Item | None) -> set[str]:
        if item is None:
            return set()
        return {_value_key(n, str(v.value)) for n in self._entities for v in item.values(n)}


def _share(confidence: float) -> float:
    return min(1.0, max(0.0, confidence))


def _value_key(attribute: str, value: str) -> str:
    return f"{attribute}\x1f{value.casefold()}"

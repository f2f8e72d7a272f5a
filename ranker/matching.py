"""How well items match the words, the slots and the user of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from forage.catalog.schema import Role, Schema
from forage.retrieval import Query, Slot
from forage.text import tokenize
from ranker.catalog import Card, ItemCards, JoinedPostings

Column = NDArray[np.float64]
_MAX_WORDS = 32
_MAX_READINGS = 8
_MAX_SLOTS = 16


class Matcher:
    """Computes the features of groups `match`, `slots` and `user.affinity`; NaN is missing."""

    def __init__(self, schema: Schema, cards: ItemCards) -> None:
        """Match against the cards of a catalogue with this schema."""
        self._cards = cards
        self._fields = {name: field for field, name in enumerate(cards.fields)}
        self._texts = [(n, self._fields[n]) for n in schema.with_role(Role.TEXT)]
        self._title = self._fields[schema.title]
        entities = [self._fields[n] for n in schema.with_role(Role.ENTITY)]
        self._entity = np.isin(np.arange(len(cards.fields)), entities)

    def columns(
        self, query: Query, cards: Sequence[Card | None], postings: JoinedPostings
    ) -> dict[str, Column]:
        """Return the columns of the groups `match` and `slots`, each of shape (items,).

        `postings` are those of the cards.
        """
        words = list(dict.fromkeys(query.tokens))[:_MAX_WORDS]
        found = self._words_found(words, postings)
        columns = self._fields_matched(query, found, postings)
        columns |= self._title_matched(query, found, cards)
        columns |= self._slots_matched(query, words, found, postings, cards)
        unknown = np.array([card is None for card in cards], bool)
        if unknown.any():
            for column in columns.values():
                column[unknown] = np.nan
        return columns

    def _words_found(self, words: Sequence[str], postings: JoinedPostings) -> Column:
        """Return the weight of each word in each field; shape (words, items, fields)."""
        found = np.zeros((len(words), postings.items, len(self._fields)))
        for index, word in enumerate(words):
            at = np.flatnonzero((postings.term == self._cards.term(word)) & ~postings.whole)
            found[index, postings.row[at], postings.field[at]] = postings.weight[at]
        return found

    def _fields_matched(
        self, query: Query, found: Column, postings: JoinedPostings
    ) -> dict[str, Column]:
        if not len(found):
            missing = [
                f"match.{n}.{what}" for n, _ in self._texts for what in ("coverage", "exact")
            ]
            return {name: _missing(postings.items) for name in (*missing, "match.coverage")}
        coverage = found.mean(axis=0)
        exact = np.zeros((postings.items, len(self._fields)))
        at = np.flatnonzero((postings.term == self._cards.term(query.normalized)) & postings.whole)
        exact[postings.row[at], postings.field[at]] = postings.weight[at]
        columns = {f"match.{name}.coverage": coverage[:, f] for name, f in self._texts}
        columns |= {f"match.{name}.exact": exact[:, f] for name, f in self._texts}
        columns["match.coverage"] = self._anywhere(found)
        return columns

    def _anywhere(self, found: Column) -> Column:
        """Return the share of the words that are in any text field."""
        share: Column = found[:, :, [f for _, f in self._texts]].max(axis=2).mean(axis=0)
        return share

    def _title_matched(
        self, query: Query, found: Column, cards: Sequence[Card | None]
    ) -> dict[str, Column]:
        names = ("title.coverage", "title.length_ratio", "title.prefix", "title.similarity")
        if not len(found):
            return {name: _missing(len(cards)) for name in names}
        titles = ["" if card is None else card.title for card in cards]
        words = np.array([title.count(" ") + 1.0 for title in titles])
        inside = (found[:, :, self._title] > 0).sum(axis=0)
        similarity = process.cdist([query.normalized], titles, scorer=fuzz.ratio, workers=1)[0]
        prefix = np.array([title.startswith(query.normalized) for title in titles], float)
        return {
            "title.coverage": inside / words,
            "title.length_ratio": len(query.tokens) / words,
            "title.prefix": prefix,
            "title.similarity": similarity.astype(float) / 100,
        }

    def _slots_matched(
        self,
        query: Query,
        words: Sequence[str],
        found: Column,
        postings: JoinedPostings,
        cards: Sequence[Card | None],
    ) -> dict[str, Column]:
        readings = [r for r in query.interpretations[:_MAX_READINGS] if r.slots]
        items = postings.items
        if not readings:
            return {f"slots.{n}": _missing(items) for n in ("matched", "top", "named", "residual")}
        matched = [self._reading_matched(r.slots[:_MAX_SLOTS], postings) for r in readings]
        confidence = np.array([max(r.confidence, 1e-6) for r in readings])
        named: dict[str, float] = {}
        for reading in readings:
            for slot in reading.slots[:_MAX_SLOTS]:
                value = reading.confidence * slot.confidence
                named[slot.item_id] = max(value, named.get(slot.item_id, 0.0))
        named.pop("", None)
        left = set(tokenize(readings[0].residual))
        residual = [index for index, word in enumerate(words) if word in left]
        return {
            "slots.matched": np.average(matched, axis=0, weights=confidence),
            "slots.top": matched[0],
            "slots.named": _named(named, cards),
            "slots.residual": self._anywhere(found[residual]) if residual else _missing(items),
        }

    def _reading_matched(self, slots: Sequence[Slot], postings: JoinedPostings) -> Column:
        total = np.zeros(postings.items)
        for slot in slots:
            field = self._fields.get(slot.attribute, -1)
            term = self._cards.term(" ".join(tokenize(slot.value)))
            at = np.flatnonzero(
                (postings.term == term) & (postings.field == field) & postings.whole
            )
            total[postings.row[at]] += slot.confidence * postings.weight[at]
        return total / max(sum(slot.confidence for slot in slots), 1e-6)

    def affinity(self, history: Mapping[str, float], postings: JoinedPostings) -> Column:
        """Return the cosine of each item's entity values with those of the history.

        `history` gives items with a weight each, which may be negative. Missing without history.
        """
        past = JoinedPostings(self._cards.find(history))
        if not len(past.term):
            return _missing(postings.items)
        weights = np.fromiter(history.values(), float, len(history))
        chosen = np.flatnonzero(past.whole & self._entity[past.field])
        codes, index = np.unique(self._code(past, chosen), return_inverse=True)
        profile = np.bincount(
            index, past.weight[chosen] * weights[past.row[chosen]], minlength=len(codes)
        )
        length = float(np.linalg.norm(profile))
        if length == 0.0:
            return _missing(postings.items)
        own = np.flatnonzero(postings.whole & self._entity[postings.field])
        code, weight, row = self._code(postings, own), postings.weight[own], postings.row[own]
        at = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        shared = np.where(codes[at] == code, profile[at], 0.0) * weight
        product = np.bincount(row, shared, minlength=postings.items)
        norm = np.sqrt(np.bincount(row, weight**2, minlength=postings.items))
        return product / (length * np.maximum(norm, 1e-9))

    def _code(self, postings: JoinedPostings, at: NDArray[np.intp]) -> NDArray[np.int64]:
        code: NDArray[np.int64] = (
            postings.term[at].astype(np.int64) * len(self._fields) + postings.field[at]
        )
        return code


def _missing(items: int) -> Column:
    return np.full(items, np.nan)


def _named(named: Mapping[str, float], cards: Sequence[Card | None]) -> Column:
    return np.array([0.0 if card is None else named.get(card.item_id, 0.0) for card in cards])

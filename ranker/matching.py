"""How well items match the words, the slots and the user of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from forage.catalog import years
from forage.catalog.schema import Role, Schema
from forage.retrieval import Query, Slot
from forage.text import tokenize
from ranker.catalog import Card, ItemCards, JoinedPostings

Column = NDArray[np.float64]
_MAX_WORDS = 32
_MAX_READINGS = 8
_MAX_SLOTS = 16
_K1, _B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class _Meant:
    """The words of a query, as the cards number them; -1 is unknown."""

    terms: list[int]
    stems: list[int]
    rarity: Column
    """Inverse document frequencies of the stems."""

    @classmethod
    def of(cls, words: Sequence[str], cards: ItemCards) -> _Meant:
        stems = [cards.stem(word) for word in words]
        return cls([cards.term(word) for word in words], stems, cards.idf(stems))


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
        meant = _Meant.of(words, self._cards)
        found, counts = self._words_found(meant, postings)
        columns = self._fields_matched(query, found, postings)
        columns |= self._stems_matched(meant, counts, cards)
        columns |= self._title_matched(query, found, cards)
        columns |= self._slots_matched(query, words, found, postings, cards)
        unknown = np.array([card is None for card in cards], bool)
        if unknown.any():
            for column in columns.values():
                column[unknown] = np.nan
        return columns

    def _words_found(self, meant: _Meant, postings: JoinedPostings) -> tuple[Column, Column]:
        """Return weights of the words themselves and counts of words of their stems.

        Both by word, item and field: how strongly the field has the very word, and how often it
        has any word of the same stem.
        """
        shape = (len(meant.terms), postings.items, len(self._fields))
        cells_in_all = shape[1] * shape[2]
        found, counts = np.zeros(shape), np.zeros(shape)
        for index, (term, stem) in enumerate(zip(meant.terms, meant.stems, strict=True)):
            if stem < 0:
                continue
            at = np.flatnonzero(postings.stem == stem)
            rows, fields = postings.row[at], postings.field[at]
            cells = rows * len(self._fields) + fields
            counts[index] = np.bincount(cells, postings.count[at], cells_in_all).reshape(shape[1:])
            same = postings.term[at] == term
            found[index, rows[same], fields[same]] = postings.weight[at[same]]
        return found, counts

    def _stems_matched(
        self, meant: _Meant, counts: Column, cards: Sequence[Card | None]
    ) -> dict[str, Column]:
        """Return what words of the query's stems, weighed by their rarity, say of the items."""
        names = ("match.idf", "match.bm25", "match.bm25_z", "match.rarest", "title.idf")
        if not len(counts):
            return {name: _missing(len(cards)) for name in names}
        texts = [field for _, field in self._texts]
        rarity = meant.rarity[:, None]
        total = max(float(rarity.sum()), 1e-9)
        often = counts[:, :, texts].sum(axis=2)
        norm = length_norm(cards, self._cards.mean_length)
        bm25 = (rarity * often / (often + norm)).sum(axis=0) / total
        held = often > 0
        return {
            "match.idf": (rarity * held).sum(axis=0) / total,
            "match.bm25": bm25,
            "match.bm25_z": standardized(bm25),
            "match.rarest": held[int(np.argmax(meant.rarity))].astype(float),
            "title.idf": (rarity * (counts[:, :, self._title] > 0)).sum(axis=0) / total,
        }

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
        names = (
            "title.coverage",
            "title.length_ratio",
            "title.prefix",
            "title.similarity",
            "title.part_similarity",
        )
        if not len(found):
            return {name: _missing(len(cards)) for name in names}
        titles = ["" if card is None else card.title for card in cards]
        words = np.array([title.count(" ") + 1.0 for title in titles])
        inside = (found[:, :, self._title] > 0).sum(axis=0)
        whole, part = (
            process.cdist([query.normalized], titles, scorer=scorer, workers=1)[0]
            for scorer in (fuzz.ratio, fuzz.partial_ratio)
        )
        prefix = np.array([title.startswith(query.normalized) for title in titles], float)
        return {
            "title.coverage": inside / words,
            "title.length_ratio": len(query.tokens) / words,
            "title.prefix": prefix,
            "title.similarity": whole.astype(float) / 100,
            "title.part_similarity": part.astype(float) / 100,
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
            held = np.zeros(len(postings.term), bool)
            for value in years.parts(slot.value):
                held |= postings.term == self._cards.term(" ".join(tokenize(value)))
            at = np.flatnonzero(held & (postings.field == field) & postings.whole)
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


def length_norm(cards: Sequence[Card | None], mean_length: float) -> Column:
    """Return what BM25 adds to a word's count in each item, to make up for the item's length."""
    lengths = np.array([0 if card is None else card.length for card in cards], float)
    norm: Column = _K1 * (1 - _B + _B * lengths / mean_length)
    return norm


def standardized(values: Column) -> Column:
    """Return values in standard deviations from their mean, along the first axis; 0 if equal."""
    if not len(values):
        return values
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    result: Column = centred / np.where(spread > 1e-9, spread, np.inf)
    return result


def _missing(items: int) -> Column:
    return np.full(items, np.nan)


def _named(named: Mapping[str, float], cards: Sequence[Card | None]) -> Column:
    return np.array([0.0 if card is None else named.get(card.item_id, 0.0) for card in cards])

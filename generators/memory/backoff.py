"""From the query itself to what resembles it: where memory looks, and in which order.

    what users did for the query, in this locale     decides
    what users did for the query                     decides
    what was predicted for the query                 prior
    variants: word order, kind words, misspellings   prior, discounted
    slots: what worked for `cast: Tom Hanks`         prior, discounted
    neighbours: queries that mean nearly the same    only where little else is found

The weaker sources write first, see `Board`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forage.catalog.schema import Schema
from forage.catalog.view import CatalogView, Mask
from forage.retrieval import Filter, Interpretation, Query, Reason, Slot
from forage.text import normalize, tokenize
from forage.vector_cache import Vectors
from generators.evidence import Floats
from generators.memory.board import Board, Rows
from generators.memory.catalog_index import MemoryCatalogIndex
from generators.memory.engagement import (
    MemoryLearner,
    choice_key,
    locale_key,
    query_key,
    slot_key,
)
from generators.memory.q2e import Q2E, Recollection
from generators.memory.settings import MemorySettings
from generators.memory.variants import Variant, variants
from generators.sparse_set import Integers, SparseSet

_SLOT, _NEIGHBOUR = 0.8, 0.6
"""What a slot and a neighbour are worth, compared with the query itself."""
_READINGS = 3
_NEAREST = 3
_MOST = 20_000
"""Predictions for one key that are looked at; a genre may have a large part of the catalogue."""
_UNPOPULAR = 0.6
"""Chance of an item that nobody cares for, relative to the most popular one."""


class Backoff:
    """One retrieval: fills a board from every source. The caller holds the lock."""

    def __init__(
        self,
        query: Query,
        *,
        schema: Schema,
        settings: MemorySettings,
        view: CatalogView,
        index: MemoryCatalogIndex,
        learner: MemoryLearner,
        rows: SparseSet,
    ) -> None:
        """`rows` is shared with the retrievals before and after, one at a time."""
        self._query = query
        self._key = query_key(query.normalized or normalize(query.text), query.like_item_ids)
        self._schema = schema
        self._view = view
        self._index = index
        self._learner = learner
        self._settings = settings
        self._rows = rows
        self._allowed: Mask = np.zeros(0, np.bool_)
        self.board = self._new_board()
        self.indices: Integers = np.zeros(0, np.int64)
        """In the catalogue view, of the item of each row."""
        self.personal: dict[int, Reason] = {}
        """By row."""

    def _new_board(self) -> Board:
        return Board(strength=self._settings.prior_strength, base_rate=self._settings.base_rate)

    def look(self) -> None:
        """Fill the board from all sources but neighbours."""
        self._begin()
        agreement = self._view.agreement(self._query.interpretations)
        for reading in self._query.interpretations[:_READINGS]:
            self._read(reading, agreement)
        predictions, queries = self._index.predictions, self._learner.queries
        for variant in variants(
            self._query.tokens or tokenize(self._query.text),
            known=lambda key: key in predictions or key in queries,
            indexes=(self._index.keys, self._learner.keys),
            kinds=self._schema.kinds,
        ):
            self._try(variant)
        self._recall(self.board, [self._key], self._query.locale)
        self._personalise()
        self.indices = self._rows.members.copy()

    def _begin(self) -> None:
        """Take the catalogue as it is now, and give the items found so far their rows again."""
        self._allowed = self._view.filter(self._query.filters)
        self._rows.clear(self._view.size)
        self._rows.numbers(self.indices)

    def candidates(self) -> tuple[Rows, Floats]:
        """Return the rows of the allowed items that score enough, and their scores."""
        rows, scores = self.board.found(least=self._settings.min_score)
        allowed = self._allowed[self.indices[rows]]
        return rows[allowed], scores[allowed]

    def _recall(self, board: Board, keys: Sequence[str], locale: str) -> None:
        """Write what was predicted for the keys and what was seen; they count as one query."""
        self._predict(board, keys)
        for key in keys:
            self._observe(board, self._learner.queries, key, key)
            if locale:
                localized = locale_key(key, locale)
                self._observe(board, self._learner.queries, localized, f"{key} [{locale}]")

    def _predict(self, board: Board, keys: Sequence[str]) -> None:
        indices, fields, liked = self._strongest(*self._index.predictions.find(keys))
        if not indices.size:
            return
        field_of = self._index.predictions.fields
        shown = keys[0] if len(keys) == 1 else f"{keys[0]}, ..."

        def explain(row: int, place: int) -> tuple[str, str]:
            return "predicted", f"{field_of[int(fields[place])]} '{shown}'"

        board.propose(self._rows.numbers(indices), liked, explain)

    def _strongest(
        self, indices: Integers, fields: Integers, chances: Floats
    ) -> tuple[Integers, Integers, Floats]:
        """Return predictions with the chances that popularity leaves them.

        Of more than `_MOST`, those are left out that the filters exclude, and those that are worth
        less than the one in that place.
        """
        popularity = self._index.popularity[indices]
        liked: Floats = chances * (_UNPOPULAR + (1 - _UNPOPULAR) * popularity)
        if indices.size <= _MOST:
            return indices, fields, liked
        kept = np.flatnonzero(self._allowed[indices])
        if kept.size > _MOST:
            worth = liked[kept]
            kept = kept[worth >= np.partition(worth, -_MOST)[-_MOST]]
        return indices[kept], fields[kept], liked[kept]

    def _observe(self, board: Board, table: Q2E, key: str, label: str) -> None:
        found = table.recall(key, self._query.time)
        if found is None:
            return
        rows, kept = self._remembered(found)

        def explain(row: int, place: int) -> tuple[str, str]:
            at = kept[place]
            times = f"{found.engaged[at]:.0f} of {found.shown[at]:.0f} times"
            return "query", f"worked for '{label}' {times}"

        board.observe(rows, found.success[kept], found.exposure[kept], explain)

    def _remembered(self, found: Recollection) -> tuple[Rows, Integers]:
        """Return the rows of the remembered items that the catalogue has, and their places."""
        of = [self._view.index_of(item_id) for item_id in found.item_ids]
        places = [place for place, index in enumerate(of) if index is not None]
        indices = np.array([of[place] for place in places], np.int64)
        return self._rows.numbers(indices), np.array(places, np.int64)

    def _try(self, variant: Variant) -> None:
        board = self._new_board()
        self._recall(board, variant.keys, "")
        rows, scores = board.found()
        if variant.kinds:
            meant = self._view.filter((Filter("kind", variant.kinds),))[self._rows.members[rows]]
            rows, scores = rows[meant], scores[meant]
        self.board.scanned += board.scanned
        self.board.propose(rows, variant.confidence * scores, lambda row, place: board.explain(row))

    def _read(self, reading: Interpretation, agreement: Floats | None) -> None:
        """Combine the slots of a reading: whoever has most of what is named comes first.

        What fits best keeps the chance that any of its slots gives it. The others keep the share
        of it that they fit next to the best; years that are named narrow what other slots find.
        """
        slots = [slot for slot in reading.slots if slot.confidence > 0]
        boards = [self._slot(slot) for slot in slots]
        missed, fit = np.ones(len(self._rows)), np.zeros(len(self._rows))
        for slot, board in zip(slots, boards, strict=True):
            rows, scores = board.found()
            missed[rows] *= 1.0 - min(1.0, slot.confidence) * scores
            fit[rows] += slot.confidence
            self.board.scanned += board.scanned
        found = np.flatnonzero(missed < 1.0)

        def explain(row: int, place: int) -> tuple[str, str]:
            best = max(range(len(slots)), key=lambda i: (boards[i].score(row), -i))
            kind, detail = boards[best].explain(row)
            name = f"{slots[best].attribute}: {slots[best].value}"
            return "slot", detail if kind == "query" else name

        if agreement is not None:
            fit *= agreement[self._rows.members]
        confidence = _SLOT * min(1.0, max(0.0, reading.confidence))
        chances = confidence * (1.0 - missed[found]) * fit[found] / fit[found].max(initial=1e-9)
        self.board.propose(found, chances, explain)

    def _slot(self, slot: Slot) -> Board:
        board = self._new_board()
        predictions = self._index.predictions
        indices, fields, chances = predictions.find([normalize(slot.value)])
        named = self._view.index_of(slot.item_id)
        fits = fields == predictions.field_number(slot.attribute)
        if named is not None:
            fits |= indices == named
        indices, _, liked = self._strongest(indices[fits], fields[fits], chances[fits])
        board.propose(self._rows.numbers(indices), liked, lambda row, place: ("predicted", ""))
        label = f"{slot.attribute}: {slot.value}"
        self._observe(board, self._learner.slots, slot_key(slot.attribute, slot.value), label)
        return board

    def _personalise(self) -> None:
        user_id = self._query.user.user_id
        found = (
            self._learner.choices.recall(choice_key(self._key, user_id), self._query.time)
            if user_id
            else None
        )
        if found is None:
            return
        rows, kept = self._remembered(found)
        success = found.success[kept]
        share = self._settings.personal_weight * success / (1.0 + success)
        gained = self.board.lift(rows, share)
        for row, place, gain in zip(rows.tolist(), kept.tolist(), gained, strict=True):
            detail = f"chosen by this user {found.engaged[place]:.0f} times"
            self.personal[row] = Reason("personal", detail, float(gain))

    def borrow(self, vector: Vectors) -> None:
        """Add what worked for the queries nearest to the query's vector."""
        neighbours = self._learner.neighbours
        if neighbours is None:
            return
        self._begin()
        at_least = self._settings.neighbour_similarity
        for other, cosine in neighbours.nearest(vector, _NEAREST, at_least):
            found = self._learner.queries.recall(other, self._query.time)
            if found is not None and other != self._key:
                self._borrow_from(other, cosine, found)
        self.indices = self._rows.members.copy()

    def _borrow_from(self, other: str, cosine: float, found: Recollection) -> None:
        rows, kept = self._remembered(found)
        worked = found.success[kept] > 0
        rows, kept = rows[worked], kept[worked]
        blank = self._new_board()
        chances = blank.posterior(rows, found.success[kept], found.exposure[kept])
        detail = f"worked for '{other}', similarity {cosine:.2f}"
        self.board.propose(
            rows, _NEIGHBOUR * cosine * chances, lambda row, place: ("neighbour", detail)
        )

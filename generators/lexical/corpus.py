"""What is known in memory of the indexed items: their words, and how common each word is.

Engines keep deleted items in their statistics until they happen to merge their segments, so two
indexes of the same catalogue score differently. These statistics are of the living items only:
an index rebuilt from the log gives the same scores as the one it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns
from generators.lexical.analysis import Stemmer, words
from generators.lexical.layout import Document, Layout, unpack
from generators.lexical.rows import (
    COUNT_BITS,
    Rows,
    ShownValue,
    gather,
    grown,
    shown_columns,
    shown_of,
)
from generators.lexical.vocabulary import Vocabulary

_MAX_SHOWN_LETTERS = 80
_MAX_COUNT = 255
_MIN_CAPACITY = 1_024


@dataclass(frozen=True, slots=True)
class Statistics:
    """The corpus as readers see it: what one batch of changes left; later ones leave it alone."""

    layout: Layout
    vocabulary: Vocabulary
    rows: Rows
    items: int
    frequencies: npt.NDArray[np.int32]
    """By key, `token * fields + field`: how many items have the token in the field."""
    lengths: npt.NDArray[np.float64]
    """Tokens in each text field, over all items."""
    alphabetical: Sequence[str]
    """Every word ever indexed."""

    def frequency(self, token: int, field: int) -> int:
        """Return how many items have the token in the field."""
        key = token * self.layout.fields + field
        return int(self.frequencies[key]) if key < len(self.frequencies) else 0

    def text_frequency(self, text: str) -> int:
        """Return how many items have the word, summed over text fields."""
        token = self.vocabulary.number(text)
        if token is None:
            return 0
        start = token * self.layout.fields
        return int(self.frequencies[start : start + len(self.layout.texts)].sum())


class Corpus:
    """Rows and counts of all items. One thread changes it; readers use `Statistics`.

    The row of a forgotten item is given to another one only after two calls of `recycle`, which
    should be seconds apart: by then no search still looks at it.
    """

    def __init__(self, layout: Layout, stemmer: Stemmer) -> None:
        """Begin with no items."""
        self.vocabulary = Vocabulary(stemmer)
        self._layout = layout
        self._fields = layout.fields
        self._title_field = layout.title_field
        self._title = layout.texts.index(layout.title)
        self._row_of: dict[str, int] = {}
        self._free: list[int] = []
        self._resting: list[int] = []
        self._forgotten: list[int] = []
        self._next_row = 0
        self._shown: list[dict[str, ShownValue]] = [{} for _ in layout.texts]
        self._checksums = np.zeros(_MIN_CAPACITY, np.uint32)
        self._frequencies = np.zeros(_MIN_CAPACITY, np.int32)
        self._lengths = np.zeros(len(layout.texts))
        self._used = 0
        self._lost = 0
        self._rows = Rows(
            [],
            [],
            np.zeros(0),
            np.zeros(0),
            np.zeros((0, len(layout.texts))),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        ).grown(_MIN_CAPACITY, _MIN_CAPACITY)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._row_of)

    def take_row(self) -> int:
        """Return a row for a new item."""
        if self._free:
            return self._free.pop()
        self._next_row += 1
        return self._next_row - 1

    def remove(self, item_id: str) -> None:
        """Forget an item; unknown ids are ignored."""
        row = self._row_of.pop(item_id, None)
        if row is not None:
            self._forgotten.append(row)
            self._lost += int(self._rows.sizes[row])
            self._count(row, -1)

    def add(self, document: Document) -> None:
        """Take in an item, in place of what was known under its id."""
        self.remove(document.item_id)
        shown = tuple(
            self._value(field, text)
            for field, name in enumerate(self._layout.texts)
            for text in document.texts.get(name, ())
        )
        postings = self._postings(document, shown)
        row, end = document.row, self._used + len(postings)
        if row >= len(self._rows.item_ids) or end > len(self._rows.postings):
            self._rows = self._rows.grown(_capacity(row + 1), _capacity(end))
        rows = self._rows
        rows.item_ids[row] = document.item_id
        rows.shown[row] = shown
        rows.popularity[row] = document.popularity
        rows.ties[row] = document.tie
        rows.lengths[row] = 0
        for value in shown:
            rows.lengths[row, value.field] += len(value.keys)
        rows.postings[self._used : end] = postings
        rows.starts[row], rows.sizes[row] = self._used, len(postings)
        self._checksums = grown(self._checksums, len(rows.item_ids))
        self._checksums[row] = crc32(document.packed)
        self._used = end
        self._row_of[document.item_id] = row
        self._next_row = max(self._next_row, row + 1)
        self._count(row, 1)

    def dump(self) -> Columns:
        """Return everything as columns."""
        rows, size = self._rows, self._next_row
        living = np.fromiter(self._row_of.values(), np.int64, len(self._row_of))
        shown = [rows.shown[row] for row in living.tolist()]
        columns = Columns(
            {"item_ids": list(self._row_of)},
            {
                "living": living,
                "popularity": rows.popularity[:size],
                "ties": rows.ties[:size],
                "row_lengths": rows.lengths[:size],
                "postings": rows.postings[: self._used],
                "starts": rows.starts[:size],
                "sizes": rows.sizes[:size],
                "checksums": self._checksums[:size],
                "frequencies": self._frequencies,
                "lengths": self._lengths,
                "lost": np.array(self._lost),
            },
        )
        kept = [value for values in self._shown for value in values.values()]
        columns.put("shown", shown_columns(shown, kept))
        columns.put("vocabulary", self.vocabulary.dump())
        return columns

    def load(self, columns: Columns) -> None:
        """Take over what `dump` returned, for a corpus of the same layout that is still empty."""
        arrays = columns.arrays
        living, item_ids = arrays["living"].tolist(), columns.names["item_ids"]
        shown, kept = shown_of(columns.part("shown"))
        self.vocabulary.load(columns.part("vocabulary"))
        self._row_of = dict(zip(item_ids, living, strict=True))
        self._next_row, self._used = len(arrays["starts"]), len(arrays["postings"])
        self._rows = Rows(
            [],
            [],
            arrays["popularity"],
            arrays["ties"],
            arrays["row_lengths"],
            arrays["postings"],
            arrays["starts"],
            arrays["sizes"],
        ).grown(_capacity(self._next_row), _capacity(self._used))
        for row, item_id, values in zip(living, item_ids, shown, strict=True):
            self._rows.item_ids[row], self._rows.shown[row] = item_id, values
        for value in kept:
            self._shown[value.field][value.text] = value
        self._checksums = grown(arrays["checksums"], len(self._rows.item_ids))
        self._frequencies, self._lengths = arrays["frequencies"].copy(), arrays["lengths"].copy()
        self._lost = int(arrays["lost"])

    def reconcile(self, stored: Iterable[tuple[int, bytes]]) -> int:
        """Make the corpus hold the stored documents, given as (row, packed), and no others.

        Returns how many of them it did not hold yet. For a corpus that nobody reads yet.
        """
        known = np.zeros(len(self._rows.item_ids), np.bool_)
        known[list(self._row_of.values())] = True
        kept: set[int] = set()
        new: list[tuple[int, bytes]] = []
        for row, packed in stored:
            if row < len(known) and known[row] and self._checksums[row] == crc32(packed):
                kept.add(row)
            else:
                new.append((row, packed))
        for item_id in [i for i, row in self._row_of.items() if row not in kept]:
            self.remove(item_id)
        for row, packed in new:
            self.add(unpack(packed, row))
        self._reclaim()
        return len(new)

    def _reclaim(self) -> None:
        """Make every row that no item has available."""
        self._resting, self._forgotten = [], []
        taken = set(self._row_of.values())
        self._free = [row for row in range(self._next_row) if row not in taken]

    def recycle(self) -> None:
        """Make rows forgotten before the last call available, and close large gaps."""
        self._free += self._resting
        self._resting, self._forgotten = self._forgotten, []
        if self._lost > _MIN_CAPACITY and 2 * self._lost > self._used:
            self._close_gaps()

    def statistics(self) -> Statistics:
        """Return the state as it is now."""
        return Statistics(
            self._layout,
            self.vocabulary,
            self._rows,
            len(self._row_of),
            self._frequencies[: len(self.vocabulary.terms) * self._fields].copy(),
            self._lengths.copy(),
            self.vocabulary.alphabetical(),
        )

    def _postings(self, document: Document, shown: Sequence[ShownValue]) -> npt.NDArray[np.uint64]:
        counts: dict[int, int] = {}
        for value in shown:
            for key in value.keys:
                counts[key] = min(_MAX_COUNT, counts.get(key, 0) + 1)
        add = self.vocabulary.add
        for field, name in enumerate(self._layout.values, start=len(self._layout.texts)):
            for term, weight in document.values.get(name, {}).items():
                key = add(term) * self._fields + field
                counts[key] = max(1, round(weight * _MAX_COUNT))
        for term in document.titles:
            counts[add(term) * self._fields + self._title_field] = _MAX_COUNT
        keys = np.fromiter(counts, np.uint64, len(counts))
        return keys << COUNT_BITS | np.fromiter(counts.values(), np.uint64, len(counts))

    def _value(self, field: int, text: str) -> ShownValue:
        # Names repeat: the same person is in the cast of many films.
        found = self._shown[field].get(text)
        if found is None:
            add = self.vocabulary.add_word
            keys = tuple(add(word) * self._fields + field for word in words(text))
            shown = text if len(text) <= _MAX_SHOWN_LETTERS else f"{text[:_MAX_SHOWN_LETTERS]}…"
            found = ShownValue(field, shown, keys)
            if field != self._title and shown is text:
                self._shown[field][text] = found
        return found

    def _count(self, row: int, change: int) -> None:
        needed = len(self.vocabulary.terms) * self._fields
        if needed > len(self._frequencies):
            self._frequencies = grown(self._frequencies, _capacity(needed))
        start = self._rows.starts[row]
        postings = self._rows.postings[start : start + self._rows.sizes[row]]
        self._frequencies[postings >> COUNT_BITS] += change
        self._lengths += change * self._rows.lengths[row]

    def _close_gaps(self) -> None:
        """Copy the postings of the living to new arrays; readers keep the old ones."""
        old = self._rows
        living = np.array(sorted(self._row_of.values()), np.int64)
        postings, _ = gather(old, living)
        starts, sizes = np.zeros_like(old.starts), np.zeros_like(old.sizes)
        sizes[living] = old.sizes[living]
        starts[living] = np.cumsum(sizes[living]) - sizes[living]
        self._used, self._lost = len(postings), 0
        self._rows = Rows(
            old.item_ids,
            old.shown,
            old.popularity,
            old.ties,
            old.lengths,
            grown(postings, _capacity(len(postings))),
            starts,
            sizes,
        )


def _capacity(needed: int) -> int:
    return max(_MIN_CAPACITY, needed + needed // 4)

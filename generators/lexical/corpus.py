"""What is known in memory of the indexed items: their words, and how common each word is.

Engines keep deleted items in their statistics until they happen to merge their segments, so two
indexes of the same catalogue score differently. These statistics are of the living items only:
an index rebuilt from the log gives the same scores as the one it replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from generators.lexical.analysis import Stemmer, words
from generators.lexical.layout import Document, Layout
from generators.lexical.vocabulary import Vocabulary

_MAX_SHOWN_LETTERS = 80
_MAX_COUNT = 255
COUNT_BITS = np.uint64(8)
_MIN_CAPACITY = 1_024
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value of a text field, as a reason shows it."""

    field: int
    text: str
    keys: tuple[int, ...]
    """Of its tokens: `token * fields + field`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything about the items, by row.

    A *posting* says that an item has a token in a field: `(token * fields + field) << 8 | count`,
    with the count of a text token, or the weight of a value in 255ths.
    """

    item_ids: list[str]
    shown: list[tuple[ShownValue, ...]]
    popularity: npt.NDArray[np.float64]
    ties: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.float64]
    """Tokens in each text field; rows × text fields."""
    postings: npt.NDArray[np.uint64]
    """Of all rows, one row after the other."""
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    """Where a row's postings start, and how many there are."""

    def grown(self, rows: int, postings: int) -> Rows:
        """Return the same with room for more; arrays that are large enough are shared."""
        return Rows(
            self.item_ids + [""] * (rows - len(self.item_ids)),
            self.shown + [()] * (rows - len(self.shown)),
            _grown(self.popularity, rows),
            _grown(self.ties, rows),
            _grown(self.lengths, rows),
            _grown(self.postings, postings),
            _grown(self.starts, rows),
            _grown(self.sizes, rows),
        )


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
        self._used = end
        self._row_of[document.item_id] = row
        self._next_row = max(self._next_row, row + 1)
        self._count(row, 1)

    def reclaim(self) -> None:
        """Make every row that no item has available; for a corpus that nobody reads yet."""
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
            self._frequencies = _grown(self._frequencies, _capacity(needed))
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
            _grown(postings, _capacity(len(postings))),
            starts,
            sizes,
        )


def gather(
    rows: Rows, chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Return the postings of chosen rows, one row after the other, and where each row ends."""
    sizes = rows.sizes[chosen]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    places = np.repeat(rows.starts[chosen] - (ends - sizes), sizes) + np.arange(total)
    return rows.postings[places], ends


def _capacity(needed: int) -> int:
    return max(_MIN_CAPACITY, needed + needed // 4)


def _grown(values: npt.NDArray[_Scalar], length: int) -> npt.NDArray[_Scalar]:
    if length <= len(values):
        return values
    more = np.zeros((length - len(values), *values.shape[1:]), values.dtype)
    return np.concatenate([values, more])

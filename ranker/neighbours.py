"""What the other candidates say of an item.

Items that are alike tend to be relevant to the same queries (the cluster hypothesis: Jardine & van
Rijsbergen, 1971), so the scores of those like an item are evidence for it (score regularization:
Diaz, 2007). Likeness needs no index: it is computed from the cards of one search's candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranker.catalog import Card, ItemCards, JoinedPostings
from ranker.matching import Column, length_norm


class Neighbours:
    """The candidates of one search, and how alike they are.

    The likeness of two is the cosine of the stems in their text fields, each stem by its BM25
    weight; it is 0 between items that share none. No matrix of pairs is made: a sum over all others
    takes time in proportion to the stems of the candidates.
    """

    def __init__(
        self,
        items: int,
        row: NDArray[np.int64],
        stem: NDArray[np.int64],
        weight: Column,
    ) -> None:
        """Compare `items` candidates.

        The other arguments are aligned: each weighs one stem of one candidate. The squared weights
        of a candidate sum to 1; one without stems is unlike all others.
        """
        self._items = items
        self._row, self._stem, self._weight = row, stem, weight
        self._known = np.bincount(row, minlength=items) > 0
        self._likeness = self.sum(np.ones(items))

    @classmethod
    def of(
        cls, cards: ItemCards, found: Sequence[Card | None], postings: JoinedPostings
    ) -> Neighbours:
        """Compare the found cards, of which these are the postings."""
        items = postings.items
        at = np.flatnonzero((postings.count > 0) & cards.texts[postings.field])
        # By stem, then by item: equal stems stand together.
        keys = postings.stem[at].astype(np.int64) * max(items, 1) + postings.row[at]
        cells, places = np.unique(keys, return_inverse=True)
        stems, row = np.divmod(cells, max(items, 1))
        often = np.bincount(places, postings.count[at], len(cells))
        weight = often / (often + length_norm(found, cards.mean_length)[row]) * cards.idf(stems)
        norm = np.sqrt(np.bincount(row, weight**2, items))
        return cls(
            items, row, np.cumsum(np.diff(stems, prepend=stems[:1]) != 0), weight / norm[row]
        )

    def among(self, places: NDArray[np.int64]) -> Neighbours:
        """Return the same for some of the candidates, in the order of their places here."""
        renumbered = np.full(self._items, -1)
        renumbered[places] = np.arange(len(places))
        row = renumbered[self._row]
        kept = row >= 0
        return Neighbours(len(places), row[kept], self._stem[kept], self._weight[kept])

    def sum(self, values: Column) -> Column:
        """Return, for each item, the sum of the others' values, each by its likeness."""
        of_stem = np.bincount(self._stem, self._weight * values[self._row])
        total = np.bincount(self._row, self._weight * of_stem[self._stem], self._items)
        rest: Column = total - self._known * values
        # Nothing is left but rounding where an item is like no other.
        return np.where(np.abs(rest) > 1e-9, rest, 0.0)

    def mean(self, values: Column) -> Column:
        """Return, for each item, the mean of the others' values, weighted by likeness.

        Missing for an item that is like no other.
        """
        alike = self._likeness > 0
        return np.where(alike, self.sum(values) / np.where(alike, self._likeness, 1.0), np.nan)

    def density(self) -> Column:
        """Return the mean likeness of each item to the others."""
        return self._likeness / max(self._items - 1, 1)

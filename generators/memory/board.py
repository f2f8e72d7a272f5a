"""The score board of one retrieval: a score for each item that anything speaks for, and why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from generators.catalog_projection import grown
from generators.evidence import Floats

Rows = npt.NDArray[np.int64]
Explain = Callable[[int, int], tuple[str, str]]
"""From an item's row, and the place where its source has it, to a reason's kind and detail."""


class Board:
    """Chances in [0, 1] by row, 0 where nothing speaks for the item.

    Rows number the items that one retrieval touches, so a board is as long as what was found, not
    as the catalogue. Weak sources write first. What they say is the prior of what was really
    seen, so evidence displaces predictions the more of it there is, and an item that was shown
    and refused cannot come back through a weaker source.
    """

    def __init__(self, *, strength: float, base_rate: float) -> None:
        self.scanned = 0
        self._strength = strength
        self._base_rate = base_rate
        self._scores: Floats = np.zeros(0)
        self._source = np.zeros(0, np.int32)
        self._place = np.zeros(0, np.int32)
        self._observed = np.zeros(0, np.bool_)
        self._explain: list[Explain] = []

    def found(self, *, least: float = 0.0) -> tuple[Rows, Floats]:
        """Return the rows with a score above 0 and of at least `least`, and their scores."""
        rows = np.flatnonzero((self._scores > 0) & (self._scores >= least))
        return rows, self._scores[rows]

    def score(self, row: int) -> float:
        """Return the score of a row."""
        return float(self._scores[row]) if row < len(self._scores) else 0.0

    def propose(self, rows: Rows, chances: Floats, explain: Explain) -> None:
        """Raise items to `chances` where that is more, unless they were really seen.

        A row may be repeated. `explain` gets its place in `rows`.
        """
        self.scanned += rows.size
        self._fit(rows)
        better = (chances > self._scores[rows]) & ~self._observed[rows]
        np.maximum.at(self._scores, rows[better], chances[better])
        best = np.flatnonzero(better & (chances == self._scores[rows]))
        self._write(rows[best], best, explain)

    def observe(self, rows: Rows, success: Floats, exposure: Floats, explain: Explain) -> None:
        """Update items by what was seen of them; the scores so far are the priors."""
        self.scanned += rows.size
        self._scores[rows] = self.posterior(rows, success, exposure)
        self._observed[rows] = True
        self._write(rows, np.arange(rows.size), explain)

    def posterior(self, rows: Rows, success: Floats, exposure: Floats) -> Floats:
        """Return the mean of Beta(m p + S, m (1 - p) + N - S), p being the score so far.

        S may exceed N where a user looked far down the page; then N is taken to be S.
        """
        self._fit(rows)
        prior = self._scores[rows]
        prior = np.where(prior > 0, prior, self._base_rate)
        trials = np.maximum(success, exposure)
        mean: Floats = (self._strength * prior + success) / (self._strength + trials)
        return mean

    def lift(self, rows: Rows, share: Floats) -> Floats:
        """Move items by `share` of their distance to 1; return by how much they rose."""
        self._fit(rows)
        prior = self._scores[rows]
        self._scores[rows] = prior + share * (1.0 - prior)
        gained: Floats = self._scores[rows] - prior
        return gained

    def explained(self, row: int) -> bool:
        """Return whether any source wrote to the row."""
        return row < len(self._source) and bool(self._source[row])

    def explain(self, row: int) -> tuple[str, str]:
        """Return kind and detail of the strongest reason for a row that has one."""
        return self._explain[int(self._source[row]) - 1](row, int(self._place[row]))

    def _write(self, rows: Rows, places: Rows, explain: Explain) -> None:
        self._explain.append(explain)
        self._source[rows] = len(self._explain)
        self._place[rows] = places

    def _fit(self, rows: Rows) -> None:
        """Make room for the rows."""
        size = int(rows.max(initial=-1)) + 1
        self._scores, self._source = grown(self._scores, size), grown(self._source, size)
        self._place, self._observed = grown(self._place, size), grown(self._observed, size)

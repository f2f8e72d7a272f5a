"""The score board of one retrieval: a score per item of the catalogue, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from generators.evidence import Floats

Indices = npt.NDArray[np.int64]
Explain = Callable[[int, int], tuple[str, str]]
"""From an item's index, and the place where its source has it, to a reason's kind and detail."""


class Board:
    """Chances in [0, 1] by item index, 0 where nothing speaks for the item.

    Weak sources write first. What they say is the prior of what was really seen, so evidence
    displaces predictions the more of it there is, and an item that was shown and refused cannot
    come back through a weaker source.
    """

    def __init__(self, size: int, *, strength: float, base_rate: float) -> None:
        self.scores: Floats = np.zeros(size)
        self.scanned = 0
        self._strength = strength
        self._base_rate = base_rate
        self._source = np.zeros(size, np.int32)
        self._place = np.zeros(size, np.int32)
        self._observed = np.zeros(size, np.bool_)
        self._explain: list[Explain] = []

    def propose(self, indices: Indices, chances: Floats, explain: Explain) -> None:
        """Raise items to `chances` where that is more, unless they were really seen.

        An item may be repeated. `explain` gets its place in `indices`.
        """
        self.scanned += indices.size
        better = (chances > self.scores[indices]) & ~self._observed[indices]
        np.maximum.at(self.scores, indices[better], chances[better])
        best = np.flatnonzero(better & (chances == self.scores[indices]))
        self._write(indices[best], best, explain)

    def observe(
        self, indices: Indices, success: Floats, exposure: Floats, explain: Explain
    ) -> None:
        """Update items by what was seen of them; the scores so far are the priors."""
        self.scanned += indices.size
        self.scores[indices] = self.posterior(indices, success, exposure)
        self._observed[indices] = True
        self._write(indices, np.arange(indices.size), explain)

    def posterior(self, indices: Indices, success: Floats, exposure: Floats) -> Floats:
        """Return the mean of Beta(m p + S, m (1 - p) + N - S), p being the score so far.

        S may exceed N where a user looked far down the page; then N is taken to be S.
        """
        prior = self.scores[indices]
        prior = np.where(prior > 0, prior, self._base_rate)
        trials = np.maximum(success, exposure)
        mean: Floats = (self._strength * prior + success) / (self._strength + trials)
        return mean

    def lift(self, indices: Indices, share: Floats) -> Floats:
        """Move items by `share` of their distance to 1; return by how much they rose."""
        prior = self.scores[indices]
        self.scores[indices] = prior + share * (1.0 - prior)
        gained: Floats = self.scores[indices] - prior
        return gained

    def _write(self, indices: Indices, places: Indices, explain: Explain) -> None:
        self._explain.append(explain)
        self._source[indices] = len(self._explain)
        self._place[indices] = places

    def explained(self, index: int) -> bool:
        """Return whether any source wrote to the item."""
        return bool(self._source[index])

    def explain(self, index: int) -> tuple[str, str]:
        """Return kind and detail of the strongest reason for the item."""
        explain = self._explain[int(self._source[index]) - 1]
        return explain(index, int(self._place[index]))

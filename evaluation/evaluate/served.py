"""What topics got from their plans, and what that took, over the splits of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import NAMES

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """What topics got from their plans, and what that took."""

    query_ids: tuple[str, ...]
    metrics: Mapping[str, Floats]
    spent: Floats
    """Candidates, milliseconds and share of the cost by topic."""

    def mixed(self, other: Served, share: float) -> Served:
        """Return what is expected when the other plans are used with some probability."""
        metrics = {m: (1 - share) * v + share * other.metrics[m] for m, v in self.metrics.items()}
        return Served(self.query_ids, metrics, (1 - share) * self.spent + share * other.spent)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What plans reached on one split, by contender."""

    served: Mapping[str, Served]
    mix: str
    fell_back: bool


class Planned:
    """What plans reached on all splits of one seed."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """Take in one split."""
        self._outcomes.append(outcome)

    @property
    def mix(self) -> str:
        """The static mix that the first split chose."""
        return self._outcomes[0].mix

    @property
    def fallbacks(self) -> float:
        """In how many of the splits the mix stood in for the learned plan."""
        return sum(o.fell_back for o in self._outcomes) / len(self._outcomes)

    def metrics(self, contender: str, tested: Sequence[str]) -> Mapping[str, Floats]:
        """Return a contender's metrics, in the order of the topics."""
        found = [o.served[contender] for o in self._outcomes]
        place = {q: row for row, q in enumerate(q for one in found for q in one.query_ids)}
        rows = [place[q] for q in tested]
        return {m: np.concatenate([one.metrics[m] for one in found])[rows] for m in NAMES}

    def spent(self, contender: str) -> tuple[float, float, float] | None:
        """Return what a contender took on average; None if it is none of the plans."""
        found = [o.served[contender].spent for o in self._outcomes if contender in o.served]
        if not found:
            return None
        candidates, milliseconds, cost = np.concatenate(found).mean(axis=0).tolist()
        return candidates, milliseconds, cost

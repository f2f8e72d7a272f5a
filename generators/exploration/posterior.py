"""What is known of each item's appeal: decayed counts, and Thompson draws from Beta posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forage.log.interactions import Engagement, Impression
from generators.catalog_projection import grown
from generators.engagement_projection import Arrays, Gain, Names
from generators.evidence import Floats, decay

Rows = npt.NDArray[np.int64]
_SUCCESS, _EXPOSURE, _TIME, _SHOWN = range(4)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Beta posteriors of some items' chances that a user who looks at them wants them."""

    alpha: Floats
    beta: Floats

    @classmethod
    def of(cls, prior: Floats, *, strength: float, success: Floats, exposure: Floats) -> Posterior:
        """Return Beta(m p + S, m (1 - p) + max(0, N - S)) for prior means p worth m looks."""
        missed = np.maximum(0.0, exposure - success)
        return cls(strength * prior + success, strength * (1.0 - prior) + missed)

    @property
    def mean(self) -> Floats:
        """The expected chances."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def deviation(self) -> Floats:
        """The standard deviations."""
        total = self.alpha + self.beta
        deviation: Floats = np.sqrt(self.alpha * self.beta / (total + 1.0)) / total
        return deviation

    def draw(self, rng: np.random.Generator, *, optimistic: bool) -> Floats:
        """Return one plausible chance per item.

        Optimistic draws are never below the mean: doubt then only speaks for an item (May,
        Korda, Lee & Leslie, 2012, "Optimistic Bayesian sampling in contextual-bandit problems").
        """
        drawn = rng.beta(self.alpha, self.beta)
        return np.maximum(drawn, self.mean) if optimistic else drawn


class ItemLearner:
    """Counts per item, over all queries: looks, successes, and how often it was shown."""

    def __init__(self, *, half_life_s: float, added: Callable[[str, int], None]) -> None:
        """`added` is told the id and the row of every item that is counted for the first time."""
        self._half_life_s = half_life_s
        self._added = added
        self._rows: dict[str, int] = {}
        self._counts: Floats = np.zeros((0, 4))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, item_id: str) -> int:
        """Return the row of the item's counts; -1 if it was never shown."""
        return self._rows.get(item_id, -1)

    def counts(self, rows: Rows, time: float) -> tuple[Floats, Floats, Floats]:
        """Return success, exposure (both decayed to `time`) and times shown; zeros for row -1."""
        if not len(self._counts):
            nothing = np.zeros(rows.size)
            return nothing, nothing, nothing
        found = np.where((rows >= 0)[:, None], self._counts[rows], 0.0)
        kept = np.exp2(-np.maximum(0.0, time - found[:, _TIME]) / self._half_life_s)
        return found[:, _SUCCESS] * kept, found[:, _EXPOSURE] * kept, found[:, _SHOWN]

    def prepare(self, events: Sequence[Impression | Engagement]) -> None:
        """There is nothing slow to prepare."""

    def expose(self, shown: Impression, examined: Mapping[str, float]) -> None:
        """Count looks."""
        for item_id, probability in examined.items():
            self._add(item_id, shown.time, exposure=probability, shown=1)

    def engage(self, engagement: Engagement, gain: Gain, prepared: None) -> None:
        """Count what the event adds: success, or for a refusal looks that came to nothing."""
        self._add(engagement.item_id, engagement.time, success=gain.success, exposure=gain.penalty)

    def _add(
        self,
        item_id: str,
        time: float,
        *,
        success: float = 0.0,
        exposure: float = 0.0,
        shown: int = 0,
    ) -> None:
        row = self._rows.get(item_id)
        if row is None:
            row = self._rows[item_id] = len(self._rows)
            self._counts = grown(self._counts, row + 1)
            self._counts[row] = (0.0, 0.0, time, 0.0)
            self._added(item_id, row)
        had_success, had_exposure, last, had_shown = self._counts[row].tolist()
        now = max(last, time)
        old, new = decay(now - last, self._half_life_s), decay(now - time, self._half_life_s)
        self._counts[row] = (
            had_success * old + success * new,
            had_exposure * old + exposure * new,
            now,
            had_shown + shown,
        )

    def dump(self) -> tuple[Names, Arrays]:
        """Return the counts, rows in the order of the ids."""
        return {"items": list(self._rows)}, {"counts": self._counts[: len(self._rows)]}

    def load(self, names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the counts by what `dump` returned."""
        self._rows = {item_id: row for row, item_id in enumerate(names["items"])}
        self._counts = arrays["counts"]
        for item_id, row in self._rows.items():
            self._added(item_id, row)

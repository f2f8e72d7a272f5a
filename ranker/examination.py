"""How likely a user looks at a position: the propensity of feedback under position bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forage.log import EventLog, Topic
from forage.log.interactions import Impression, InteractionReader
from forage.settings import FeedbackSettings

_BATCH = 1_000
_MIN_POSITIONS = 3
_GRID = np.linspace(0.0, 3.0, 301)


@dataclass(frozen=True, slots=True)
class Examination:
    """The position-based model with P(looked at k) = k^-decay."""

    decay: float
    source: str
    """Where the decay came from, for lineage and report."""

    def weights(self, positions: NDArray[np.int64], *, largest: float) -> NDArray[np.float64]:
        """Return 1 / P(looked at) for positions from 1, clipped at `largest`."""
        weights: NDArray[np.float64] = np.minimum(np.power(positions, self.decay), largest)
        return weights


def configured(settings: FeedbackSettings) -> Examination:
    """Return the configured model."""
    return Examination(settings.examination_decay, "configured")


def estimate(log: EventLog, settings: FeedbackSettings, *, min_clicks: int) -> Examination:
    """Estimate the decay from exploration slots, whose items were put there by chance.

    There relevance does not depend on position, so rates differ by examination alone. Falls back
    to the configured decay, and says so, when fewer than `min_clicks` engagements or three
    positions are known.
    """
    shown, clicked = _count(log, settings)
    clicks = sum(clicked.values())
    if clicks < min_clicks or len(shown) < _MIN_POSITIONS:
        return Examination(
            settings.examination_decay,
            f"configured: exploration slots have {clicks} engagements on {len(shown)} positions,"
            f" an estimate needs {min_clicks} on {_MIN_POSITIONS}",
        )
    decay = most_likely_decay(shown, clicked)
    return Examination(decay, f"estimated from {clicks} engagements with exploration slots")


def most_likely_decay(shown: Mapping[int, int], clicked: Mapping[int, int]) -> float:
    """Return the decay in [0, 3] under which the clicks by position are the most likely.

    Clicks at k are Poisson with mean shown_k · rate · k^-decay; the rate has a closed form.
    """
    positions = np.array(sorted(shown), float)
    impressions = np.array([shown[int(k)] for k in positions], float)
    clicks = np.array([clicked.get(int(k), 0) for k in positions], float)
    likelihood = [
        -decay * float(clicks @ np.log(positions))
        - clicks.sum() * np.log(float(impressions @ positions**-decay))
        for decay in _GRID
    ]
    return float(_GRID[int(np.argmax(likelihood))])


def _count(log: EventLog, settings: FeedbackSettings) -> tuple[Counter[int], Counter[int]]:
    reader = InteractionReader(log, settings)
    shown: Counter[int] = Counter()
    clicked: Counter[int] = Counter()
    counted: set[tuple[str, str]] = set()
    after = 0
    while records := log.read(Topic.INTERACTIONS, after, _BATCH):
        after = records[-1].sequence
        for interaction in reader.read(records):
            slots = {
                d.item_id: d.position
                for d in interaction.decision.displayed
                if d.exploration_propensity > 0
            }
            if isinstance(interaction, Impression):
                shown.update(slots.values())
                continue
            pair = (interaction.decision.request_id, interaction.item_id)
            if interaction.reward > 0 and interaction.item_id in slots and pair not in counted:
                counted.add(pair)
                clicked[slots[interaction.item_id]] += 1
    return shown, clicked

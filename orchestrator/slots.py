"""Reserved exploration slots: places where items are shown that the ranker would not show yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.fusion import Candidate
from orchestrator.settings import ExplorationSlots

EXPLORATION = "exploration"
"""The generator whose candidates fill the slots."""


@dataclass(slots=True)
class Placed:
    """A candidate in display order."""

    candidate: Candidate
    score: float
    exploration_propensity: float = 0.0
    """With which probability a slot showed it; 0 if the ranker placed it."""


def reserve(
    ranked: Sequence[Placed],
    settings: ExplorationSlots,
    *,
    page_size: int,
    allowed: int,
    rng: np.random.Generator,
) -> list[Placed]:
    """Return the list with some first-page positions given to exploration candidates.

    For each position, with the set probability, one of the best `pool` exploration candidates
    that the ranker left below the page is drawn uniformly and moved up; the rest keep their order.
    Its propensity is probability / pool size. At most `allowed` are moved. The same number of
    random draws is made whatever happens, so that a decision replays.
    """
    result = list(ranked)
    draws = rng.random((len(settings.positions), 2))
    moved = 0
    for position, (chance, pick) in zip(settings.positions, draws, strict=True):
        pool = _pool(result[page_size:], settings.pool)
        taken = chance < settings.probability and moved < allowed
        if not taken or not pool or position > min(page_size, len(result)):
            continue
        chosen = pool[int(pick * len(pool))]
        result.remove(chosen)
        chosen.exploration_propensity = settings.probability / len(pool)
        result.insert(position - 1, chosen)
        moved += 1
    return result


def _pool(below: Sequence[Placed], size: int) -> list[Placed]:
    ranks = []
    for placed in below:
        for provenance in placed.candidate.provenance:
            if provenance.generator == EXPLORATION:
                ranks.append((provenance.rank, placed))
    ranks.sort(key=lambda pair: (pair[0], pair[1].candidate.item_id))
    return [placed for _, placed in ranks[:size]]

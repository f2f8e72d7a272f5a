"""Reserved exploration slots: places where items are shown that the ranker would not show yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from orchestrator.bandit import derive_rng
from orchestrator.bandit.arrays import FloatArray
from orchestrator.fusion import Candidate
from orchestrator.settings import ExplorationSlots

EXPLORATION = "exploration"
"""The generator whose candidates fill the slots."""
SLOTS = "slots"
"""The name of the random stream that gives slots away; see `derive_rng`."""


@dataclass(slots=True)
class Placed:
    """A candidate in display order."""

    candidate: Candidate
    score: float
    exploration_propensity: float = 0.0
    """With which probability a slot showed it; 0 if the ranker placed it."""


def given_away(settings: ExplorationSlots, request_id: str, seed: int) -> bool:
    """Return whether `reserve` will want an item for a search, before anything is found for it."""
    draws = derive_rng(seed, request_id, SLOTS).random((len(settings.positions), 2))
    return bool((draws[:, 0] < settings.probability).any())


class _Proposal(NamedTuple):
    rank: int
    item_id: str
    score: float
    placed: Placed


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
    that the ranker left below the page is drawn and moved up; the rest keep their order. The
    generator's scores say how much a look at each is worth, and chances are in proportion to them:
    the propensity is probability x score / sum of the pool's scores. At most `allowed` are moved.
    The same number of random draws is made whatever happens, so that a decision replays.
    """
    result = list(ranked)
    draws = rng.random((len(settings.positions), 2))
    moved = 0
    for position, (chance, pick) in zip(settings.positions, draws, strict=True):
        pool = _pool(result[page_size:], settings.pool)
        taken = chance < settings.probability and moved < allowed
        if not taken or not pool or position > min(page_size, len(result)):
            continue
        chances = _chances(pool)
        number = min(int(np.searchsorted(np.cumsum(chances), pick, side="right")), len(pool) - 1)
        chosen = pool[number].placed
        result.remove(chosen)
        chosen.exploration_propensity = settings.probability * float(chances[number])
        result.insert(position - 1, chosen)
        moved += 1
    return result


def _pool(below: Sequence[Placed], size: int) -> list[_Proposal]:
    proposals = [
        _Proposal(proposal.rank, placed.candidate.item_id, proposal.score, placed)
        for placed in below
        for proposal in placed.candidate.provenance
        if proposal.generator == EXPLORATION
    ]
    proposals.sort(key=itemgetter(0, 1))
    return proposals[:size]


def _chances(pool: Sequence[_Proposal]) -> FloatArray:
    """Return each proposal's share of the scores; equal shares if none has any."""
    worth = np.array([max(0.0, proposal.score) for proposal in pool])
    total = float(worth.sum())
    if not (0.0 < total < math.inf):
        return np.full(len(pool), 1.0 / len(pool))
    shares: FloatArray = worth / total
    return shares

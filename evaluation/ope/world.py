"""A small world in which the value of every policy is known exactly, to measure estimators in.

Four kinds of queries, four generators. Each generator holds the wanted item in its list with a
known chance per kind and rank bucket, independently of the others; if a called one holds it, the
user engages with a known chance, at a position drawn from a known distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.bandit import BIAS, Action, Distribution, Engagement, Levels, PlanContext
from orchestrator.bandit.arrays import IntArray

GENERATORS = ("lexical", "semantic", "graph", "memory")
KINDS = ("title", "theme", "person", "repeat")
KIND_SHARES = np.array([0.4, 0.25, 0.2, 0.15])
LEVELS = Levels((0, 10, 25, 50))
FEATURES = (BIAS, *KINDS)
_COST = np.array([[0, 3, 3, 3], [0, 13, 13, 14], [0, 5, 5, 6], [0, 3, 3, 3]], dtype=np.int64)
EVERYTHING = int(_COST[:, -1].sum())
_WITHIN_LARGEST = np.array(
    # title, theme, person, repeat
    [
        [0.90, 0.35, 0.45, 0.50],
        [0.55, 0.80, 0.25, 0.40],
        [0.20, 0.40, 0.85, 0.30],
        [0.30, 0.10, 0.20, 0.90],
    ]
)
_BUCKET_SHARES = np.array([0.7, 0.2, 0.1])
_ENGAGED = 0.85
_POSITIONS = np.array([1, 2, 3, 5])
_POSITION_SHARES = np.array([0.6, 0.2, 0.12, 0.08])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one search would show, were every generator asked for everything."""

    ranks: IntArray
    """Rank of the wanted item in each list, [G]; 0: not there."""
    worth: float
    """The reward if the item is found, in [0, 1]; 0 if the user would not engage."""

    def reward(self, action: Action) -> float:
        """Return what a plan earns."""
        fan_outs = np.array([LEVELS.fan_outs[level] for level in action])
        return self.worth if ((self.ranks > 0) & (self.ranks <= fan_outs)).any() else 0.0

    def engagements(self, action: Action) -> list[Engagement]:
        """Return the engagement as a plan's record would hold it."""
        if not self.reward(action):
            return []
        found = {
            name: int(rank)
            for name, rank, level in zip(GENERATORS, self.ranks, action, strict=True)
            if 0 < rank <= LEVELS.fan_outs[level]
        }
        return [Engagement(self.worth, found)]


class World:
    """Draws searches, and knows what any policy earns in the mean."""

    def __init__(self) -> None:
        within = _WITHIN_LARGEST[:, :, None] * np.cumsum(_BUCKET_SHARES)
        self._within = np.concatenate([np.zeros((*_WITHIN_LARGEST.shape, 1)), within], axis=2)
        self._mean_worth = _ENGAGED * float((_POSITION_SHARES / np.log2(_POSITIONS + 1)).sum())

    def context(self, kind: int, budget: int) -> PlanContext:
        """Return the context of a kind of query."""
        phi = np.zeros((len(GENERATORS), len(FEATURES)))
        phi[:, 0] = 1.0
        phi[:, 1 + kind] = 1.0
        feasible = np.ones(_COST.shape, dtype=np.bool_)
        return PlanContext(GENERATORS, FEATURES, phi, LEVELS, feasible, _COST, budget)

    def draw(self, kinds: IntArray, rng: np.random.Generator) -> list[Outcome]:
        """Draw, for each search, where the wanted item is and what finding it would be worth."""
        held = rng.random((len(kinds), len(GENERATORS))) < _WITHIN_LARGEST.T[kinds]
        bucket = rng.choice(len(_BUCKET_SHARES), size=held.shape, p=_BUCKET_SHARES)
        edges = np.array(LEVELS.fan_outs)
        ranks = np.where(held, rng.integers(edges[bucket], edges[bucket + 1]) + 1, 0)
        positions = rng.choice(_POSITIONS, size=len(kinds), p=_POSITION_SHARES)
        worth = (rng.random(len(kinds)) < _ENGAGED) / np.log2(positions + 1)
        return [Outcome(r, w) for r, w in zip(ranks, worth.tolist(), strict=True)]

    def expected_reward(self, kind: int, action: Action) -> float:
        """Return the mean reward of a plan."""
        missed = 1 - self._within[np.arange(len(action)), kind, np.array(action)]
        return self._mean_worth * float(1 - missed.prod())

    def value(self, policy: list[Distribution]) -> float:
        """Return the true mean reward of a policy, given by its distribution per kind."""
        return sum(
            float(KIND_SHARES[kind]) * share * self.expected_reward(kind, action)
            for kind, distribution in enumerate(policy)
            for action, share in distribution.frequencies.items()
        )

"""What one decision taught: which rank buckets were seen, and where the engaged items were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.bandit.arrays import FloatArray, IntArray
from orchestrator.bandit.levels import Levels


@dataclass(frozen=True, slots=True)
class Engagement:
    """One item a user engaged with.

    `reward` is in [0, 1] and already position-discounted: engagement *after ranking* is what the
    plan is for. `ranks` are the item's ranks (from 1) in the lists of the generators that found it.
    """

    reward: float
    ranks: Mapping[str, int]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.reward) and 0 <= self.reward <= 1):
            raise ValueError(f"a reward is in [0, 1], got {self.reward}")


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The labels of one decision.

    A generator executed at level l teaches buckets below l; the others are censored. A generator
    that was not called, timed out or failed has level 0 and teaches nothing: absence of an answer
    is not a zero.
    """

    generators: tuple[str, ...]
    phi: FloatArray
    """The features the decision was made with, [G, d]."""
    executed: IntArray
    """The level each generator really answered at, [G]."""
    credit: FloatArray
    """The reward found in each bucket of each generator's list, [G, J]; rows sum to at most 1."""
    weight: float = 1.0
    """How much this decision counts, above 0; 1 for an ordinary one."""

    def __post_init__(self) -> None:
        count = len(self.generators)
        if self.phi.shape[0] != count or self.executed.shape != (count,):
            raise ValueError("phi, executed and generators must agree in length")
        if self.credit.ndim != 2 or self.credit.shape[0] != count:
            raise ValueError(f"credit is {self.credit.shape}, not (generators, buckets)")
        if not (np.isfinite(self.phi).all() and np.isfinite(self.credit).all()):
            raise ValueError("phi or credit has a number that is not finite")
        if (self.credit < 0).any() or (self.credit.sum(axis=1) > 1 + 1e-9).any():
            raise ValueError("credit must not be negative, nor a row sum to more than 1")
        if (self.executed < 0).any() or (self.executed > self.credit.shape[1]).any():
            raise ValueError("executed levels must be between 0 and the number of buckets")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"a weight is above 0, got {self.weight}")

    @property
    def seen(self) -> FloatArray:
        """1 where a bucket was seen, 0 where it is censored, [G, J]."""
        buckets = np.arange(self.credit.shape[1])
        return (buckets < self.executed[:, None]).astype(np.float64)


def observe(
    levels: Levels,
    generators: tuple[str, ...],
    phi: FloatArray,
    *,
    executed: Mapping[str, int | None],
    engagements: Sequence[Engagement],
    precedence: Sequence[str] = (),
    weight: float = 1.0,
) -> Observation:
    """Build the observation of one decision from its record and its feedback.

    With `precedence`, the first generator in that order that found an engaged item gets all of
    its credit, and the later ones none: that they found it too was not needed. Generators then
    learn what they add, and a plan does not pay twice for the same find. Without, all are credited.

    `executed` is the fan-out each generator answered with; None (timed out, failed) and absence
    (not called) teach nothing. Several engagements share at most a reward of 1: if they sum to
    more, each is scaled down. A rank beyond what was executed earns no credit.
    """
    level = np.array([levels.level(executed.get(name) or 0) for name in generators], dtype=np.int64)
    credit = np.zeros((len(generators), levels.buckets))
    scale = 1 / max(1.0, sum(engagement.reward for engagement in engagements))
    order = [generators.index(name) for name in precedence] or range(len(generators))
    for engagement in engagements:
        for g in order:
            rank = engagement.ranks.get(generators[g])
            bucket = None if rank is None else levels.bucket(rank)
            if bucket is not None and bucket < level[g]:
                credit[g, bucket] += engagement.reward * scale
                if precedence:
                    break
    return Observation(generators, phi, level, np.minimum(credit, 1.0), weight)


def covered_reward(engagements: Sequence[Engagement], fan_outs: Mapping[str, int]) -> float:
    """Return the reward another plan would have covered, in [0, 1].

    Right only when the executed plan asked every generator for at least as much, as a full pull
    does; then one decision gives an estimate for every static plan at once.
    """
    covered = sum(
        engagement.reward
        for engagement in engagements
        if any(rank <= fan_outs.get(name, 0) for name, rank in engagement.ranks.items())
    )
    return min(1.0, covered)

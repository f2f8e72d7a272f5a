"""How likely a policy was to take the action it took: exact where possible, else by Monte Carlo.

Off-policy estimates divide by these numbers, so they are computed from the whole chain that led
to an action: which slice of the traffic the request fell into, and what that slice's policy does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.bandit.arrays import FloatArray, IntArray

Action = tuple[int, ...]
"""The level of every generator, in the order of the context's generators."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a policy spreads over actions in one context.

    `frequencies` sum to 1. `draws` is M, the number of Monte-Carlo draws behind them; 0 if exact.
    """

    frequencies: Mapping[Action, float]
    draws: int = 0

    @classmethod
    def exact(cls, weighted: Sequence[tuple[Action, float]]) -> Distribution:
        """Add up the weights of equal actions; the weights sum to 1."""
        frequencies: dict[Action, float] = {}
        for action, weight in weighted:
            frequencies[action] = frequencies.get(action, 0.0) + weight
        return cls(frequencies)

    @classmethod
    def from_draws(cls, actions: IntArray) -> Distribution:
        """Count the drawn actions, [M, G]."""
        draws = len(actions)
        counts: dict[Action, int] = {}
        for row in actions.tolist():
            action = tuple(row)
            counts[action] = counts.get(action, 0) + 1
        return cls({action: count / draws for action, count in counts.items()}, draws)

    def probability(self, action: Action) -> float:
        """Return P(action), or its estimate (m + 1/2) / (M + 1) if m of M draws took it.

        The estimate is the posterior mean under Jeffreys' prior on {this action, any other}: it is
        never 0, so a logged action always has a usable propensity.
        """
        frequency = self.frequencies.get(action, 0.0)
        if self.draws == 0:
            return frequency
        return (frequency * self.draws + 0.5) / (self.draws + 1)

    def marginals(self, generators: int, levels: int) -> FloatArray:
        """Return P(generator is called at level): [G, L], every row sums to 1."""
        result = np.zeros((generators, levels))
        rows = np.arange(generators)
        for action, frequency in self.frequencies.items():
            result[rows, np.array(action, dtype=np.int64)] += frequency
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Propensity:
    """The propensity of a logged action, as it is written into the decision record."""

    value: float
    """In (0, 1] for an action that was taken."""
    marginals: FloatArray
    """P(generator is called at level), [G, L]."""
    draws: int
    """M of the components estimated by Monte Carlo; 0 if all of them were exact."""


def mixture_propensity(
    components: Sequence[tuple[float, Distribution]], action: Action, levels: int
) -> Propensity:
    """Return Σ share × P(action | slice) over the slices of the traffic.

    `components` are (share of the traffic, what that slice's policy does); the shares sum to 1,
    else `ValueError`.
    """
    total = sum(share for share, _ in components)
    if abs(total - 1) > 1e-9:
        raise ValueError(f"the shares of a mixture sum to 1, got {total}")
    value = sum(share * part.probability(action) for share, part in components)
    marginals = np.zeros((len(action), levels))
    for share, part in components:
        marginals += share * part.marginals(len(action), levels)
    return Propensity(value, marginals, max(part.draws for _, part in components))

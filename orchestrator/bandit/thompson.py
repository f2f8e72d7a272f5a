"""The learned policies: Thompson sampling on hazards, ε-greedy, and linear Thompson sampling.

They differ in the belief they hold and in how they explore; the objective (coverage of the union
net of its price) and the exact knapsack are the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.bandit import hazard, linear
from orchestrator.bandit.arrays import FloatArray, IntArray
from orchestrator.bandit.baselines import UniformPresetsPolicy
from orchestrator.bandit.knapsack import covered, solve
from orchestrator.bandit.policy import PlanChoice, PlanContext, Source, plan_choice
from orchestrator.bandit.posterior import GaussianPosterior
from orchestrator.bandit.propensity import Action, Distribution


@dataclass(frozen=True, slots=True)
class Objective:
    """What a plan is worth: the coverage of the union of its lists, net of its price.

    Raises `ValueError` for a price that is negative or not finite, or a redundancy below 1.
    """

    price: float = 0.0
    """The reward that one cost unit must bring."""
    redundancy: float = 1.0
    """How much generators find the same: 1 is independent; see `knapsack`."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.price) and self.price >= 0):
            raise ValueError(f"a price must be finite and at least 0, got {self.price}")
        if not (np.isfinite(self.redundancy) and self.redundancy >= 1):
            raise ValueError(f"a redundancy must be finite and at least 1, got {self.redundancy}")

    def solve(self, context: PlanContext, utilities: FloatArray) -> IntArray:
        """Return the best plan of every draw: utilities [M, G, L] to levels [M, G]."""
        return solve(
            utilities,
            context.cost,
            context.feasible,
            context.budget,
            price=self.price,
            redundancy=self.redundancy,
        )

    def best(self, context: PlanContext, utilities: FloatArray) -> Action:
        """Return the best plan for utilities [G, L]."""
        return tuple(self.solve(context, utilities[None])[0].tolist())

    def value(self, context: PlanContext, utilities: FloatArray, action: Action) -> float:
        """Return what an action is worth if the utilities [G, L] are right."""
        chosen = utilities[np.arange(len(action)), np.array(action, dtype=np.int64)]
        return covered(chosen, self.redundancy) - self.price * context.total_cost(action)


class ThompsonPolicy:
    """Draws one plausible world from the posterior and plans optimally for it (Thompson, 1933)."""

    name = "thompson"
    exact = False

    def __init__(
        self,
        posterior: GaussianPosterior,
        *,
        price: float = 0.0,
        redundancy: float = 1.0,
        exploration: float = 1.0,
    ) -> None:
        """Plan with `posterior` over hazards; see `Objective` for price and redundancy.

        `exploration` scales the posterior's standard deviation, 1 being Thompson sampling proper
        and less being greedier.
        """
        self._objective = Objective(price, redundancy)
        if not (np.isfinite(exploration) and exploration >= 0):
            raise ValueError(f"exploration must be finite and at least 0, got {exploration}")
        self._posterior = posterior
        self._exploration = exploration

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose the best plan of one draw."""
        utilities = self._draw(context, rng, 1)[0]
        action = self._objective.best(context, utilities)
        return plan_choice(context, action, Source.THOMPSON, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Repeat the choice `draws` times at once."""
        utilities = self._draw(context, rng, draws)
        return Distribution.from_draws(self._objective.solve(context, utilities))

    def _draw(self, context: PlanContext, rng: np.random.Generator, draws: int) -> FloatArray:
        return hazard.draw_utilities(
            self._posterior, context, rng, draws, exploration=self._exploration
        )


class LinTSPolicy:
    """Thompson sampling with linear rewards (Agrawal & Goyal, 2013)."""

    name = "lints"
    exact = False

    def __init__(
        self,
        posterior: GaussianPosterior,
        *,
        price: float = 0.0,
        redundancy: float = 1.0,
        scale: float = 0.5,
    ) -> None:
        """Plan with `posterior` over linear rewards; `scale` is the standard deviation of noise."""
        self._objective = Objective(price, redundancy)
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and above 0, got {scale}")
        self._posterior = posterior
        self._scale = scale

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose the best plan of one draw."""
        utilities = linear.draw_utilities(self._posterior, context, rng, 1, scale=self._scale)[0]
        action = self._objective.best(context, utilities)
        return plan_choice(context, action, Source.LINEAR_THOMPSON, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Repeat the choice `draws` times at once."""
        utilities = linear.draw_utilities(self._posterior, context, rng, draws, scale=self._scale)
        return Distribution.from_draws(self._objective.solve(context, utilities))


class EpsilonGreedyPolicy:
    """Plans for the expected hazards, except that with probability ε it takes a random preset."""

    name = "epsilon_greedy"
    exact = True

    def __init__(
        self,
        posterior: GaussianPosterior,
        uniform: UniformPresetsPolicy,
        *,
        epsilon: float = 0.05,
        price: float = 0.0,
        redundancy: float = 1.0,
    ) -> None:
        """Plan with `posterior` over hazards; explore with `uniform`. `epsilon` is in [0, 1]."""
        self._objective = Objective(price, redundancy)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon is in [0, 1], got {epsilon}")
        self._posterior = posterior
        self._uniform = uniform
        self._epsilon = epsilon

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Toss the coin, then exploit or explore."""
        if rng.random() < self._epsilon:
            return self._uniform.choose(context, rng)
        utilities = hazard.expected_utilities(self._posterior, context)
        action = self._objective.best(context, utilities)
        return plan_choice(context, action, Source.GREEDY, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return 1 - ε on the greedy plan and ε spread as the presets are; exact."""
        utilities = hazard.expected_utilities(self._posterior, context)
        greedy = self._objective.best(context, utilities)
        explored = self._uniform.distribution(context, rng, draws).frequencies
        return Distribution.exact(
            [
                (greedy, 1 - self._epsilon),
                *((action, self._epsilon * share) for action, share in explored.items()),
            ]
        )

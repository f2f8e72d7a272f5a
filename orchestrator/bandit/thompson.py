"""The learned policies: Thompson sampling on hazards, ε-greedy, and linear Thompson sampling.

They differ in the belief they hold and in how they explore; the objective (coverage of the union
net of its price) and the exact knapsack are the same for all.
"""

from __future__ import annotations

import numpy as np

from orchestrator.bandit import hazard, linear
from orchestrator.bandit.arrays import FloatArray, IntArray
from orchestrator.bandit.baselines import UniformPresetsPolicy
from orchestrator.bandit.knapsack import solve
from orchestrator.bandit.policy import PlanChoice, PlanContext, Source, plan_choice
from orchestrator.bandit.posterior import GaussianPosterior
from orchestrator.bandit.propensity import Action, Distribution


def _check_price(price: float) -> None:
    if not (np.isfinite(price) and price >= 0):
        raise ValueError(f"a price must be finite and at least 0, got {price}")


def _solve(context: PlanContext, utilities: FloatArray, price: float) -> IntArray:
    return solve(utilities, context.cost, context.feasible, context.budget, price=price)


def _best(context: PlanContext, utilities: FloatArray, price: float) -> Action:
    return tuple(_solve(context, utilities[None], price)[0].tolist())


class ThompsonPolicy:
    """Draws one plausible world from the posterior and plans optimally for it (Thompson, 1933)."""

    name = "thompson"
    exact = False

    def __init__(
        self, posterior: GaussianPosterior, *, price: float = 0.0, exploration: float = 1.0
    ) -> None:
        """Plan with `posterior` over hazards.

        `price` is the reward that one cost unit must bring; `exploration` scales the posterior's
        standard deviation, 1 being Thompson sampling proper and less being greedier.
        """
        _check_price(price)
        if not (np.isfinite(exploration) and exploration >= 0):
            raise ValueError(f"exploration must be finite and at least 0, got {exploration}")
        self._posterior = posterior
        self._price = price
        self._exploration = exploration

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose the best plan of one draw."""
        utilities = self._draw(context, rng, 1)[0]
        action = _best(context, utilities, self._price)
        return plan_choice(context, action, Source.THOMPSON, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Repeat the choice `draws` times at once."""
        utilities = self._draw(context, rng, draws)
        return Distribution.from_draws(_solve(context, utilities, self._price))

    def _draw(self, context: PlanContext, rng: np.random.Generator, draws: int) -> FloatArray:
        return hazard.draw_utilities(
            self._posterior, context, rng, draws, exploration=self._exploration
        )


class LinTSPolicy:
    """Thompson sampling with linear rewards (Agrawal & Goyal, 2013)."""

    name = "lints"
    exact = False

    def __init__(
        self, posterior: GaussianPosterior, *, price: float = 0.0, scale: float = 0.5
    ) -> None:
        """Plan with `posterior` over linear rewards; `scale` is the standard deviation of noise."""
        _check_price(price)
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and above 0, got {scale}")
        self._posterior = posterior
        self._price = price
        self._scale = scale

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose the best plan of one draw."""
        utilities = linear.draw_utilities(self._posterior, context, rng, 1, scale=self._scale)[0]
        action = _best(context, utilities, self._price)
        return plan_choice(context, action, Source.LINEAR_THOMPSON, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Repeat the choice `draws` times at once."""
        utilities = linear.draw_utilities(self._posterior, context, rng, draws, scale=self._scale)
        return Distribution.from_draws(_solve(context, utilities, self._price))


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
    ) -> None:
        """Plan with `posterior` over hazards; explore with `uniform`. `epsilon` is in [0, 1]."""
        _check_price(price)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon is in [0, 1], got {epsilon}")
        self._posterior = posterior
        self._uniform = uniform
        self._epsilon = epsilon
        self._price = price

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Toss the coin, then exploit or explore."""
        if rng.random() < self._epsilon:
            return self._uniform.choose(context, rng)
        utilities = hazard.expected_utilities(self._posterior, context)
        action = _best(context, utilities, self._price)
        return plan_choice(context, action, Source.GREEDY, utilities=utilities)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return 1 - ε on the greedy plan and ε spread as the presets are; exact."""
        utilities = hazard.expected_utilities(self._posterior, context)
        greedy = _best(context, utilities, self._price)
        explored = self._uniform.distribution(context, rng, draws).frequencies
        return Distribution.exact(
            [
                (greedy, 1 - self._epsilon),
                *((action, self._epsilon * share) for action, share in explored.items()),
            ]
        )

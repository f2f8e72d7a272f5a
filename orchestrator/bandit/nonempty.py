"""What every policy is held to: a search calls somebody, and whoever a place on the page waits for.

A replacement depends on the context alone, so propensities stay right: the probability of a plan
that is replaced moves to the plan that replaces it.
"""

from __future__ import annotations

import numpy as np

from orchestrator.bandit.policy import PlanChoice, PlanContext, Policy, instead
from orchestrator.bandit.propensity import Action, Distribution


class CallSomething:
    """Any policy, held to its obligations.

    Reserved generators that it leaves out are called at their smallest level, if mask and budget
    allow it; the empty plan becomes the smallest call of the first generator.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.name = policy.name
        self.exact = policy.exact

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose as the policy does, then add the calls that must be made."""
        choice = self._policy.choose(context, rng)
        return instead(choice, context, _held(context, choice.action))

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return the policy's distribution with the shares of replaced plans moved."""
        inner = self._policy.distribution(context, rng, draws)
        moved: dict[Action, float] = {}
        for action, share in inner.frequencies.items():
            held = _held(context, action)
            moved[held] = moved.get(held, 0.0) + share
        return Distribution(moved, inner.draws)


def _held(context: PlanContext, action: Action) -> Action:
    return _reserved(context, _something(context, action))


def _reserved(context: PlanContext, action: Action) -> Action:
    for generator, name in enumerate(context.generators):
        if name not in context.reserved or action[generator]:
            continue
        for level in np.flatnonzero(context.feasible[generator])[1:2].tolist():
            more = (*action[:generator], level, *action[generator + 1 :])
            if context.total_cost(more) <= context.budget:
                action = more
    return action


def _something(context: PlanContext, action: Action) -> Action:
    if any(action):
        return action
    for generator in range(len(context.generators)):
        for level in range(1, context.levels.count):
            affordable = context.cost[generator, level] <= context.budget
            if context.feasible[generator, level] and affordable:
                return tuple(level if g == generator else 0 for g in range(len(action)))
    return action

"""A search must not end empty-handed: a policy that calls nobody is made to call somebody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.bandit.policy import PlanChoice, PlanContext, Policy
from orchestrator.bandit.propensity import Action, Distribution


class CallSomething:
    """Any policy, except that the empty plan becomes the smallest call of the first generator.

    The replacement depends on the context alone, so propensities stay right: the empty plan's
    probability moves to the plan that replaces it.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.name = policy.name
        self.exact = policy.exact

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose as the policy does, but not nothing, if something is feasible."""
        choice = self._policy.choose(context, rng)
        action = _something(context, choice.action)
        if action == choice.action:
            return choice
        fan_outs = {
            name: context.levels.fan_outs[level]
            for name, level in zip(context.generators, action, strict=True)
        }
        return replace(choice, action=action, fan_outs=fan_outs, cost=context.total_cost(action))

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return the policy's distribution with the empty plan's share moved."""
        inner = self._policy.distribution(context, rng, draws)
        moved: dict[Action, float] = {}
        for action, share in inner.frequencies.items():
            something = _something(context, action)
            moved[something] = moved.get(something, 0.0) + share
        return Distribution(moved, inner.draws)


def _something(context: PlanContext, action: Action) -> Action:
    if any(action):
        return action
    for generator in range(len(context.generators)):
        for level in range(1, context.levels.count):
            affordable = context.cost[generator, level] <= context.budget
            if context.feasible[generator, level] and affordable:
                return tuple(level if g == generator else 0 for g in range(len(action)))
    return action

"""Policies that learn nothing: the controls every learned plan is compared with.

All of them have exact propensities: they are deterministic, or uniform over a short list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.bandit.policy import PlanChoice, PlanContext, Source, plan_choice
from orchestrator.bandit.propensity import Action, Distribution


def _fitted(context: PlanContext, wanted: Action, source: Source) -> PlanChoice:
    action = context.fit(wanted)
    return plan_choice(context, action, source, feasible=action == wanted)


class StaticPolicy:
    """Always asks for the same fan-outs, lowered only as mask and budget demand.

    With `source` override it is also how a caller forces a plan.
    """

    exact = True

    def __init__(
        self,
        fan_outs: Mapping[str, int],
        *,
        name: str = "static",
        source: Source = Source.STATIC,
    ) -> None:
        """Fix the fan-outs; a generator not named is not called."""
        self.name = name
        self._fan_outs = dict(fan_outs)
        self._source = source

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Return the fixed plan, fitted to the context."""
        return _fitted(context, context.wanted(self._fan_outs), self._source)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return certainty."""
        return Distribution.exact([(context.fit(context.wanted(self._fan_outs)), 1.0)])


class CallEverythingPolicy:
    """Asks every generator for the largest fan-out: the full pull, which shows what others miss.

    It obeys the budget like all policies; give the full-pull slice a context whose budget allows
    everything.
    """

    name = "full"
    exact = True

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Return the largest plan that fits."""
        return _fitted(context, self._wanted(context), Source.FULL)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return certainty."""
        return Distribution.exact([(context.fit(self._wanted(context)), 1.0)])

    def _wanted(self, context: PlanContext) -> Action:
        return (context.levels.count - 1,) * len(context.generators)


class UniformPresetsPolicy:
    """Picks one of a list of plans with equal probability: the slice that keeps support."""

    name = "uniform"
    exact = True

    def __init__(self, presets: Sequence[Mapping[str, int]]) -> None:
        """Fix the presets, each a map of generator to fan-out; at least one, else `ValueError`."""
        if not presets:
            raise ValueError("the uniform policy needs at least one preset")
        self._presets = tuple(dict(preset) for preset in presets)

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Return one preset, fitted to the context."""
        preset = self._presets[int(rng.integers(len(self._presets)))]
        return _fitted(context, context.wanted(preset), Source.UNIFORM)

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return equal shares; presets that fit to the same plan add up."""
        share = 1 / len(self._presets)
        return Distribution.exact(
            [(context.fit(context.wanted(preset)), share) for preset in self._presets]
        )

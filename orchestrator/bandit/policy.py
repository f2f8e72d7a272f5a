"""What a policy is: a context goes in, a plan comes out.

Every policy, learned or not, obeys the same two limits: it never calls a generator at a level the
context masks, and it never spends more than the context's budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np

from orchestrator.bandit.arrays import BoolArray, FloatArray, IntArray
from orchestrator.bandit.levels import Levels
from orchestrator.bandit.propensity import Action, Distribution

BIAS = "bias"
"""The name of the first feature, which is 1 everywhere; priors are stated on its weight."""


class Source(StrEnum):
    """Where a plan came from, as logged with the decision."""

    THOMPSON = "ts"
    LINEAR_THOMPSON = "lints"
    GREEDY = "greedy"
    STATIC = "static"
    UNIFORM = "uniform"
    FULL = "full"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True, eq=False)
class PlanContext:
    """Everything a policy may look at for one decision.

    Raises `ValueError` if the shapes disagree, a number is not finite, level 0 is masked or not
    free, or the first feature is not `bias` and 1.
    """

    generators: tuple[str, ...]
    features: tuple[str, ...]
    """The names of the columns of `phi`; the first is `bias`."""
    phi: FloatArray
    """The features of the query and of each generator's action, [G, d]."""
    levels: Levels
    feasible: BoolArray
    """Which levels are allowed, [G, L]; column 0 is True."""
    cost: IntArray
    """What each level costs, in integer units, [G, L]; column 0 is 0."""
    budget: int
    """The most the plan may cost, in the same units."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a generator is (partly) masked, such as `breaker_open`, by generator."""
    reserved: frozenset[str] = frozenset()
    """Generators that a place on the page is kept for: called at the least, as far as possible."""

    def __post_init__(self) -> None:
        shape = (len(self.generators), self.levels.count)
        if len(set(self.generators)) != len(self.generators):
            raise ValueError(f"a generator is named twice: {self.generators}")
        if self.phi.shape != (len(self.generators), len(self.features)):
            raise ValueError(f"phi is {self.phi.shape}, not (generators, features)")
        if self.feasible.shape != shape or self.cost.shape != shape:
            raise ValueError(f"mask and cost must be {shape} (generators, levels)")
        if self.features[:1] != (BIAS,) or (self.phi[:, 0] != 1).any():
            raise ValueError(f"the first feature must be {BIAS!r} and 1 for every generator")
        if not np.isfinite(self.phi).all():
            raise ValueError("phi has a number that is not finite")
        if not self.feasible[:, 0].all() or self.cost[:, 0].any():
            raise ValueError("level 0 must be feasible and free")
        if self.budget < 0 or (self.cost < 0).any():
            raise ValueError("budget and costs must not be negative")

    def wanted(self, fan_outs: Mapping[str, int]) -> Action:
        """Return the levels of the stated fan-outs; a generator not stated is not called."""
        return tuple(self.levels.level(fan_outs.get(name, 0)) for name in self.generators)

    def total_cost(self, action: Action) -> int:
        """Return what an action costs."""
        return int(self.cost[np.arange(len(action)), np.array(action, dtype=np.int64)].sum())

    def fit(self, wanted: Action) -> Action:
        """Lower an action until mask and budget allow it.

        Masked levels fall to the highest feasible level below; then, while the plan is too dear,
        the generator that costs most (the last of equals) steps down to its next feasible level.
        """
        action = [self._feasible_at_most(g, level) for g, level in enumerate(wanted)]
        while self.total_cost(tuple(action)) > self.budget:
            costs = [int(self.cost[g, level]) for g, level in enumerate(action)]
            dearest = max(range(len(action)), key=lambda g: (costs[g], g))
            action[dearest] = self._feasible_at_most(dearest, action[dearest] - 1)
        return tuple(action)

    def _feasible_at_most(self, generator: int, level: int) -> int:
        while not self.feasible[generator, level]:
            level -= 1
        return level


@dataclass(frozen=True, slots=True, eq=False)
class PlanChoice:
    """The plan a policy chose, with what it believed when it did."""

    generators: tuple[str, ...]
    action: Action
    """The level of every generator."""
    fan_outs: Mapping[str, int]
    """How many items to ask each generator for; 0 means it is not called."""
    utilities: FloatArray
    """-log(1 - p_hit) as sampled or expected, [G, L]; zeros if the policy has no model."""
    p_hit: FloatArray
    """The believed probability that the wanted item is within each level, [G, L]."""
    cost: int
    """What the plan costs, in the context's units."""
    feasible: bool
    """False if mask or budget forced a smaller plan than the policy stands for."""
    source: Source


class Policy(Protocol):
    """Chooses plans. Immutable: learning makes a new snapshot, and from it a new policy."""

    @property
    def name(self) -> str:
        """The name used in configuration, traffic slices, logs and metrics."""
        ...

    @property
    def exact(self) -> bool:
        """Whether `distribution` is exact; otherwise it is a Monte-Carlo estimate."""
        ...

    def choose(self, context: PlanContext, rng: np.random.Generator) -> PlanChoice:
        """Choose a plan; the same context and the same random state give the same plan."""
        ...

    def distribution(
        self, context: PlanContext, rng: np.random.Generator, draws: int
    ) -> Distribution:
        """Return how likely each action is; an exact policy ignores `rng` and `draws`."""
        ...


def instead(choice: PlanChoice, context: PlanContext, action: Action) -> PlanChoice:
    """Return the choice with another action, and what was believed unchanged."""
    if action == choice.action:
        return choice
    fan_outs = {
        name: context.levels.fan_outs[level]
        for name, level in zip(context.generators, action, strict=True)
    }
    return replace(choice, action=action, fan_outs=fan_outs, cost=context.total_cost(action))


def plan_choice(
    context: PlanContext,
    action: Action,
    source: Source,
    *,
    utilities: FloatArray | None = None,
    feasible: bool = True,
) -> PlanChoice:
    """Assemble a `PlanChoice` from an action that fits the context."""
    if utilities is None:
        utilities = np.zeros(context.cost.shape)
    fan_outs = {
        name: context.levels.fan_outs[level]
        for name, level in zip(context.generators, action, strict=True)
    }
    return PlanChoice(
        generators=context.generators,
        action=action,
        fan_outs=fan_outs,
        utilities=utilities,
        p_hit=-np.expm1(-utilities),
        cost=context.total_cost(action),
        feasible=feasible,
        source=source,
    )

"""A log that its own logger learned from, with the truth about a target known beside it.

The logger is the Thompson policy that serves searches. It learns batch by batch from what it
logs, with slices of random presets and full pulls; propensities are estimated by as many draws as
in production, and read as from an event log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.ope.decisions import inclusive_propensity
from evaluation.ope.plan_features import plan_features
from evaluation.ope.sample import Sample
from evaluation.ope.slates import pseudo_inverse_weight
from evaluation.ope.world import (
    EVERYTHING,
    FEATURES,
    GENERATORS,
    KIND_SHARES,
    KINDS,
    LEVELS,
    Outcome,
    World,
)
from orchestrator.bandit import (
    Action,
    CallEverythingPolicy,
    Distribution,
    EpsilonGreedyPolicy,
    LearnerSettings,
    Policy,
    StaticPolicy,
    ThompsonPolicy,
    UniformPresetsPolicy,
    hazard,
    observe,
)
from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.nonempty import CallSomething
from orchestrator.bandit.posterior import GaussianPosterior

_PRESETS: tuple[dict[str, int], ...] = (
    {"lexical": 50, "memory": 10},
    {"lexical": 50, "semantic": 25, "memory": 10},
    {"semantic": 50, "memory": 10},
    {"lexical": 25, "graph": 50, "memory": 25},
)
_PRICE = 0.006
"""As served by default."""
EVERYONE = (LEVELS.count - 1,) * len(GENERATORS)
"""The plan that asks every generator for everything."""
_EARLIER = 400
"""Full pulls from which the learned target knows what it knows."""
_LEARNING = LearnerSettings(
    generators=GENERATORS, features=FEATURES, feature_version="world", levels=LEVELS
)


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """How a log is made, and whose value it is read for."""

    requests: int = 5_000
    batch: int = 500
    """Requests between two snapshots of the learner."""
    budget: int = 18
    uniform_share: float = 0.015
    full_share: float = 0.01
    exact_draws: int = 2_000
    """Draws that make up the logger's exact distribution, per batch and kind of query."""
    propensity_draws: int = 128
    """Draws behind logged propensities; 0 logs the exact ones."""
    seed: int = 20261122
    """Of the target; each log has its own."""
    target: str = "learned"
    """`learned` (ε-greedy on an earlier log's beliefs), `static` or `uniform`."""


def target_distributions(world: World, settings: LoggingSettings) -> list[Distribution]:
    """Return what the target does for each kind of query; exact."""
    policy: Policy
    if settings.target == "static":
        policy = StaticPolicy({"lexical": 25, "graph": 10, "memory": 10})
    elif settings.target == "uniform":
        policy = UniformPresetsPolicy(_PRESETS)
    elif settings.target == "learned":
        policy = _learned(world, settings)
    else:
        raise ValueError(f"target '{settings.target}'; allowed: learned, static, uniform")
    rng = np.random.default_rng(settings.seed)
    contexts = [world.context(kind, settings.budget) for kind in range(len(KINDS))]
    return [CallSomething(policy).distribution(context, rng, 1) for context in contexts]


def _learned(world: World, settings: LoggingSettings) -> Policy:
    beliefs = _LEARNING.hazard_posterior()
    rng = np.random.default_rng([settings.seed, 2**31])
    kinds = rng.choice(len(KINDS), size=_EARLIER, p=KIND_SHARES)
    for kind, outcome in zip(kinds.tolist(), world.draw(kinds, rng), strict=True):
        _teach(beliefs, world, kind, EVERYONE, outcome)
    return EpsilonGreedyPolicy(beliefs, UniformPresetsPolicy(_PRESETS), epsilon=0.1, price=_PRICE)


def _teach(
    beliefs: GaussianPosterior, world: World, kind: int, action: Action, outcome: Outcome
) -> None:
    fan_outs: dict[str, int | None] = {
        name: LEVELS.fan_outs[level] for name, level in zip(GENERATORS, action, strict=True)
    }
    phi = world.context(kind, EVERYTHING).phi
    engagements = outcome.engagements(action)
    hazard.learn(
        beliefs, observe(LEVELS, GENERATORS, phi, executed=fan_outs, engagements=engagements)
    )


class _Logger:
    """One batch's policy: per kind of query, the exact distribution over plans."""

    def __init__(
        self,
        world: World,
        beliefs: GaussianPosterior,
        settings: LoggingSettings,
        rng: np.random.Generator,
    ) -> None:
        self._rng = rng
        self._draws = settings.propensity_draws
        self._drawn_share = 1 - settings.uniform_share - settings.full_share
        thompson = CallSomething(ThompsonPolicy(beliefs, price=_PRICE))
        slices: tuple[tuple[float, Policy, int], ...] = (
            (settings.uniform_share, UniformPresetsPolicy(_PRESETS), settings.budget),
            (settings.full_share, CallEverythingPolicy(), EVERYTHING),
        )
        self.drawn: list[Distribution] = []
        self.all: list[Distribution] = []
        for kind in range(len(KINDS)):
            context = world.context(kind, settings.budget)
            drawn = thompson.distribution(context, rng, settings.exact_draws)
            weighted = [(a, self._drawn_share * p) for a, p in drawn.frequencies.items()]
            for share, policy, budget in slices:
                fixed = policy.distribution(world.context(kind, budget), rng, 1).frequencies
                weighted += [(a, share * p) for a, p in fixed.items()]
            self.drawn.append(drawn)
            self.all.append(Distribution.exact(weighted))
        self._plans = [list(d.frequencies) for d in self.all]
        self._ends = [np.cumsum(list(d.frequencies.values())) for d in self.all]

    def choose(self, kind: int) -> tuple[Action, float]:
        """Draw a plan; return it with its propensity as it would be read from a log."""
        ends = self._ends[kind]
        chosen = int(np.searchsorted(ends, self._rng.random() * ends[-1], side="right"))
        action = self._plans[kind][min(chosen, len(ends) - 1)]
        exact, share = self.all[kind].frequencies[action], self._drawn_share
        if not self._draws:
            return action, exact
        thompson = min(1.0, self.drawn[kind].frequencies.get(action, 0.0))
        by_thompson = self._rng.random() * exact < share * thompson
        again = self._rng.binomial(self._draws, thompson)
        smoothed = (again + 0.5) / (self._draws + 1)
        logged = exact + share * (smoothed - thompson)
        own = share if by_thompson else 0.0
        return action, inclusive_propensity(logged, self._draws, sampled=share, own=own)


class _Reader:
    """What the target makes of one logged search after another."""

    def __init__(self, world: World, target: Sequence[Distribution]) -> None:
        self._world = world
        self._target = target
        self._valued = [_features(world, kind, target[kind]) for kind in range(len(KINDS))]
        self._taken: dict[tuple[int, Action], FloatArray] = {}
        self._slates: dict[tuple[int, Action], float] = {}
        self._beyond: list[float] = []
        self._columns: tuple[list[object], ...] = tuple([] for _ in range(7))
        self._covered: list[float] = []

    def follow(self, logger: _Logger) -> None:
        """Take note of a new batch's logger."""
        self._logger = logger
        self._slates.clear()
        self._beyond = [
            sum(p for a, p in target.frequencies.items() if a not in logged.frequencies)
            for logged, target in zip(logger.all, self._target, strict=True)
        ]

    def add(self, kind: int, action: Action, propensity: float, outcome: Outcome) -> None:
        """Read one search."""
        key, target = (kind, action), self._target[kind]
        if key not in self._taken:
            self._taken[key] = _features(self._world, kind, Distribution({action: 1.0}))
        if key not in self._slates:
            self._slates[key] = pseudo_inverse_weight(
                self._logger.all[kind], target, action, LEVELS.count
            )
        row = (
            outcome.reward(action),
            propensity,
            target.frequencies.get(action, 0.0),
            self._taken[key],
            self._valued[kind],
            self._slates[key],
            self._beyond[kind],
        )
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        if action == EVERYONE:
            plans = target.frequencies.items()
            self._covered.append(sum(p * outcome.reward(a) for a, p in plans))

    def sample(self) -> Sample:
        """Return all that was read."""
        columns = [np.array(column) for column in self._columns]
        return Sample(
            reward=columns[0],
            logged=columns[1],
            target=columns[2],
            features=columns[3],
            expected_features=columns[4],
            additive_weight=columns[5],
            unsupported=columns[6],
            covered=np.array(self._covered),
        )


def simulate(
    world: World,
    target: Sequence[Distribution],
    settings: LoggingSettings,
    rng: np.random.Generator,
) -> Sample:
    """Log searches while learning from them, and read the log for the target."""
    beliefs = _LEARNING.hazard_posterior()
    reader = _Reader(world, target)
    kinds = rng.choice(len(KINDS), size=settings.requests, p=KIND_SHARES)
    outcomes = world.draw(kinds, rng)
    for start in range(0, settings.requests, settings.batch):
        logger = _Logger(world, beliefs, settings, rng)
        reader.follow(logger)
        batch = slice(start, start + settings.batch)
        for kind, outcome in zip(kinds[batch].tolist(), outcomes[batch], strict=True):
            action, propensity = logger.choose(kind)
            reader.add(kind, action, propensity, outcome)
            _teach(beliefs, world, kind, action, outcome)
    return reader.sample()


def _features(world: World, kind: int, plans: Distribution) -> FloatArray:
    actions = np.array(list(plans.frequencies), dtype=np.int64)
    shares = np.array(list(plans.frequencies.values()))
    return plan_features(world.context(kind, EVERYTHING).phi, actions, shares, LEVELS.count)

"""The product's policies and the baselines as contenders, and the best plans in hindsight."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.simulation.arrivals import MemoryLog
from evaluation.simulation.pages import Pages, Question
from evaluation.simulation.replay import Choice, FanOuts, Outcome, Replay, Request
from forage.log import Record
from forage.registry import DirectoryRegistry
from orchestrator.bandit import Snapshot
from orchestrator.learning import PolicyProjection
from orchestrator.planner import Planner, Versioned
from orchestrator.settings import OrchestratorSettings

Floats = NDArray[np.float64]


class _Beliefs(PolicyProjection):
    """The real learner, asked for snapshots directly instead of through a registry."""

    def snapshot(self) -> Snapshot:
        """Return what is believed now."""
        return self._learner.snapshot()


class PlannerContender:
    """A policy of the product: the real planner over snapshots of the real learner.

    Snapshots are taken at most every `publish_every_s` of simulated time, as in production.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        *,
        name: str,
        frozen: Snapshot | None = None,
        override: str = "",
    ) -> None:
        """Plan by the settings' traffic split, or always by the policy `override`.

        With a `frozen` snapshot nothing is learned.
        """
        self.name = name
        self._override = override
        self._settings = settings
        self._planner = Planner(settings)
        folder = Path("unused")
        self._log = MemoryLog()
        self._beliefs = _Beliefs(settings, self._log, DirectoryRegistry(folder), None)
        self._learns = frozen is None
        self._versioned = Versioned.of(1, frozen or self._beliefs.snapshot())
        self._published = -np.inf
        self._stale = False

    def snapshot(self) -> Snapshot:
        """Return what is believed now."""
        return self._beliefs.snapshot()

    def choose(self, request: Request) -> Choice:
        """Plan with the latest snapshot."""
        due = request.time - self._published >= self._settings.learner.publish_every_s
        if self._stale and due:
            self._versioned = Versioned.of(self._versioned.version + 1, self._beliefs.snapshot())
            self._published, self._stale = request.time, False
        planned = self._planner.plan(
            request.phi,
            request.masked,
            self._versioned,
            request_id=request.request_id,
            override=self._override,
        )
        fan_outs = tuple(planned.choice.fan_outs[g] for g in self._settings.generators)
        return Choice(fan_outs, planned.choice.cost, planned)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Let the real projection read the records."""
        if self._learns:
            for record in records:
                self._log.keep(record)
            self._beliefs.apply(records)
            self._stale = True


class StaticContender:
    """Always the same plan, as far as the generators can be called."""

    def __init__(self, settings: OrchestratorSettings, fan_outs: FanOuts, *, name: str) -> None:
        self.name = name
        self.fan_outs = fan_outs
        self._settings = settings

    def choose(self, request: Request) -> Choice:
        """Return the plan without what is masked."""
        return plan_of(self._settings, self.fan_outs, request)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Learn nothing."""


class MixtureContender:
    """Two plans at random with fixed chances: what a static configuration can do at a budget."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        plans: Sequence[FanOuts],
        chances: Sequence[float],
        *,
        name: str,
        seed: int,
    ) -> None:
        self.name = name
        self._settings = settings
        self._plans = plans
        self._chances = chances
        self._rng = np.random.default_rng(seed)

    def choose(self, request: Request) -> Choice:
        """Draw one of the plans."""
        drawn = int(self._rng.choice(len(self._plans), p=self._chances))
        return plan_of(self._settings, self._plans[drawn], request)

    def learn(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Learn nothing."""


def plan_of(settings: OrchestratorSettings, fan_outs: FanOuts, request: Request) -> Choice:
    """Return the choice of a plan, without the generators that cannot be called."""
    open_to = tuple(
        0 if name in request.masked else k
        for name, k in zip(settings.generators, fan_outs, strict=True)
    )
    return Choice(open_to, cost_of(settings, open_to))


def cost_of(settings: OrchestratorSettings, fan_outs: FanOuts) -> int:
    """Return what a plan costs."""
    return sum(
        settings.cost(name, k) for name, k in zip(settings.generators, fan_outs, strict=True)
    )


def everything(settings: OrchestratorSettings) -> FanOuts:
    """Return the plan that asks everybody for everything."""
    return (settings.plan.fan_outs[-1],) * len(settings.generators)


def candidate_plans(
    settings: OrchestratorSettings, questions: Sequence[Question], weights: Floats, *, keep: int
) -> list[FanOuts]:
    """Return the static plans worth ranking: for every cost, those that cover the most.

    All plans are compared by the coverage of the wanted gain, which needs no ranking; for each
    total cost the best few are kept, and of all of them the `keep` best spread over the costs.
    """
    plans = [
        plan
        for plan in itertools.product(settings.plan.fan_outs, repeat=len(settings.generators))
        if any(plan)
    ]
    covered = coverage(plans, questions, weights, settings.plan.fan_outs)
    costs = np.array([cost_of(settings, plan) for plan in plans])
    best: list[tuple[float, FanOuts]] = []
    reached = 0.0
    for cost in np.unique(costs).tolist():
        here = np.flatnonzero(costs == cost)
        order = here[np.argsort(-covered[here], kind="stable")]
        top = order[:2] if covered[order[0]] > reached else order[:1]
        reached = max(reached, covered[order[0]])
        best += [(float(covered[i]), plans[i]) for i in top.tolist()]
    if len(best) <= keep:
        return [plan for _, plan in best]
    return [best[i][1] for i in np.linspace(0, len(best) - 1, keep).round().astype(int).tolist()]


def coverage(
    plans: Sequence[FanOuts],
    questions: Sequence[Question],
    weights: Floats,
    levels: Sequence[int],
) -> Floats:
    """Return the share of the wanted gain that each plan covers, averaged by `weights`."""
    grid = {k: number for number, k in enumerate(levels)}
    chosen = np.array([[grid[k] for k in plan] for plan in plans])
    total = np.zeros(len(plans))
    bounds = np.array(levels)
    for question, weight in zip(questions, weights.tolist(), strict=True):
        if not weight:
            continue
        for place in np.flatnonzero(question.grades).tolist():
            ranks = question.ranks[:, place]
            # The first level that reaches the rank; beyond the last one if nothing does.
            needed = np.where(ranks > 0, np.searchsorted(bounds, ranks), len(bounds))
            share = weight * question.grades[place] / question.gain
            total += share * (chosen >= needed).any(axis=1)
    total /= weights.sum()
    return total


def measured(
    replay: Replay,
    pages: Pages,
    plans: Sequence[FanOuts],
    questions: Sequence[Question],
    weights: Floats,
) -> tuple[Floats, Floats]:
    """Return expected reward and nDCG@10 of each static plan, averaged by `weights`."""
    rewards, ndcg = np.zeros(len(plans)), np.zeros(len(plans))
    for question, weight in zip(questions, weights.tolist(), strict=True):
        for number, plan in enumerate(plans) if weight else ():
            page = pages.page(question, plan)
            rewards[number] += weight * replay.expected(question, page)
            ndcg[number] += weight * page.ndcg
    return rewards / weights.sum(), ndcg / weights.sum()


def best_mixture(costs: Floats, values: Floats, budget: float) -> tuple[list[int], list[float]]:
    """Return the one or two plans, and their chances, of the largest value at a mean cost.

    The best mixture under one mean constraint has at most two plans (a linear programme's basic
    solution): a point on the upper hull of value over cost.
    """
    best: tuple[float, list[int], list[float]] = (-np.inf, [], [])
    for low in np.flatnonzero(costs <= budget).tolist():
        if values[low] > best[0]:
            best = (float(values[low]), [low], [1.0])
        for high in np.flatnonzero(costs > budget).tolist():
            share = (budget - costs[low]) / (costs[high] - costs[low])
            value = (1 - share) * values[low] + share * values[high]
            if value > best[0]:
                best = (float(value), [low, high], [1 - share, share])
    if not best[1]:
        raise ValueError(f"no plan costs {budget} or less")
    return best[1], best[2]

"""Credit: what one search and its feedback teach, of each generator and of the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from forage.v1 import decision_pb2, plan_pb2
from orchestrator import bandit
from orchestrator.bandit.posterior import GaussianPosterior
from orchestrator.planner import LEARNED_POLICIES, context_of, preset_name
from orchestrator.settings import OrchestratorSettings

Rewards = dict[str, tuple[float, int]]
"""Item id to (best reward so far, position)."""


def engagements(decision: decision_pb2.Decision, rewards: Rewards) -> list[bandit.Engagement]:
    """Return the positive engagements, discounted by position, with the ranks that found them."""
    found = []
    ranks = {
        shown.item_id: {p.generator: p.rank for p in shown.provenance}
        for shown in (*decision.displayed, *decision.later)
        if shown.item_id in rewards
    }
    for item_id, (reward, position) in rewards.items():
        if reward > 0:
            discount = 1 / math.log2(position + 1)
            found.append(bandit.Engagement(min(1.0, reward * discount), ranks.get(item_id, {})))
    return found


def reached(found: Sequence[bandit.Engagement], levels: bandit.Levels) -> dict[str, int]:
    """Return the least fan-outs with which the generators find what was engaged with."""
    ranks = {g: r for e in found for g, r in e.ranks.items()}
    return {
        g: next((f for f in levels.fan_outs if f >= rank), levels.fan_outs[-1])
        for g, rank in ranks.items()
    }


def observations(
    decision: decision_pb2.Decision,
    found: Sequence[bandit.Engagement],
    linear: GaussianPosterior,
    limits: Mapping[str, int] | None = None,
) -> tuple[bandit.Observation, bandit.Observation]:
    """Return what the search teaches of each generator alone, and of what each adds.

    With `limits` it teaches of those generators only, and down to those fan-outs. The `linear`
    model says in which order generators add to each other.
    """
    context = context_of(decision.plan)
    executed: dict[str, int | None] = {
        o.generator: o.fan_out
        for o in decision.outcomes
        if o.status == plan_pb2.OUTCOME_STATUS_ANSWERED
    }
    if limits is not None:
        executed = {g: min(f or 0, limits.get(g, 0)) for g, f in executed.items()}
    alone, added = (
        bandit.observe(
            context.levels,
            context.generators,
            context.phi,
            executed=executed,
            engagements=found,
            precedence=precedence,
        )
        for precedence in ((), _precedence(context, executed, linear))
    )
    return alone, added


def _precedence(
    context: bandit.PlanContext, executed: Mapping[str, int | None], linear: GaussianPosterior
) -> list[str]:
    """Return the generators that answered, by what a cost unit spent on each alone finds.

    It is the greedy order in which a plan would be put together from nothing (Nemhauser,
    Wolsey & Fisher, 1978): each is then credited with what it adds to the better ones. The
    linear model says what each finds alone, for it is taught every find.
    """
    finds, _ = linear.moments(context.generators, context.phi)
    worth = {}
    for g, name in enumerate(context.generators):
        level = context.levels.level(executed.get(name) or 0)
        if level:
            worth[name] = float(finds[g, level - 1]) / max(int(context.cost[g, level]), 1)
    return sorted(worth, key=lambda name: (-worth[name], name))


def judge(
    safeguard: bandit.Safeguard,
    decision: decision_pb2.Decision,
    found: Sequence[bandit.Engagement],
    reward: float,
    now: float,
    settings: OrchestratorSettings,
) -> None:
    """Let the safeguard compare learned plans with presets, net of what they cost."""
    plan, price = decision.plan, settings.plan.price
    if plan.policy in LEARNED_POLICIES and plan.source == plan_pb2.PLAN_SOURCE_POLICY:
        safeguard.observe(bandit.LEARNED, reward - price * plan.cost, time=now)
    if plan.source == plan_pb2.PLAN_SOURCE_FULL:
        for index, preset in enumerate(settings.plan.presets):
            cost = sum(settings.cost(g, f) for g, f in preset.items())
            value = bandit.covered_reward(found, preset) - price * cost
            safeguard.observe(preset_name(index), value, time=now)
    if plan.source in (plan_pb2.PLAN_SOURCE_UNIFORM, plan_pb2.PLAN_SOURCE_FALLBACK):
        executed = {c.generator: c.fan_out for c in plan.calls if c.fan_out}
        for index, preset in enumerate(settings.plan.presets):
            if {g: f for g, f in preset.items() if f} == executed:
                safeguard.observe(preset_name(index), reward - price * plan.cost, time=now)

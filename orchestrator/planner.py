"""The planner: context and snapshot in, plan out; and the same again for propensity and replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forage.errors import InvalidArgumentError
from forage.v1 import plan_pb2
from orchestrator.bandit import (
    CallEverythingPolicy,
    EpsilonGreedyPolicy,
    Levels,
    LinTSPolicy,
    PlanChoice,
    PlanContext,
    Policy,
    Propensity,
    Safeguard,
    SafeguardSettings,
    Snapshot,
    StaticPolicy,
    ThompsonPolicy,
    Traffic,
    UniformPresetsPolicy,
    derive_rng,
    hazard,
    mixture_propensity,
)
from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.nonempty import CallSomething
from orchestrator.bandit.thompson import Objective
from orchestrator.bandit.traffic import FULL, UNIFORM
from orchestrator.context import FEATURE_VERSION, FEATURES
from orchestrator.settings import POLICIES, OrchestratorSettings, PlanSettings
from orchestrator.slots import EXPLORATION, given_away

_LEAST_WEIGHT = 0.01
"""Of a generator in fusion: one that nothing speaks for still orders what it alone has found."""
LEARNED_POLICIES = ("thompson", "epsilon_greedy", "lints")
_SOURCES = {UNIFORM: plan_pb2.PLAN_SOURCE_UNIFORM, FULL: plan_pb2.PLAN_SOURCE_FULL}


def parameters(plan: PlanSettings) -> dict[str, float]:
    """Return the settings that a policy depends on, flat, to be stored with each snapshot.

    Replay takes them from the snapshot, so that a changed configuration does not change the past.
    """
    flat = {
        "price": plan.price,
        "redundancy": plan.redundancy,
        "exploration": plan.exploration,
        "epsilon": plan.epsilon,
        "lints_scale": plan.lints_scale,
    }
    for name, fan_out in plan.static.items():
        flat[f"static.{name}"] = float(fan_out)
    for index, preset in enumerate(plan.presets):
        for name, fan_out in preset.items():
            flat[f"preset{index}.{name}"] = float(fan_out)
    return flat


def preset_name(index: int) -> str:
    """Return the name by which the safeguard and the fallback know a preset."""
    return f"preset{index}"


def policies(snapshot: Snapshot) -> dict[str, Policy]:
    """Return every policy by name, with the beliefs and parameters of one snapshot.

    Presets are there by their names too, for the fallback.
    """
    params = snapshot.params
    presets = _fan_outs(params)
    static = presets.pop("static")
    names = sorted(presets, key=lambda name: int(name.removeprefix("preset")))
    uniform = UniformPresetsPolicy([presets[name] for name in names])
    worth = objective(snapshot)
    terms = {"price": worth.price, "redundancy": worth.redundancy}
    made: list[Policy] = [
        ThompsonPolicy(snapshot.hazard, exploration=params["exploration"], **terms),
        EpsilonGreedyPolicy(snapshot.hazard, uniform, epsilon=params["epsilon"], **terms),
        LinTSPolicy(snapshot.linear, scale=params["lints_scale"], **terms),
        StaticPolicy(static),
        CallEverythingPolicy(),
        uniform,
        *(StaticPolicy(presets[name], name=name) for name in names),
    ]
    return {policy.name: CallSomething(policy) for policy in made}


def objective(snapshot: Snapshot) -> Objective:
    """Return what plans are worth; older snapshots took generators for independent."""
    return Objective(snapshot.params["price"], snapshot.params.get("redundancy", 1.0))


def _fan_outs(params: Mapping[str, float]) -> dict[str, dict[str, int]]:
    plans: dict[str, dict[str, int]] = {"static": {}}
    for key, value in params.items():
        plan, _, generator = key.partition(".")
        if generator:
            plans.setdefault(plan, {})[generator] = int(value)
    return plans


@dataclass(frozen=True, slots=True)
class Versioned:
    """A snapshot under the version by which decisions name it; version 0 is the prior."""

    version: int
    snapshot: Snapshot
    policies: Mapping[str, Policy]
    fallback: str
    """The preset that stands in for the learned policies; empty while they do well enough."""

    @classmethod
    def of(cls, version: int, snapshot: Snapshot) -> Versioned:
        """Build the snapshot's policies once, for all the searches that will use them."""
        verdict = Safeguard.from_state(snapshot.safeguard).verdict()
        fallback = verdict.best_preset if verdict.fallen_back else ""
        return cls(version, snapshot, policies(snapshot), fallback)


@dataclass(frozen=True, slots=True)
class Planned:
    """A decision, with all that its propensity and its replay need."""

    choice: PlanChoice
    context: PlanContext
    policy: str
    source: plan_pb2.PlanSource.ValueType
    versioned: Versioned
    traffic: Traffic | None
    """The split the request was drawn from; None if the caller named the policy."""
    budget_share: float = 1.0
    """How much of the budget the load left."""


class Planner:
    """Chooses a plan for each search. Stateless: the snapshot is an argument."""

    def __init__(self, settings: OrchestratorSettings) -> None:
        self._settings = settings
        self._generators = tuple(settings.generators)
        self._levels = Levels(settings.plan.fan_outs)
        self._cost = np.array(
            [[settings.cost(g, f) for f in settings.plan.fan_outs] for g in self._generators],
            dtype=np.int64,
        )
        self._traffic = settings.plan.split()

    def plan(
        self,
        phi: FloatArray,
        masked: Mapping[str, str],
        versioned: Versioned,
        *,
        request_id: str,
        budget_share: float = 1.0,
        override: str = "",
    ) -> Planned:
        """Choose a plan.

        `masked` maps generators that must not be called to the reason; `budget_share` in (0, 1]
        narrows the budget under load. Raises `InvalidArgumentError` for an unknown `override`.
        """
        traffic = None if override else self._split(versioned)
        seed = self._settings.plan.seed
        name = traffic.assign(request_id, seed=seed) if traffic else override
        if name not in versioned.policies or (override and override not in POLICIES):
            raise InvalidArgumentError(
                "policy", f"there is no policy '{override}'", allowed=", ".join(POLICIES)
            )
        # A caller who names a policy gets that policy's plan and nothing else.
        slot = not override and given_away(self._settings.slots, request_id, seed)
        reserved = frozenset({EXPLORATION} if slot else ())
        context = self._context(phi, masked, self._budget(name, budget_share), reserved)
        rng = derive_rng(seed, request_id, "plan")
        choice = versioned.policies[name].choose(context, rng)
        source = self._source(name, override)
        return Planned(choice, context, name, source, versioned, traffic, budget_share)

    def propensity(self, planned: Planned, request_id: str, draws: int) -> Propensity:
        """Return how likely the plan was, over the whole split the request was drawn from."""
        rng = derive_rng(self._settings.plan.seed, request_id, "propensity")
        shares = planned.traffic.shares() if planned.traffic else {planned.policy: 1.0}
        components = []
        for name, share in shares.items():
            context = planned.context
            if (name == FULL) != (planned.policy == FULL):
                context = self._rebudgeted(context, self._budget(name, planned.budget_share))
            policy = planned.versioned.policies[name]
            components.append((share, policy.distribution(context, rng, draws)))
        return mixture_propensity(components, planned.choice.action, self._levels.count)

    @staticmethod
    def weights(planned: Planned) -> dict[str, float]:
        """Return what each generator's order is worth in fusion, in (0, 1].

        It is the chance that the list at the smallest fan-out has the wanted item, whatever the
        others find. Hazards would not do: they tell what a generator *adds*, and one that finds
        what all find adds nothing, however good its order is (docs/adr/0021-years-and-trust.md).
        """
        context, snapshot = planned.context, planned.versioned.snapshot
        finds, _ = snapshot.linear.moments(context.generators, context.phi)
        trusted = np.clip(finds[:, 0], _LEAST_WEIGHT, 1.0)
        return dict(zip(context.generators, trusted.tolist(), strict=True))

    def regret(self, planned: Planned) -> float:
        """Return the expected net reward, by the posterior mean, that a better plan would add.

        A proxy: what the mean believes may be wrong, and exploring costs something on purpose.
        """
        context, snapshot = planned.context, planned.versioned.snapshot
        utilities = hazard.expected_utilities(snapshot.hazard, context)
        worth = objective(snapshot)
        best = worth.best(context, utilities)
        chosen = planned.choice.action
        return max(
            0.0,
            worth.value(context, utilities, best) - worth.value(context, utilities, chosen),
        )

    def _split(self, versioned: Versioned) -> Traffic:
        if not versioned.fallback:
            return self._traffic
        return self._traffic.with_fallback(
            LEARNED_POLICIES, to=versioned.fallback, probe_share=SafeguardSettings().probe_share
        )

    def _source(self, name: str, override: str) -> plan_pb2.PlanSource.ValueType:
        if override:
            return plan_pb2.PLAN_SOURCE_OVERRIDE
        if name.startswith("preset"):
            return plan_pb2.PLAN_SOURCE_FALLBACK
        return _SOURCES.get(name, plan_pb2.PLAN_SOURCE_POLICY)

    def _budget(self, policy: str, share: float) -> int:
        # The full pull is for seeing what plans leave out; a budget would blind it.
        everything = int(self._cost[:, -1].sum())
        return everything if policy == FULL else int(self._settings.plan.budget * share)

    def _context(
        self,
        phi: FloatArray,
        masked: Mapping[str, str],
        budget: int,
        reserved: frozenset[str],
    ) -> PlanContext:
        feasible = np.ones(self._cost.shape, dtype=np.bool_)
        for index, name in enumerate(self._generators):
            if name in masked:
                feasible[index, 1:] = False
        return PlanContext(
            generators=self._generators,
            features=FEATURES,
            phi=phi,
            levels=self._levels,
            feasible=feasible,
            cost=self._cost,
            budget=budget,
            reasons=masked,
            reserved=reserved.intersection(self._generators),
        )

    def _rebudgeted(self, context: PlanContext, budget: int) -> PlanContext:
        return self._context(context.phi, context.reasons, budget, context.reserved)


def to_message(planned: Planned, seed: int) -> plan_pb2.Plan:
    """Return the plan as it is logged: enough to decide it again."""
    context, choice = planned.context, planned.choice
    calls = [
        plan_pb2.PlannedCall(
            generator=name,
            fan_out=choice.fan_outs[name],
            infeasible_reason=context.reasons.get(name, ""),
            fan_out_levels=context.levels.fan_outs,
            hit_probabilities=choice.p_hit[g],
            utilities=choice.utilities[g],
            costs=context.cost[g],
            context=context.phi[g],
            feasible=context.feasible[g],
            reserved=name in context.reserved,
        )
        for g, name in enumerate(context.generators)
    ]
    return plan_pb2.Plan(
        policy=planned.policy,
        source=planned.source,
        calls=calls,
        snapshot_version=planned.versioned.version,
        budget=context.budget,
        cost=choice.cost,
        feature_names=context.features,
        feature_version=FEATURE_VERSION,
        seed=seed,
    )


def replay(recorded: plan_pb2.Plan, request_id: str, versioned: Versioned) -> plan_pb2.Plan:
    """Decide a logged plan again, from its record and its snapshot alone."""
    context = context_of(recorded)
    rng = derive_rng(recorded.seed, request_id, "plan")
    choice = versioned.policies[recorded.policy].choose(context, rng)
    again = Planned(choice, context, recorded.policy, recorded.source, versioned, None)
    message = to_message(again, recorded.seed)
    message.feature_version = recorded.feature_version
    return message


def context_of(recorded: plan_pb2.Plan) -> PlanContext:
    """Rebuild the context that a plan was decided in."""
    calls: Sequence[plan_pb2.PlannedCall] = recorded.calls
    return PlanContext(
        generators=tuple(c.generator for c in calls),
        features=tuple(recorded.feature_names),
        phi=np.array([list(c.context) for c in calls], dtype=np.float64),
        levels=Levels(tuple(calls[0].fan_out_levels)),
        feasible=np.array([list(c.feasible) for c in calls], dtype=np.bool_),
        cost=np.array([list(c.costs) for c in calls], dtype=np.int64),
        budget=recorded.budget,
        reasons={c.generator: c.infeasible_reason for c in calls if c.infeasible_reason},
        reserved=frozenset(c.generator for c in calls if c.reserved),
    )

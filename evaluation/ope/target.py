"""The policy in question: what it would do in each logged context, and what that makes of a log.

The probabilities come from the planner and the policies that serve searches, configured as the
target is to be; nothing is modelled a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.ope.decisions import LoggedDecision
from evaluation.ope.plan_features import plan_features
from evaluation.ope.sample import Sample
from evaluation.ope.slates import marginal_weight
from forage.errors import InvalidArgumentError
from forage.registry import Registry
from orchestrator.bandit import Action, Distribution, PlanContext, covered_reward, derive_rng
from orchestrator.bandit.arrays import FloatArray
from orchestrator.planner import Planner, Versioned
from orchestrator.settings import POLICIES, OrchestratorSettings
from orchestrator.snapshots import Snapshots

TRAFFIC = "traffic"
"""The whole traffic split of a configuration, as a target."""
TARGETS = (*POLICIES, TRAFFIC)
_REPORT_EVERY = 20


class TargetPolicy:
    """A policy under a configuration, with the beliefs of one snapshot."""

    def __init__(
        self,
        name: str,
        settings: OrchestratorSettings,
        versioned: Versioned,
        *,
        draws: int = 256,
        seed: int = 1,
    ) -> None:
        """Ask what `name` would do; learned policies are drawn from `draws` times per context.

        Raises `InvalidArgumentError` for a policy there is not, or fewer than 1 draw.
        """
        if name not in TARGETS:
            raise InvalidArgumentError(
                "policy", f"there is no policy '{name}'", allowed=", ".join(TARGETS)
            )
        if draws < 1:
            raise InvalidArgumentError("draws", f"got {draws}", allowed="at least 1")
        self.name = name
        self._generators = tuple(settings.generators)
        self._fan_outs = settings.plan.fan_outs
        self._planner = Planner(settings)
        self._versioned = versioned
        self._draws = draws
        self._seed = seed
        self._shares = settings.plan.split().shares() if name == TRAFFIC else {name: 1.0}

    def distribution(self, logged: LoggedDecision) -> Distribution:
        """Return how the policy spreads over plans in a logged context.

        Frequencies are plain shares of the draws, which are unbiased; masks are those of the
        time, budget and costs those of the target's configuration. Raises `InvalidArgumentError`
        if that names other generators or fan-outs than the log.
        """
        self._check(logged.context)
        frequencies: dict[Action, float] = {}
        drawn = 0
        for name, share in self._shares.items():
            rng = derive_rng(self._seed, logged.request_id, f"target.{name}")
            policy = self._versioned.policies[name]
            found = policy.distribution(self._context(logged, name), rng, self._draws)
            drawn = max(drawn, found.draws)
            for action, part in found.frequencies.items():
                frequencies[action] = frequencies.get(action, 0.0) + share * part
        return Distribution(frequencies, drawn)

    def _check(self, logged: PlanContext) -> None:
        for field, wanted, known in (
            ("generators", self._generators, logged.generators),
            ("plan.fan_outs", self._fan_outs, logged.levels.fan_outs),
        ):
            if wanted != known:
                allowed = ", ".join(str(value) for value in known)
                raise InvalidArgumentError(field, "not those of the log", allowed=allowed)

    def _context(self, logged: LoggedDecision, name: str) -> PlanContext:
        context = logged.context
        planned = self._planner.plan(
            context.phi,
            context.reasons,
            self._versioned,
            request_id=logged.request_id,
            override=name,
        )
        return replace(planned.context, reserved=context.reserved)


def snapshot_of(
    settings: OrchestratorSettings, registry: Registry, version: int | None
) -> Versioned:
    """Return the published snapshot with this version, 0 being the prior, None the current one.

    Raises `FailedPreconditionError` if it has been pruned, `SnapshotMismatchError` if the current
    one is of other features or levels.
    """
    snapshots = Snapshots(settings, registry)
    if version is None:
        snapshots.refresh()
        return snapshots.current
    return snapshots.version(version)


@dataclass(slots=True)
class _Rows:
    """What one decision after another adds to a sample."""

    logged: list[float]
    target: list[float]
    features: list[FloatArray]
    expected: list[FloatArray]
    unsupported: list[float]
    additive: list[float]
    covered: list[float]
    costs: list[float]


def make_sample(
    decisions: Sequence[LoggedDecision],
    policy: TargetPolicy,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Sample:
    """Meet the logged decisions with a target policy; `progress` hears the share done."""
    rows = _Rows([], [], [], [], [], [], [], [])
    for number, decision in enumerate(decisions):
        _add(rows, decision, policy.distribution(decision))
        if number % _REPORT_EVERY == 0:
            progress(number / len(decisions))
    progress(1.0)
    complete = len(rows.additive) == len(decisions)
    return Sample(
        reward=np.array([d.reward for d in decisions]),
        logged=np.array(rows.logged),
        target=np.array(rows.target),
        features=np.array(rows.features),
        expected_features=np.array(rows.expected),
        unsupported=np.array(rows.unsupported if complete else []),
        additive_weight=np.array(rows.additive if complete else []),
        covered=np.array(rows.covered),
        target_cost=np.array(rows.costs),
        logged_cost=np.array([float(d.context.total_cost(d.action)) for d in decisions]),
    )


def _add(rows: _Rows, decision: LoggedDecision, target: Distribution) -> None:
    context, levels = decision.context, decision.context.levels
    actions = np.array(list(target.frequencies), dtype=np.int64)
    shares = np.array(list(target.frequencies.values()))
    rows.logged.append(decision.propensity)
    rows.target.append(min(1.0, target.frequencies.get(decision.action, 0.0)))
    taken = np.array([decision.action], dtype=np.int64)
    rows.features.append(plan_features(context.phi, taken, np.ones(1), levels.count))
    rows.expected.append(plan_features(context.phi, actions, shares, levels.count))
    rows.costs.append(
        float(sum(s * context.total_cost(tuple(a)) for a, s in zip(actions, shares, strict=True)))
    )
    if decision.full_pull:
        rows.covered.append(_covered(decision, target))
    if decision.marginals is not None:
        rows.unsupported.append(_unsupported(decision, decision.marginals, actions, shares))
        marginals = target.marginals(len(decision.action), levels.count)
        rows.additive.append(
            marginal_weight(
                decision.marginals,
                marginals,
                decision.action,
                draws=decision.draws,
                own_share=decision.own_share,
            )
        )


def _covered(decision: LoggedDecision, target: Distribution) -> float:
    if not decision.engagements:
        return 0.0
    context = decision.context
    total = 0.0
    for action, share in target.frequencies.items():
        fan_outs = {
            name: context.levels.fan_outs[level]
            for name, level in zip(context.generators, action, strict=True)
        }
        total += share * covered_reward(decision.engagements, fan_outs)
    return min(1.0, total)


def _unsupported(
    decision: LoggedDecision, marginals: FloatArray, actions: np.ndarray, shares: FloatArray
) -> float:
    """Return the target's share of plans with a level that the logger never chose."""
    possible = marginals > 0
    # What was taken was possible, even if no Monte-Carlo draw took it again.
    possible[np.arange(len(decision.action)), np.array(decision.action)] = True
    within = possible[np.arange(actions.shape[1]), actions].all(axis=1)
    return float(shares[~within].sum())

"""Reads the event log: each search with its context, plan, propensity, and the reward it earned.

Rewards are those that the learner learns from: the best feedback of each item, discounted by its
position, at most 1 in all. Whatever cannot be used is counted by reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from forage.errors import FailedPreconditionError, InvalidArgumentError, StartupError
from forage.lease import FileLease
from forage.log import EventLog, Record, Stream, Topic
from forage.log.engines import Storage, open_storage
from forage.log.interactions import reward as worth
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from forage.v1 import decision_pb2, feedback_service_pb2, plan_pb2
from orchestrator.bandit import Action, Engagement, PlanContext
from orchestrator.bandit.arrays import FloatArray
from orchestrator.context import FEATURE_VERSION
from orchestrator.planner import context_of
from orchestrator.settings import OrchestratorSettings

_READ_AT_ONCE = 500
SAMPLED_POLICIES = ("thompson", "lints")
"""The policies whose propensities are estimated by Monte Carlo."""

OVERRIDE = "the caller chose the policy"
NO_PROPENSITY = "no propensity"
OTHER_FEATURES = "context features of another version"
OTHER_ACTIONS = "other generators or fan-outs than configured"
BAD_PROPENSITY = "a propensity outside (0, 1]"
BAD_FEEDBACK = "feedback that is not a number"
TOO_FRESH = "feedback may still come"
DAMAGED = "damaged record"
UNKNOWN_FEEDBACK = "feedback that fits no shown item"


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """One search of the log, as far as off-policy evaluation needs it."""

    request_id: str
    context: PlanContext
    action: Action
    """The level of every generator that was planned, whatever then happened to the call."""
    propensity: float
    """What to divide by, in (0, 1]; see `inclusive_propensity`."""
    draws: int
    """Monte-Carlo draws behind propensity and marginals; 0: exact."""
    own_share: float
    """Share of the traffic of the sampled policy that took the action; 0: it was not sampled."""
    marginals: FloatArray | None
    """P(generator at level) under the logger, [G, L]; None if not logged."""
    reward: float
    """In [0, 1]."""
    engagements: tuple[Engagement, ...]
    full_pull: bool
    """Whether everything feasible was asked for, by the slice that does so, and answered."""


def inclusive_propensity(value: float, draws: int, *, sampled: float, own: float) -> float:
    """Return the propensity whose inverse is an unbiased weight, from the one that was logged.

    Logged is c + Σ s (m + 1/2) / (M + 1): what exact policies give the action, and per sampled
    policy its share s and the m of M draws that took the action too. That is a good estimate of p,
    but its inverse is not one of 1/p. Leaving out the halves, and counting the logged action
    itself as a draw of the policy that took it, makes weights average 1:
    s q E[1 / (c + s (m + 1) / (M + 1))] + c E[1 / (c + s m / (M + 1))] = 1, up to c = m = 0.
    `sampled` is Σ s, and `own` the s of the policy that took the action, 0 if that was exact.
    """
    if not draws:
        return value
    corrected = value + (own - sampled / 2) / (draws + 1)
    # Logged under another split than configured, the halves may have been smaller.
    return min(1.0, corrected) if corrected > 0 else value


@dataclass(frozen=True, slots=True)
class DecisionLog:
    """The usable searches of a log, in order, and how many others there were."""

    decisions: tuple[LoggedDecision, ...]
    skipped: Mapping[str, int]


def open_decisions(settings: OrchestratorSettings) -> Storage:
    """Open the configured log and registry for reading; raises `StartupError` if there is none."""
    scheme, _, file = settings.log_url.partition(":")
    if scheme != "sqlite" or not file:
        return open_storage(settings)
    path = settings.data_dir / file
    if not path.is_file():
        raise StartupError(f"event log {path}: there is no such file; allowed: a folder with a log")
    log = SqliteEventLog.open(path, read_only=True)
    folder = path.parent
    return Storage(
        log, DirectoryRegistry(folder / "registry"), FileLease(folder / "leases"), log.close
    )


def read_decisions(log: EventLog, settings: OrchestratorSettings) -> DecisionLog:
    """Read all searches with their rewards.

    Raises `InvalidArgumentError` naming the field if none can be used: no propensities, another
    feature version, other generators; `FailedPreconditionError` if the log has no search at all.
    """
    skipped: Counter[str] = Counter()
    rewards = _Rewards(log, settings, skipped)
    shares = sampled_shares(settings)
    searches, newest = 0, 0.0
    usable: list[tuple[float, LoggedDecision]] = []
    for record in _records(log, Stream.DECISIONS):
        # Only searches tell the time, as for the learner: the clocks of clients differ.
        newest = max(newest, record.time)
        try:
            message = decision_pb2.Decision.FromString(record.payload)
        except DecodeError:
            skipped[DAMAGED] += 1
            continue
        if message.root_request_id:
            continue
        searches += 1
        reason = _unusable(message, settings) or rewards.problem(message.request_id)
        made = None if reason else _logged(message, rewards, shares)
        if made is None:
            skipped[reason or DAMAGED] += 1
        else:
            usable.append((record.time, made))
    # With feedback or without: to keep those engaged early would favour them.
    decisions = [d for time, d in usable if time + settings.learner.delay_s <= newest]
    if len(decisions) < len(usable):
        skipped[TOO_FRESH] = len(usable) - len(decisions)
    if not decisions:
        raise _nothing_usable(searches, skipped, settings)
    return DecisionLog(tuple(decisions), dict(skipped))


def _records(log: EventLog, stream: Stream) -> Iterator[Record]:
    after = 0
    while records := log.read(Topic.INTERACTIONS, after, _READ_AT_ONCE, (stream,)):
        yield from records
        after = records[-1].sequence


def _unusable(message: decision_pb2.Decision, settings: OrchestratorSettings) -> str:
    plan = message.plan
    if plan.source == plan_pb2.PLAN_SOURCE_OVERRIDE:
        return OVERRIDE
    if plan.feature_version != FEATURE_VERSION:
        return OTHER_FEATURES
    generators = tuple(call.generator for call in plan.calls)
    levels = {tuple(call.fan_out_levels) for call in plan.calls}
    if generators != tuple(settings.generators) or levels != {settings.plan.fan_outs}:
        return OTHER_ACTIONS
    if message.propensity == 0:
        return NO_PROPENSITY
    return "" if 0 < message.propensity <= 1 else BAD_PROPENSITY


def sampled_shares(settings: OrchestratorSettings) -> dict[str, float]:
    """Return the share of the traffic of each policy whose propensity is drawn, not exact."""
    shares = settings.plan.split().shares()
    return {name: shares[name] for name in SAMPLED_POLICIES if name in shares}


def _logged(
    message: decision_pb2.Decision, rewards: _Rewards, shares: Mapping[str, float]
) -> LoggedDecision | None:
    """Return the search in short; None if its record contradicts itself."""
    try:
        context = context_of(message.plan)
        action = tuple(context.levels.fan_outs.index(c.fan_out) for c in message.plan.calls)
        engagements = rewards.engagements(message)
    except ValueError:
        return None
    drawn = message.plan.source == plan_pb2.PLAN_SOURCE_POLICY
    own = shares.get(message.plan.policy, 0.0) if drawn else 0.0
    return LoggedDecision(
        request_id=message.request_id,
        context=context,
        action=action,
        propensity=inclusive_propensity(
            message.propensity, message.propensity_draws, sampled=sum(shares.values()), own=own
        ),
        draws=message.propensity_draws,
        own_share=own,
        marginals=_marginals(message, context, action, own),
        reward=min(1.0, sum(e.reward for e in engagements)),
        engagements=engagements,
        full_pull=_is_full_pull(message, context, action),
    )


def _marginals(
    message: decision_pb2.Decision, context: PlanContext, action: Action, own_share: float
) -> FloatArray | None:
    """Return the logged marginals; None if there are none, or they contradict the plan."""
    rows = {m.generator: list(m.probabilities) for m in message.marginals}
    if any(len(rows.get(name, ())) != context.levels.count for name in context.generators):
        return None
    marginals = np.array([rows[name] for name in context.generators], dtype=np.float64)
    if not (np.isfinite(marginals).all() and (marginals >= 0).all()):
        return None
    taken = marginals[np.arange(len(action)), np.array(action)]
    return marginals if own_share or (taken > 0).all() else None


def _is_full_pull(message: decision_pb2.Decision, context: PlanContext, action: Action) -> bool:
    if message.plan.source != plan_pb2.PLAN_SOURCE_FULL:
        return False
    most = context.fit((context.levels.count - 1,) * len(action))
    called = [name for name, level in zip(context.generators, action, strict=True) if level]
    answered = {
        o.generator for o in message.outcomes if o.status == plan_pb2.OUTCOME_STATUS_ANSWERED
    }
    return action == most and answered.issuperset(called)


class _Rewards:
    """The best feedback of every item of every search, later pages counted to their first."""

    def __init__(
        self, log: EventLog, settings: OrchestratorSettings, skipped: Counter[str]
    ) -> None:
        self._best: dict[str, dict[str, tuple[float, int]]] = {}
        self._bad: set[str] = set()
        for record in _records(log, Stream.FEEDBACK):
            try:
                event = feedback_service_pb2.FeedbackEvent.FromString(record.payload)
                found = log.get(Stream.DECISIONS, event.request_id)
                page = decision_pb2.Decision.FromString(found.payload) if found else None
                value = worth(event, settings.feedback)
            except (DecodeError, KeyError):
                skipped[DAMAGED] += 1
                continue
            position = _position(page, event.item_id)
            if page is None or position is None:
                skipped[UNKNOWN_FEEDBACK] += 1
            else:
                self._add(page.root_request_id or page.request_id, event.item_id, value, position)

    def _add(self, request_id: str, item_id: str, value: float, position: int) -> None:
        if not math.isfinite(value):
            self._bad.add(request_id)
            return
        items = self._best.setdefault(request_id, {})
        known = items.get(item_id, (0.0, 0))[0]
        items[item_id] = (max(known, value), position)

    def problem(self, request_id: str) -> str:
        """Return why the search's reward is not known; empty if it is."""
        return BAD_FEEDBACK if request_id in self._bad else ""

    def engagements(self, message: decision_pb2.Decision) -> tuple[Engagement, ...]:
        """Return the search's positive engagements, as the learner takes them."""
        items = self._best.get(message.request_id, {})
        ranks = {
            shown.item_id: {p.generator: p.rank for p in shown.provenance}
            for shown in (*message.displayed, *message.later)
            if shown.item_id in items
        }
        return tuple(
            Engagement(min(1.0, value / math.log2(position + 1)), ranks.get(item_id, {}))
            for item_id, (value, position) in items.items()
            if value > 0
        )


def _position(page: decision_pb2.Decision | None, item_id: str) -> int | None:
    if page is None:
        return None
    return next((d.position for d in page.displayed if d.item_id == item_id and d.position), None)


_FIELDS = {
    NO_PROPENSITY: ("propensity", "plan.propensity_draws above 0 while logging"),
    BAD_PROPENSITY: ("propensity", "(0, 1]"),
    OTHER_FEATURES: ("plan.feature_version", f"'{FEATURE_VERSION}'"),
    BAD_FEEDBACK: ("feedback.amount", "finite numbers"),
    OVERRIDE: ("plan.source", "searches whose policy was drawn from the traffic split"),
    TOO_FRESH: ("learner.delay_s", "a log that is longer than this"),
}


def _nothing_usable(
    searches: int, skipped: Counter[str], settings: OrchestratorSettings
) -> InvalidArgumentError | FailedPreconditionError:
    if not searches:
        return FailedPreconditionError(f"the log in {settings.data_dir} has no searches")
    reasons = [(reason, count) for reason, count in skipped.most_common() if reason in _FIELDS]
    if skipped[OTHER_ACTIONS] or not reasons:
        levels = ", ".join(str(f) for f in settings.plan.fan_outs)
        allowed = f"the generators {', '.join(settings.generators)} with fan-outs {levels}"
        return InvalidArgumentError("plan.calls", _summary(searches, skipped), allowed=allowed)
    field, allowed = _FIELDS[reasons[0][0]]
    return InvalidArgumentError(field, _summary(searches, skipped), allowed=allowed)


def _summary(searches: int, skipped: Counter[str]) -> str:
    parts = ", ".join(f"{count:,} with {reason}" for reason, count in skipped.most_common())
    return f"none of {searches:,} searches can be used: {parts}"

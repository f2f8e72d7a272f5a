"""The learner as a projection: decisions and feedback in, policy snapshots out.

A search is learned from once its feedback is thought complete: `delay_s` of log time after it was
made. Feedback that comes later corrects. Only record times count, so replaying the log gives the
same posterior to the last bit.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forage.errors import ConflictError, ForageError
from forage.lease import Lease
from forage.log import EventLog, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.interactions import Engagement, Impression, InteractionReader
from forage.registry import ArtifactInfo, Registry
from forage.telemetry import Span, Telemetry, Tracer
from forage.v1 import decision_pb2
from orchestrator import bandit, credit
from orchestrator.bandit import Learner, Snapshot
from orchestrator.bandit.archive import SnapshotDamagedError, SnapshotNewerError
from orchestrator.context import FEATURE_VERSION, FEATURES
from orchestrator.planner import parameters
from orchestrator.settings import OrchestratorSettings

POLICY = "policy"
"""The registry kind of policy snapshots."""
LEASE = "learner"
_LEASE_S = 5.0
_RENEW_S = 2.0
_FIRST_UNENGAGED = 20.0
_MOST_UNENGAGED = 200.0
"""Searches without feedback that may be learned from before the next one with feedback."""
_KNOWN_VERSIONS = 16
"""Versions of a generator that are no news; during a roll-out old and new ones answer in turn."""
_REMEMBERED = 20_000
"""Searches known to have been credited; feedback that comes after so many others is not checked."""
_logger = logging.getLogger(__name__)


def bandit_settings(settings: OrchestratorSettings) -> bandit.LearnerSettings:
    """Return what the bandit learns about, from the orchestrator's settings."""
    return bandit.LearnerSettings(
        generators=tuple(settings.generators),
        features=FEATURES,
        feature_version=FEATURE_VERSION,
        levels=bandit.Levels(settings.plan.fan_outs),
        hit_rates={name: target.hit_rate for name, target in settings.generators.items()},
        bias_precision=settings.learner.bias_precision,
        weight_precision=settings.learner.weight_precision,
        half_life_s=settings.learner.half_life_days * 86_400,
        params=parameters(settings.plan),
    )


@dataclass(slots=True)
class _Pending:
    """A search that waits for its feedback."""

    payload: bytes
    """The decision as recorded: a quarter of the memory of the message."""
    time: float
    rewards: credit.Rewards = field(default_factory=dict)
    """Item id to (best reward so far, position)."""

    @property
    def decision(self) -> decision_pb2.Decision:
        """The search; read anew every time."""
        return decision_pb2.Decision.FromString(self.payload)


class PolicyProjection:
    """Learns from the `interactions` topic and, while it holds the lease, publishes snapshots."""

    name = "orchestrator.policy"
    topic = Topic.INTERACTIONS
    streams = (Stream.DECISIONS, Stream.FEEDBACK)

    def __init__(
        self,
        settings: OrchestratorSettings,
        log: EventLog,
        registry: Registry,
        lease: Lease | None,
        *,
        on_reward: Callable[[str, float], None] = lambda policy, reward: None,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Learn; publish only if `lease` is given.

        `on_reward` hears the policy and the reward of every search learned from.
        """
        self._settings = settings
        self._log = log
        self._reader = InteractionReader(log, settings.feedback)
        self._registry = registry
        self._lease = lease
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._lock = threading.Lock()
        self._on_reward = on_reward
        self._tracer = tracer or Telemetry.disabled().tracer
        self._clock = clock
        self._file = CheckpointFile(
            Path(settings.data_dir) / "orchestrator.policy" / "state", name="policy", version=3
        )
        self._learner = Learner(bandit_settings(settings))
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._credited: OrderedDict[str, None] = OrderedDict()
        self._versions: dict[str, list[str]] = {}
        self._unengaged_left = _FIRST_UNENGAGED
        self._applied = 0
        self._learned_since_publish = 1
        self._published_at = -math.inf
        self._renew_at = -math.inf

    @property
    def observations(self) -> int:
        """How many labels have been learned from."""
        return int(self._learner.hazard.labels.sum())

    def restore(self) -> int:
        """Load the posterior and the searches that wait; 0 if they are unusable."""
        loaded = self._file.load()
        if loaded is None:
            return 0
        sequence, payload = loaded
        size = int.from_bytes(payload[:8], "big")
        try:
            snapshot = Snapshot.from_bytes(payload[8 : 8 + size])
        except (SnapshotDamagedError, SnapshotNewerError) as error:
            _logger.warning("policy: learning from the log again: %s", error.message)
            return 0
        learner, notes = Learner.restore(bandit_settings(self._settings), snapshot)
        for note in notes:
            _logger.warning("policy: %s", note)
        if learner.sequence == 0 and snapshot.sequence > 0:
            return 0
        state = json.loads(payload[8 + size :])
        for request_id, rewards in state["waiting"]:
            record = self._log.get(Stream.DECISIONS, request_id)
            if record is None:
                return 0
            self._pending[request_id] = _Pending(
                record.payload,
                record.time,
                {item_id: (reward, position) for item_id, reward, position in rewards},
            )
        self._learner = learner
        self._credited.update(dict.fromkeys(state["credited"]))
        self._versions = state.get("versions", {})
        self._unengaged_left = state["unengaged_left"]
        self._applied = sequence
        return sequence

    def checkpoint(self, sequence: int) -> None:
        """Save posterior and waiting searches, with the sequence."""
        with self._lock:
            snapshot = self._learner.snapshot().to_bytes()
        state = {
            "waiting": [
                [request_id, [[item_id, *reward] for item_id, reward in p.rewards.items()]]
                for request_id, p in self._pending.items()
            ],
            "credited": list(self._credited),
            "versions": self._versions,
            "unengaged_left": self._unengaged_left,
        }
        self._file.save(
            sequence, len(snapshot).to_bytes(8, "big") + snapshot + json.dumps(state).encode()
        )

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._file.saved()

    def apply(self, records: Sequence[Record]) -> None:
        """Take in searches and feedback, and learn from those that are complete."""
        fresh = [r for r in records if r.sequence > self._applied]
        if not fresh:
            return
        with self._lock, self._tracer.start_as_current_span(Span.LEARN):
            for event in self._reader.read(fresh):
                if isinstance(event, Impression):
                    # Only searches tell the time: the clocks of clients, who date feedback, differ.
                    self._settle(event.time)
                    self._notice_changes(event.decision)
                    self._wait(event)
                else:
                    self._reward(event)
                self._applied = event.sequence

    def _notice_changes(self, decision: decision_pb2.Decision) -> None:
        """Widen the beliefs about generators that say they have a version never seen before."""
        for outcome in decision.outcomes:
            name, version = outcome.generator, outcome.generator_version
            known = self._versions.setdefault(name, [])
            if not version or version in known:
                continue
            if known:
                keep = self._settings.learner.keep_of_changed
                self._learner.generator_changed(name, keep=keep)
                self._learned_since_publish += 1
                _logger.info("policy: %s changed; %.0f %% of beliefs kept", name, 100 * keep)
            self._versions[name] = [*known[1 - _KNOWN_VERSIONS :], version]

    def _wait(self, event: Impression) -> None:
        if not event.decision.root_request_id:
            payload = event.decision.SerializeToString()
            self._pending[event.decision.request_id] = _Pending(payload, event.time)

    def _reward(self, event: Engagement) -> None:
        decision = event.decision
        root = decision.root_request_id or decision.request_id
        value = event.reward
        waiting = self._pending.get(root)
        if waiting is not None:
            known = waiting.rewards.get(event.item_id, (0.0, 0))[0]
            waiting.rewards[event.item_id] = (max(known, value), event.position)
        elif value > 0 and not decision.root_request_id and root not in self._credited:
            rewards = {event.item_id: (value, event.position)}
            self._correct(decision, rewards, event.time, event.sequence)

    def _settle(self, now: float) -> None:
        delay = self._settings.learner.delay_s
        while self._pending:
            request_id, waiting = next(iter(self._pending.items()))
            if waiting.time + delay > now:
                return
            del self._pending[request_id]
            self._learn(waiting, max(now, waiting.time), self._applied)

    def _learn(self, complete: _Pending, now: float, sequence: int) -> None:
        decision = complete.decision
        if not self._learnable(decision):
            return
        engagements = credit.engagements(decision, complete.rewards)
        if not self._counts(engaged=bool(engagements)):
            return
        alone, added = credit.observations(decision, engagements, self._learner.linear)
        self._learner.observe(alone, time=now, sequence=sequence, added=added)
        if engagements:
            self._remember(decision.request_id)
        reward = min(1.0, sum(e.reward for e in engagements))
        credit.judge(self._learner.safeguard, decision, engagements, reward, now, self._settings)
        self._on_reward(decision.plan.policy, reward)
        self._learned_since_publish += 1

    def _counts(self, *, engaged: bool) -> bool:
        """Whether a search is learned from: silence says little, and much of it says nothing new.

        Robots, benchmarks and answers that need no click would otherwise teach that no generator
        finds anything, and the plan would end with calling nobody.
        """
        if engaged:
            gained = self._unengaged_left + self._settings.learner.unengaged_ratio
            self._unengaged_left = min(_MOST_UNENGAGED, gained)
            return True
        if self._unengaged_left < 1:
            return False
        self._unengaged_left -= 1
        return True

    def _correct(
        self, decision: decision_pb2.Decision, rewards: credit.Rewards, now: float, sequence: int
    ) -> None:
        """Learn from an engagement that came after its search was learned as unengaged.

        Only the generators that found the item are taught, and only down to its rank: the rest
        of the search has been learned already.
        """
        if not self._learnable(decision):
            return
        engagements = credit.engagements(decision, rewards)
        reached = credit.reached(engagements, bandit.Levels(self._settings.plan.fan_outs))
        alone, added = credit.observations(decision, engagements, self._learner.linear, reached)
        self._learner.observe(alone, time=now, sequence=sequence, added=added)
        self._remember(decision.request_id)
        self._learned_since_publish += 1

    def _learnable(self, decision: decision_pb2.Decision) -> bool:
        """Whether the decision was made with the features and levels that are learned now."""
        plan = decision.plan
        return (
            plan.feature_version == FEATURE_VERSION
            and bool(plan.calls)
            and tuple(plan.calls[0].fan_out_levels) == self._settings.plan.fan_outs
        )

    def _remember(self, request_id: str) -> None:
        self._credited[request_id] = None
        if len(self._credited) > _REMEMBERED:
            self._credited.popitem(last=False)

    def publish_if_due(self) -> None:
        """Hold on to the lease; publish if there is news, enough time has passed, and we may."""
        now = self._clock()
        waited = now - self._published_at >= self._settings.learner.publish_every_s
        news = waited and self._learned_since_publish > 0
        if self._lease is None or not (news or now >= self._renew_at):
            return
        # Read before the lease is confirmed: whoever publishes after that makes ours conflict, even
        # if this process is stopped for longer than its lease lasts.
        current = self._registry.current(POLICY)
        self._renew_at = now + _RENEW_S
        if self._lease.acquire(LEASE, self._holder, _LEASE_S) and news:
            self._publish(current, now)

    def _publish(self, current: ArtifactInfo | None, now: float) -> None:
        if self._is_behind(current):
            return
        with self._lock:
            snapshot, applied = self._learner.snapshot(), self._applied
            observations = self.observations
            learned, self._learned_since_publish = self._learned_since_publish, 0
        try:
            self._registry.publish(
                POLICY,
                snapshot.to_bytes(),
                {"sequence": snapshot.sequence, "applied": applied, "observations": observations},
                expected_current=current.version if current else None,
            )
        except ForageError as error:
            self._learned_since_publish += learned
            if not isinstance(error, ConflictError):
                raise
            _logger.warning("another learner published first; this snapshot is dropped")
            return
        self._registry.prune(POLICY, keep=self._settings.learner.keep_snapshots)
        self._published_at = now

    def _is_behind(self, current: ArtifactInfo | None) -> bool:
        """Whether the current snapshot was learned from records that this learner has yet to read.

        A sequence beyond the log's end is another log's, and says nothing.
        """
        theirs = current.metadata.get("applied") if current else None
        return isinstance(theirs, int) and self._applied < theirs <= self._log.head(self.topic)

    def release(self) -> None:
        """Give the lease back, so that another learner need not wait for it to expire."""
        if self._lease is not None:
            self._lease.release(LEASE, self._holder)

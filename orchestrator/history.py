"""What past searches say of users, queries and generators: a projection of the interactions."""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from forage.log import EventLog, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.interactions import Engagement, Impression, InteractionReader
from forage.retrieval import QueryClass, UserContext
from forage.settings import FeedbackSettings
from forage.v1 import decision_pb2, plan_pb2, query_pb2
from orchestrator.context import GeneratorHistory

_RECENT_ITEMS = 50
_USERS = 100_000
_QUERIES = 200_000
_RECORDED_QUERIES = 50_000
_RECENT_SEARCHES = 500
_DAY_S = 86_400.0
_KEEP = 0.998
"""Each search of a class discounts what earlier ones say of a generator: about 500 count."""
_CLASSES = {
    query_pb2.QUERY_CLASS_NAVIGATIONAL: QueryClass.NAVIGATIONAL,
    query_pb2.QUERY_CLASS_TOPICAL: QueryClass.TOPICAL,
    query_pb2.QUERY_CLASS_BROWSE: QueryClass.BROWSE,
    query_pb2.QUERY_CLASS_EMPTY: QueryClass.EMPTY,
}
_BACK_OFF = 2.0
"""Engaged calls for one query that say as much as its class does."""


@dataclass(slots=True)
class _Tally:
    """Discounted sums over the calls of one generator for one query class."""

    calls: float = 0.0
    engaged_calls: float = 0.0
    hits: float = 0.0
    filled: float = 0.0
    latency_s: float = 0.0


@dataclass(slots=True)
class _User:
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT_ITEMS))
    """Items engaged with, latest first."""
    explored: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    """When exploration slots were shown, oldest first."""


@dataclass(slots=True)
class _Arm:
    """One generator's part in the recent searches."""

    calls: int = 0
    fan_out: int = 0
    engaged: int = 0
    found: int = 0
    latencies: list[float] = field(default_factory=list)


class HistoryProjection:
    """Answers, from memory: a user's recent items, a query's engagements, a generator's record."""

    name = "orchestrator.history"
    topic = Topic.INTERACTIONS
    streams = (Stream.DECISIONS, Stream.FEEDBACK)

    def __init__(self, data_dir: Path, log: EventLog, feedback: FeedbackSettings) -> None:
        self._reader = InteractionReader(log, feedback)
        self._file = CheckpointFile(data_dir / self.name / "state", name="history", version=2)
        self._lock = threading.Lock()
        self._users: OrderedDict[str, _User] = OrderedDict()
        self._queries: OrderedDict[str, float] = OrderedDict()
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._recent: OrderedDict[str, dict[str, tuple[int, float]]] = OrderedDict()
        self._found: dict[str, list[str]] = {}
        self._finds: OrderedDict[str, dict[str, tuple[int, int]]] = OrderedDict()
        """By query and generator: engaged calls that held the engaged item, and engaged calls."""
        self._applied = 0

    def entries(self) -> int:
        """Return how many users and queries are known."""
        return len(self._users) + len(self._queries)

    def recent_items(self, user_id: str) -> tuple[str, ...]:
        """Return what the user engaged with, latest first; empty for an unknown user."""
        with self._lock:
            user = self._users.get(user_id)
            return tuple(user.recent) if user else ()

    def with_history(self, user: UserContext) -> UserContext:
        """Return the user with what feedback has taught added behind what the caller said."""
        if not user.user_id:
            return user
        known = (*user.recent_item_ids, *self.recent_items(user.user_id))
        return replace(user, recent_item_ids=tuple(dict.fromkeys(known))[:_RECENT_ITEMS])

    def explored_today(self, user_id: str, now: float) -> int:
        """Return how many exploration slots the user was shown in the last 24 hours."""
        with self._lock:
            user = self._users.get(user_id)
            return sum(1 for t in user.explored if now - t < _DAY_S) if user else 0

    def engagements(self, normalized_query: str) -> float:
        """Return the summed positive reward that this query's results have earned."""
        return self._queries.get(normalized_query, 0.0)

    def generator(
        self, name: str, query_class: QueryClass, normalized_query: str
    ) -> GeneratorHistory:
        """Return what a generator has lately done for this class; a mild prior if nothing yet.

        What it did for this very query counts beside the class, the more the oftener it was asked.
        """
        tally = self._tallies.get((name, query_class.value), _Tally())
        rate = (tally.hits + 1.5) / (tally.engaged_calls + 5.0)
        hits, calls = self._finds.get(normalized_query, {}).get(name, (0, 0))
        return GeneratorHistory(
            hit_rate=rate,
            query_hit_rate=(hits + _BACK_OFF * rate) / (calls + _BACK_OFF),
            returned_share=(tally.filled + 2.5) / (tally.calls + 5.0),
            latency_s=(tally.latency_s + 0.05) / (tally.calls + 5.0),
        )

    def arms(self, generators: Sequence[str]) -> tuple[int, dict[str, _Arm]]:
        """Return the number of recent searches, and each generator's part in them."""
        with self._lock:
            arms = {name: _Arm() for name in generators}
            for request_id, calls in self._recent.items():
                found = self._found.get(request_id)
                for name, arm in arms.items():
                    if name in calls:
                        fan_out, latency = calls[name]
                        arm.calls += 1
                        arm.fan_out += fan_out
                        arm.latencies.append(latency)
                    if found is not None:
                        arm.engaged += 1
                        arm.found += name in found
            return len(self._recent), arms

    def restore(self) -> int:
        """Load the state; 0 if there is none that can be used."""
        loaded = self._file.load()
        if loaded is None:
            return 0
        sequence, payload = loaded
        state = json.loads(zlib.decompress(payload))
        for user_id, recent, explored in state["users"]:
            self._users[user_id] = _User(
                deque(recent, maxlen=_RECENT_ITEMS), deque(explored, maxlen=1_000)
            )
        self._queries.update(state["queries"])
        self._tallies = {(g, c): _Tally(*sums) for g, c, *sums in state["tallies"]}
        self._recent.update((r, {g: (f, s) for g, f, s in calls}) for r, calls in state["recent"])
        self._found = state["found"]
        for query, finds in state["finds"]:
            self._finds[query] = {g: (hits, calls) for g, hits, calls in finds}
        self._applied = sequence
        return sequence

    def checkpoint(self, sequence: int) -> None:
        """Save the state with its sequence."""
        state = {
            "users": [[k, list(u.recent), list(u.explored)] for k, u in self._users.items()],
            "queries": list(self._queries.items()),
            "tallies": [
                [g, c, t.calls, t.engaged_calls, t.hits, t.filled, t.latency_s]
                for (g, c), t in self._tallies.items()
            ],
            "recent": [
                [r, [[g, f, s] for g, (f, s) in calls.items()]] for r, calls in self._recent.items()
            ],
            "found": self._found,
            "finds": [
                [query, [[g, hits, calls] for g, (hits, calls) in finds.items()]]
                for query, finds in self._finds.items()
            ],
        }
        self._file.save(sequence, zlib.compress(json.dumps(state).encode(), 1))

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._file.saved()

    def apply(self, records: Sequence[Record]) -> None:
        """Count searches and engagements."""
        fresh = [r for r in records if r.sequence > self._applied]
        for event in self._reader.read(fresh):
            with self._lock:
                if isinstance(event, Impression):
                    self._impression(event)
                else:
                    self._engagement(event)
            self._applied = event.sequence

    def _impression(self, event: Impression) -> None:
        decision = event.decision
        user_id = decision.query.user.user_id
        explored = sum(1 for d in decision.displayed if d.exploration_propensity > 0)
        if user_id and explored:
            self._user(user_id).explored.extend([event.time] * explored)
        if decision.root_request_id:
            return
        calls = {}
        for outcome in decision.outcomes:
            if outcome.status == plan_pb2.OUTCOME_STATUS_ANSWERED:
                latency = outcome.latency.seconds + outcome.latency.nanos / 1e9
                calls[outcome.generator] = (outcome.fan_out, latency)
                tally = self._tally(outcome.generator, decision)
                _discount(tally)
                tally.calls += 1
                tally.filled += outcome.returned / max(outcome.fan_out, 1)
                tally.latency_s += latency
        self._recent[decision.request_id] = calls
        while len(self._recent) > _RECENT_SEARCHES:
            gone, _ = self._recent.popitem(last=False)
            self._found.pop(gone, None)

    def _engagement(self, event: Engagement) -> None:
        decision = event.decision
        if event.reward <= 0:
            return
        user_id = decision.query.user.user_id
        if user_id:
            recent = self._user(user_id).recent
            if event.item_id in recent:
                recent.remove(event.item_id)
            recent.appendleft(event.item_id)
        key = decision.query.normalized
        self._queries[key] = self._queries.get(key, 0.0) + event.reward
        self._queries.move_to_end(key)
        if len(self._queries) > _QUERIES:
            self._queries.popitem(last=False)
        self._credit(event)

    def _credit(self, event: Engagement) -> None:
        decision = event.decision
        root = decision.root_request_id or decision.request_id
        first = root in self._recent and root not in self._found
        shown = next(d for d in decision.displayed if d.item_id == event.item_id)
        found = sorted(p.generator for p in shown.provenance)
        if first:
            self._found[root] = found
        if not first or decision.root_request_id:
            return
        query = decision.query.normalized
        finds = self._finds.setdefault(query, {})
        self._finds.move_to_end(query)
        if len(self._finds) > _RECORDED_QUERIES:
            self._finds.popitem(last=False)
        for name in self._recent[root]:
            hit = name in found
            tally = self._tally(name, decision)
            tally.engaged_calls += 1
            tally.hits += hit
            hits, calls = finds.get(name, (0, 0))
            finds[name] = (hits + hit, calls + 1)

    def _tally(self, generator: str, decision: decision_pb2.Decision) -> _Tally:
        query_class = _CLASSES[decision.query.query_class]
        return self._tallies.setdefault((generator, query_class.value), _Tally())

    def _user(self, user_id: str) -> _User:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User()
            if len(self._users) > _USERS:
                self._users.popitem(last=False)
        self._users.move_to_end(user_id)
        return user


def _discount(tally: _Tally) -> None:
    for name in ("calls", "engaged_calls", "hits", "filled", "latency_s"):
        setattr(tally, name, getattr(tally, name) * _KEEP)

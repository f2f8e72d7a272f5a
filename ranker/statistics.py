"""Engagement rates of items, and what each user engaged with: the projection `ranker.engagement`.

A rate is engagements over *examined* impressions: an impression at position k counts as the
probability that the user looked there (clicks over expected clicks; Zhang & Jones, 2007). That
takes the position bias out. Rates are posterior means that shrink from the special to the
general: (query, item) towards (query class, item) towards item towards all items.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forage.log import EventLog, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.interactions import (
    Engagement,
    Impression,
    InteractionReader,
    examination_probability,
)
from forage.retrieval import Query
from forage.settings import FeedbackSettings
from forage.v1 import query_pb2
from ranker.decayed import Columns, DecayedTable
from ranker.digest import Keys, digest, paired
from ranker.settings import StatisticsSettings

_FORMAT = 1
_DAY_S = 86_400.0
_COLUMNS = ("gain", "loss", "examined")
_ALL = np.array([0], np.uint64)
_CLASSES: dict[int, int] = {
    int(number): digest(name.removeprefix("QUERY_CLASS_").lower())
    for name, number in query_pb2.QueryClass.items()
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Engagement statistics of n items in the context of one query; arrays of shape (n,)."""

    overall: Columns
    """Posterior mean of the reward per examined impression."""
    by_class: Columns
    """The same within the query's class."""
    by_query: Columns
    """The same for this very query."""
    examined: Columns
    """Examined impressions of the item, decayed."""
    examined_by_query: Columns
    """Of the item under this very query."""
    dislike: Columns
    """Posterior mean of the negative reward per examined impression."""


@dataclass(frozen=True, slots=True)
class PastEngagement:
    """One thing a user did."""

    item_id: str
    reward: float
    time: float


class EngagementStatistics:
    """Decayed counts by item, by query class and by query, and the users' histories."""

    name = "ranker.engagement"
    topic = Topic.INTERACTIONS
    streams = (Stream.DECISIONS, Stream.FEEDBACK)

    def __init__(
        self,
        log: EventLog,
        settings: StatisticsSettings,
        feedback: FeedbackSettings,
        data_dir: Path,
    ) -> None:
        """Start empty; the checkpoint belongs to these very settings."""
        self._reader = InteractionReader(log, feedback)
        self._settings = settings
        self._feedback = feedback
        self._lock = threading.Lock()
        self._tables = {
            "items": self._table(settings.max_items),
            "queries": self._table(settings.max_query_items),
        }
        self._users: dict[str, tuple[PastEngagement, ...]] = {}
        made_with = settings.model_dump_json() + feedback.model_dump_json()
        self._file = CheckpointFile(
            data_dir / self.name / "counts",
            name=f"ranker.engagement/{digest(made_with):016x}",
            version=_FORMAT,
        )

    def _table(self, capacity: int) -> DecayedTable:
        half_life = self._settings.half_life_days * _DAY_S
        return DecayedTable(len(_COLUMNS), capacity=capacity, half_life=half_life)

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def rates(self, keys: Keys, query: Query) -> Rates:
        """Return the statistics of the items with these digests, as of the query's time."""
        time = query.time
        with self._lock:
            items, queries = self._tables["items"], self._tables["queries"]
            everything = items.get(_ALL, time)
            item = items.get(keys, time)
            of_class = items.get(paired(keys, digest(query.query_class)), time)
            of_query = queries.get(paired(keys, digest(query.normalized)), time)
        base = self._posterior(everything, np.zeros(1), 0)
        overall = self._posterior(item, base, 0)
        by_class = self._posterior(of_class, overall, 0)
        return Rates(
            overall=overall,
            by_class=by_class,
            by_query=self._posterior(of_query, by_class, 0),
            examined=item[:, 2],
            examined_by_query=of_query[:, 2],
            dislike=self._posterior(item, self._posterior(everything, np.zeros(1), 1), 1),
        )

    def _posterior(self, sums: Columns, prior: Columns, column: int) -> Columns:
        strength = self._settings.prior_examinations
        mean: Columns = (sums[:, column] + strength * prior) / (sums[:, 2] + strength)
        return mean

    def history(self, user_id: str) -> tuple[PastEngagement, ...]:
        """Return what a user engaged with, latest last."""
        with self._lock:
            return self._users.get(user_id, ())

    def apply(self, records: Sequence[Record]) -> None:
        """Count impressions and engagements; see `Projection.apply`."""
        interactions = list(self._reader.read(records))
        with self._lock:
            for interaction in interactions:
                if isinstance(interaction, Impression):
                    self._count_impression(interaction)
                else:
                    self._count_engagement(interaction)

    def _count_impression(self, impression: Impression) -> None:
        displayed = impression.decision.displayed
        if not displayed:
            return
        amounts = np.zeros((len(displayed), len(_COLUMNS)))
        amounts[:, 2] = [examination_probability(d.position, self._feedback) for d in displayed]
        keys = _keys(d.item_id for d in displayed)
        self._add(keys, amounts, impression.decision.query, impression.time)

    def _count_engagement(self, engagement: Engagement) -> None:
        amounts = np.array([[max(engagement.reward, 0.0), max(-engagement.reward, 0.0), 0.0]])
        query = engagement.decision.query
        self._add(_keys([engagement.item_id]), amounts, query, engagement.time)
        if query.user.user_id:
            self._remember(query.user.user_id, engagement)

    def _add(self, keys: Keys, amounts: Columns, query: query_pb2.Query, time: float) -> None:
        items = self._tables["items"]
        items.add(_ALL, amounts.sum(axis=0, keepdims=True), time)
        items.add(keys, amounts, time)
        items.add(paired(keys, _CLASSES.get(query.query_class, 0)), amounts, time)
        if query.normalized:
            self._tables["queries"].add(paired(keys, digest(query.normalized)), amounts, time)

    def _remember(self, user_id: str, engagement: Engagement) -> None:
        past = PastEngagement(engagement.item_id, engagement.reward, engagement.time)
        history = (*self._users.pop(user_id, ()), past)
        self._users[user_id] = history[-self._settings.history_length :]
        if len(self._users) > self._settings.max_users:
            del self._users[next(iter(self._users))]

    def restore(self) -> int:
        """Load the checkpoint; see `Projection.restore`."""
        found = self._file.load()
        if found is None:
            return 0
        sequence, payload = found
        with io.BytesIO(payload) as file, np.load(file, allow_pickle=False) as arrays:
            for name, table in self._tables.items():
                landmark = int(arrays[f"{name}_landmark"][0])
                table.load(arrays[f"{name}_keys"], arrays[f"{name}_sums"], landmark)
            lines = arrays["users"].tobytes().decode().splitlines()
        for line in lines:
            user_id, history = json.loads(line)
            self._users[user_id] = tuple(PastEngagement(*past) for past in history)
        return sequence

    def checkpoint(self, sequence: int) -> None:
        """Save counts and histories; see `Projection.checkpoint`."""
        arrays: dict[str, Any] = {}
        with self._lock:
            for name, table in self._tables.items():
                keys, sums, landmark = table.dump()
                arrays |= {f"{name}_keys": keys, f"{name}_sums": sums}
                arrays[f"{name}_landmark"] = np.array([landmark])
            users = list(self._users.items())
        # One line per user: a single large encoding would hold the interpreter for long.
        lines = (
            json.dumps([user_id, [(p.item_id, p.reward, p.time) for p in history]])
            for user_id, history in users
        )
        arrays["users"] = np.frombuffer("\n".join(lines).encode(), np.uint8)
        with io.BytesIO() as file:
            np.savez(file, **arrays)
            self._file.save(sequence, file.getvalue())

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._file.saved()


def _keys(item_ids: Iterable[str]) -> Keys:
    return np.array([digest(item_id) for item_id in item_ids], np.uint64)

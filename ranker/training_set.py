"""The training set, read from the log alone.

Features are those that were logged when the search was ranked: point in time by construction.
Labels are what users did with the results within the attribution window.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from forage import wire
from forage.log import EventLog, Record, Stream, Topic
from forage.log.interactions import reward
from forage.settings import FeedbackSettings
from forage.v1 import decision_pb2, feedback_service_pb2
from ranker.settings import TrainingSettings

Progress = Callable[[str, float], None]
"""Told (stage, share of it that is done)."""
_BATCH = 1_000


class Unusable(StrEnum):
    """Why a search with feedback cannot be learned from."""

    LATER_PAGE = "later pages, which carry no features"
    NO_FEATURES = "searches recorded without features"
    OTHER_FEATURES = "searches with another feature version"
    TOO_LATE = "searches with feedback only outside the attribution window"


@dataclass(frozen=True, slots=True)
class JudgedDecision:
    """One search with feedback; a row is an item that it showed.

    Items further down were not shown *because* the order then in use had them there; taking them
    for unwanted would teach that order (measured: true nDCG@10 .94 without them, .85 with ten).
    """

    request_id: str
    sequence: int
    time: float
    features: NDArray[np.float32]
    """As served; shape (rows, features)."""
    positions: NDArray[np.int64]
    """Where each row was shown, from 1."""
    rewards: NDArray[np.float64]
    """In [-1, 1]; 0 where there was no feedback."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """All searches that can be learned from, oldest first, and what was left out."""

    decisions: Sequence[JudgedDecision]
    feature_names: tuple[str, ...]
    feature_version: str
    unusable: Mapping[Unusable, int]

    def summary(self) -> str:
        """Return for a person what was found and what was left out."""
        left_out = [f"{number} {why}" for why, number in self.unusable.items() if number]
        found = f"{len(self.decisions)} searches with feedback can be used"
        return found + (f"; left out: {', '.join(left_out)}" if left_out else "")


def read_training_set(
    log: EventLog,
    feedback: FeedbackSettings,
    settings: TrainingSettings,
    progress: Progress,
) -> TrainingSet:
    """Read the newest `max_decisions` usable searches of the newest feature version."""
    judged = _feedback(log, feedback, progress)
    found: deque[tuple[Record, decision_pb2.Decision]] = deque(maxlen=settings.max_decisions)
    unusable: Counter[Unusable] = Counter()
    for record in _records(log, Stream.DECISIONS, "decisions", progress):
        if record.key not in judged:
            continue
        decision = decision_pb2.Decision.FromString(record.payload)
        if decision.root_request_id:
            unusable[Unusable.LATER_PAGE] += 1
        elif not decision.feature_names:
            unusable[Unusable.NO_FEATURES] += 1
        else:
            found.append((record, decision))
    version = found[-1][1].feature_version if found else ""
    names = tuple(found[-1][1].feature_names) if found else ()
    decisions = []
    for record, decision in found:
        if decision.feature_version != version or tuple(decision.feature_names) != names:
            unusable[Unusable.OTHER_FEATURES] += 1
            continue
        rewards = _rewards(judged[record.key], decision, feedback)
        example = _example(record, decision, rewards, len(names))
        if example.rewards.any():
            decisions.append(example)
        else:
            unusable[Unusable.TOO_LATE] += 1
    decisions.sort(key=lambda d: (d.time, d.sequence))
    return TrainingSet(decisions, names, version, unusable)


_Judgement = tuple[str, float, float]


def _feedback(
    log: EventLog, settings: FeedbackSettings, progress: Progress
) -> Mapping[str, list[_Judgement]]:
    """Return (item id, reward, time) of all feedback by request id."""
    judged: defaultdict[str, list[_Judgement]] = defaultdict(list)
    for record in _records(log, Stream.FEEDBACK, "feedback", progress):
        event = feedback_service_pb2.FeedbackEvent.FromString(record.payload)
        judged[event.request_id].append((event.item_id, reward(event, settings), record.time))
    return judged


def _records(log: EventLog, stream: Stream, stage: str, progress: Progress) -> Iterator[Record]:
    head = log.head(Topic.INTERACTIONS)
    after = 0
    while records := log.read(Topic.INTERACTIONS, after, _BATCH, [stream]):
        yield from records
        after = records[-1].sequence
        progress(stage, min(after / max(head, 1), 1.0))
    progress(stage, 1.0)


def _rewards(
    judgements: Sequence[_Judgement],
    decision: decision_pb2.Decision,
    settings: FeedbackSettings,
) -> dict[str, float]:
    """Return each item's best reward, or its worst if none was good."""
    latest = wire.seconds(decision.time) + settings.attribution_window_s
    rewards: dict[str, float] = {}
    for item_id, value, time in judgements:
        known = rewards.get(item_id, 0.0)
        if time <= latest:
            rewards[item_id] = max(known, value) if max(known, value) > 0 else min(known, value)
    return rewards


def _example(
    record: Record,
    decision: decision_pb2.Decision,
    rewards: Mapping[str, float],
    features: int,
) -> JudgedDecision:
    rows = [d for d in decision.displayed if len(d.features) == features]
    return JudgedDecision(
        request_id=record.key,
        sequence=record.sequence,
        time=wire.seconds(decision.time),
        features=np.array([d.features for d in rows], np.float32).reshape(len(rows), features),
        positions=np.array([d.position for d in rows], np.int64),
        rewards=np.array([rewards.get(d.item_id, 0.0) for d in rows]),
    )

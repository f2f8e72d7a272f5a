"""Reading the `interactions` topic: impressions, and engagements joined to their searches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forage.errors import StorageError
from forage.log.interface import EventLog, Record, Stream
from forage.settings import FeedbackSettings
from forage.v1 import decision_pb2, feedback_service_pb2

_REWARDS = {
    feedback_service_pb2.FEEDBACK_KIND_CLICK: "click",
    feedback_service_pb2.FEEDBACK_KIND_PLAY: "play",
    feedback_service_pb2.FEEDBACK_KIND_LIKE: "like",
    feedback_service_pb2.FEEDBACK_KIND_SKIP: "skip",
    feedback_service_pb2.FEEDBACK_KIND_DISLIKE: "dislike",
}


@dataclass(frozen=True, slots=True)
class Impression:
    """One page of results was shown. `decision.displayed` lists them."""

    sequence: int
    time: float
    decision: decision_pb2.Decision


@dataclass(frozen=True, slots=True)
class Engagement:
    """A user did something with one shown result."""

    sequence: int
    time: float
    """When it happened, seconds since the epoch."""
    event_id: str
    item_id: str
    kind: str
    """`click`, `play`, `like`, `skip` or `dislike`."""
    reward: float
    """In [-1, 1]: the kind's weight times the amount."""
    position: int
    """Where the item was shown; starts at 1."""
    decision: decision_pb2.Decision
    """The page that showed it."""


def reward(event: feedback_service_pb2.FeedbackEvent, settings: FeedbackSettings) -> float:
    """Return what an event is worth, in [-1, 1]."""
    amount = event.amount if event.HasField("amount") else 1.0
    weight: float = getattr(settings, _REWARDS[event.kind])
    return weight * amount


def examination_probability(position: int, settings: FeedbackSettings) -> float:
    """Return the chance that a user looked at `position` (from 1), in (0, 1].

    Position-based model with the power-law form of Joachims, Swaminathan & Schnabel (2017).
    """
    return float(position**-settings.examination_decay)


class InteractionReader:
    """Turns records of the `interactions` topic into impressions and engagements.

    Feedback always follows its decision in the log, so the join never has to wait; a small
    cache of decisions keeps it from reading the log for each event of a fresh search.
    """

    def __init__(self, log: EventLog, settings: FeedbackSettings, *, cached: int = 128) -> None:
        self._log = log
        self._settings = settings
        self._cached = cached
        self._decisions: OrderedDict[str, decision_pb2.Decision] = OrderedDict()

    def read(self, records: Sequence[Record]) -> Iterator[Impression | Engagement]:
        """Yield what the records say, in order; raises `StorageError` if a decision is missing."""
        for record in records:
            if record.stream is Stream.DECISIONS:
                decision = decision_pb2.Decision.FromString(record.payload)
                self._remember(decision)
                yield Impression(record.sequence, record.time, decision)
            elif record.stream is Stream.FEEDBACK:
                yield self._engagement(record)

    def _engagement(self, record: Record) -> Engagement:
        event = feedback_service_pb2.FeedbackEvent.FromString(record.payload)
        decision = self._decision(event.request_id)
        position = next(d.position for d in decision.displayed if d.item_id == event.item_id)
        return Engagement(
            sequence=record.sequence,
            time=record.time,
            event_id=event.event_id,
            item_id=event.item_id,
            kind=_REWARDS[event.kind],
            reward=reward(event, self._settings),
            position=position,
            decision=decision,
        )

    def _decision(self, request_id: str) -> decision_pb2.Decision:
        known = self._decisions.get(request_id)
        if known is not None:
            return known
        record = self._log.get(Stream.DECISIONS, request_id)
        if record is None:
            raise StorageError(f"the log has feedback for '{request_id}' but not its decision")
        decision = decision_pb2.Decision.FromString(record.payload)
        self._remember(decision)
        return decision

    def _remember(self, decision: decision_pb2.Decision) -> None:
        self._decisions[decision.request_id] = decision
        while len(self._decisions) > self._cached:
            self._decisions.popitem(last=False)

"""The event log: the one source of truth. Every index, posterior and count is a projection of it.

Three streams live in two ordered *topics*: `catalog` (compacted: only the latest record of a key
is kept) and `interactions` (the streams `decisions` and `feedback`, which share one order, so that
replay is exact). Sequences grow within a topic; never compare sequences of two topics.

The interface is what a SQLite file and a NATS JetStream server can both promise (ADR-0003):
append is durable when it returns, reads are in order, delivery is at least once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """A totally ordered part of the log."""

    CATALOG = "catalog"
    INTERACTIONS = "interactions"


class Stream(StrEnum):
    """A kind of record."""

    CATALOG = "catalog"
    """Key: item id. Payload: `forage.v1.CatalogRecord`. Compacted by key."""
    DECISIONS = "decisions"
    """Key: request id. Payload: `forage.v1.Decision`. One per search."""
    FEEDBACK = "feedback"
    """Key: event id. Payload: `forage.v1.FeedbackEvent`. One per event; duplicates refused."""

    @property
    def topic(self) -> Topic:
        """The topic whose order this stream shares."""
        return Topic.CATALOG if self is Stream.CATALOG else Topic.INTERACTIONS


@dataclass(frozen=True, slots=True)
class Event:
    """A record to append."""

    stream: Stream
    key: str
    payload: bytes
    time: float
    """Seconds since the epoch when the thing happened, which may be before it was appended."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Such as `traceparent` (W3C Trace Context)."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event that is durable, with its place in its topic (sequences start at 1)."""

    sequence: int
    stream: Stream
    key: str
    payload: bytes
    time: float
    headers: Mapping[str, str] = field(default_factory=dict)


class EventLog(Protocol):
    """Appends and reads records. Safe to use from several threads and several processes.

    Every method may raise `StorageError` (disk full, read-only, server gone).
    """

    def append(self, events: Sequence[Event]) -> list[int]:
        """Append events of one topic atomically and return their sequences, in order.

        When it returns, the events survive a crash of the process and of the machine. An event
        of `decisions` or `feedback` whose (stream, key) is already present is not appended
        again; its existing sequence is returned in its place, which makes retries idempotent.
        """
        ...

    def read(
        self, topic: Topic, after: int, limit: int, streams: Sequence[Stream] = ()
    ) -> list[Record]:
        """Return up to `limit` records with sequence > `after`, in order.

        `streams` narrows to those streams of the topic; empty means all of them.
        """
        ...

    def head(self, topic: Topic) -> int:
        """Return the last sequence ever given out in the topic; 0 if it is empty."""
        ...

    def get(self, stream: Stream, key: str) -> Record | None:
        """Return the latest record with this key, or None."""
        ...

    def wait(self, topic: Topic, after: int, timeout: float) -> bool:
        """Block until the topic's head is beyond `after`, or `timeout` seconds have passed.

        Return whether it is.
        """
        ...

    def close(self) -> None:
        """Release files and connections. Closing twice is harmless."""
        ...

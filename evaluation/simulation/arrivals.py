"""A log in memory, and events on their way to it: searches at once, feedback when it arrives."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from forage.log import Event, Record, Stream, Topic


class MemoryLog:
    """The event log of one simulation: what projections may look up, held in memory."""

    def __init__(self) -> None:
        self._records: dict[Topic, list[Record]] = {topic: [] for topic in Topic}
        self._latest: dict[tuple[Stream, str], Record] = {}

    def append(self, events: Sequence[Event]) -> list[int]:
        """Append events and return their sequences; see `EventLog.append`."""
        return [self.add(event).sequence for event in events]

    def add(self, event: Event) -> Record:
        """Append one event and return its record."""
        sequence = self.head(event.stream.topic) + 1
        record = Record(sequence, event.stream, event.key, event.payload, event.time)
        self.keep(record)
        return record

    def keep(self, record: Record) -> None:
        """Take in a record as another log has it."""
        self._records[record.stream.topic].append(record)
        self._latest[record.stream, record.key] = record

    def read(
        self, topic: Topic, after: int, limit: int, streams: Sequence[Stream] = ()
    ) -> list[Record]:
        """Return records in order; see `EventLog.read`."""
        wanted = (
            r
            for r in self._records[topic]
            if r.sequence > after and (not streams or r.stream in streams)
        )
        return list(itertools.islice(wanted, limit))

    def head(self, topic: Topic) -> int:
        """Return the last sequence given out; see `EventLog.head`."""
        records = self._records[topic]
        return records[-1].sequence if records else 0

    def get(self, stream: Stream, key: str) -> Record | None:
        """Return the latest record with this key; see `EventLog.get`."""
        return self._latest.get((stream, key))

    def wait(self, topic: Topic, after: int, timeout: float) -> bool:
        """Return whether there is more already: nobody else writes, so waiting would not help."""
        return self.head(topic) > after

    def close(self) -> None:
        """There is nothing to release."""


class Arrivals:
    """Events that are not in the log yet, by the time at which they will be."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._waiting: list[tuple[float, int, tuple[Event, ...]]] = []
        self._added = itertools.count()

    def add(self, time: float, *events: Event) -> None:
        """Let events arrive at `time`; what arrives at one time keeps its order."""
        heapq.heappush(self._waiting, (time, next(self._added), events))

    def until(self, now: float) -> list[Record]:
        """Put what has arrived by now into the log, and return it as the log has it."""
        records: list[Record] = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, events = heapq.heappop(self._waiting)
            records += [self._log.add(event) for event in events]
        return records

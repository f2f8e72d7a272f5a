"""What traffic costs those who learn from it: every replica of a service follows every record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.probe import Figures, running
from forage.log import Event, EventLog, Record, Stream, Topic
from forage.log.sqlite import SqliteEventLog
from forage.v1 import decision_pb2, feedback_service_pb2

FOLLOWERS = ("orchestrator", "memory", "graph", "exploration", "ranker")
_PAGE = 500
_PAUSE_S = 20.0


def follow(config: Path, data: Path, *, records: int, limit_s: float) -> Figures:
    """Start each service twice on a copy of `data`, the second time with more traffic to take in.

    The traffic is that of the log again, under new request ids, until there are about `records`
    more of it. Returns the processor time and memory that one more search costs each service.
    """
    copy = data.with_name("followed")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("telemetry", "logs", "semantic"))
    try:
        before = {name: _started(name, config, copy, limit_s) for name in FOLLOWERS}
        searches, added = _repeat(copy / "log.db", records)
        after = {name: _started(name, config, copy, limit_s) for name in FOLLOWERS}
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return {
        "searches": searches,
        "records": added,
        "cpu_ms": {n: (after[n][0] - before[n][0]) / searches * 1e3 for n in FOLLOWERS},
        "kb": {n: (after[n][1] - before[n][1]) / searches * 1024 for n in FOLLOWERS},
        "load": os.getloadavg()[0],
    }


def _started(name: str, config: Path, data: Path, limit_s: float) -> tuple[float, float]:
    """Return the processor time of a start, and the memory after it."""
    with running(name, config, data, limit_s=limit_s) as found:
        return found.at_start.cpu_s, found.at_start.pss_mb


def _repeat(file: Path, records: int) -> tuple[int, int]:
    """Append the interactions again and again; return (searches, records) appended."""
    log = SqliteEventLog.open(file)
    try:
        recorded = list(_read(log))
        # Searches wait for feedback in the log's own time, so that has to go on.
        span = recorded[-1].time - recorded[0].time + _PAUSE_S if recorded else 0.0
        searches = added = 0
        for repetition in range(1, max(1, records // max(1, len(recorded))) + 1):
            events = [_repeated(record, repetition, span) for record in recorded]
            for start in range(0, len(events), _PAGE):
                log.append(events[start : start + _PAGE])
            searches += sum(event.stream is Stream.DECISIONS for event in events)
            added += len(events)
        return searches, added
    finally:
        log.close()


def _read(log: EventLog) -> Iterator[Record]:
    after = 0
    while records := log.read(Topic.INTERACTIONS, after, _PAGE):
        yield from records
        after = records[-1].sequence


def _repeated(record: Record, repetition: int, span: float) -> Event:
    suffix, time = f"-{repetition}", record.time + repetition * span
    if record.stream is Stream.DECISIONS:
        decision = decision_pb2.Decision.FromString(record.payload)
        decision.request_id += suffix
        if decision.root_request_id:
            decision.root_request_id += suffix
        key, payload = decision.request_id, decision.SerializeToString()
    else:
        event = feedback_service_pb2.FeedbackEvent.FromString(record.payload)
        event.event_id += suffix
        event.request_id += suffix
        key, payload = event.event_id, event.SerializeToString()
    return Event(record.stream, key, payload, time, record.headers)

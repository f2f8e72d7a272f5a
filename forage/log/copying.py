"""Copies a log and a registry to another engine, and proves that they are the same.

Sequences are kept, so every projection, checkpoint and policy snapshot goes on from where it was;
and so the target's head says how far an interrupted copy has come. Where compaction has left a
hole in the catalogue, the record of a reserved key takes its place and is compacted itself.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forage.errors import ConflictError, FailedPreconditionError
from forage.log.interface import Event, EventLog, Record, Stream, Topic
from forage.log.snapshots import PREFIX
from forage.registry import Registry
from forage.v1 import item_pb2

HOLE = "\x01hole"
"""The reserved key: no item has it, for item ids have no control characters."""
_BATCH = 500
_BATCH_BYTES = 4 * 2**20
_PLACE = struct.Struct(">Qd")

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how many sequences are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a topic holds, up to a sequence."""

    counts: dict[str, int]
    """Records by stream."""
    digest: str
    """SHA-256 of all records in order, their sequences included, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class CopiedTopic:
    """One topic of a finished copy; source and target were found to be equal."""

    topic: Topic
    head: int
    resumed_at: int
    """The sequence up to which an earlier run had come; 0 if this was the first."""
    content: Content


def copy_log(
    source: EventLog,
    target: EventLog,
    *,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> list[CopiedTopic]:
    """Copy every record to an empty target, or to one that an earlier run has begun.

    Nobody else may write to either meanwhile. Raises `FailedPreconditionError` if the target has
    something else, or the source has forgotten interactions; `ConflictError` if somebody else
    writes; `StorageError` if either fails, after which the same copy goes on.
    """
    copied = []
    for topic in Topic:
        head, begun = source.head(topic), target.head(topic)
        resumed_at = begun
        _check_same(source, target, topic, head, begun)
        for events in _batches(_events(source, topic, begun, head)):
            first = begun + 1
            begun += len(events)
            if target.append(events) != list(range(first, begun + 1)):
                raise ConflictError(
                    f"somebody else writes to topic '{topic}' of the target, or it has some of"
                    " these records already; copy to an empty log that no service uses"
                )
            on_progress(f"copy {topic}", begun, head)
        equal = _verified(source, target, topic, head, on_progress)
        copied.append(CopiedTopic(topic, head, resumed_at, equal))
    return copied


def copy_registry(
    source: Registry,
    target: Registry,
    *,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, int]:
    """Copy all versions, with their numbers, and make the same ones current.

    Snapshots of projections are left out: the target's services make their own. What the target
    has already is kept, so that a copy can be repeated. Returns how many versions the target has
    of each kind. Raises `ConflictError` if a version of the target is another one.
    """
    copied = {}
    for kind in source.kinds():
        if kind.startswith(PREFIX):
            continue
        versions = sorted(source.history(kind), key=lambda info: info.version)
        for done, info in enumerate(versions, 1):
            target.adopt(*source.load(kind, info.version))
            on_progress(f"copy {kind} registry", done, len(versions))
        found = {info.version: info.sha256 for info in target.history(kind)}
        for info in versions:
            if found.get(info.version) != info.sha256:
                raise ConflictError(
                    f"the target has another {kind} version {info.version}; copy to an empty one"
                )
        current, theirs = source.current(kind), target.current(kind)
        if current is not None and (theirs is None or theirs.version != current.version):
            expected = None if theirs is None else theirs.version
            target.set_current(kind, current.version, expected=expected)
        copied[kind] = len(found)
    return copied


def content(
    log: EventLog, topic: Topic, until: int, *, on_progress: Callable[[int], None] = lambda at: None
) -> Content:
    """Return the counts and the digest of a topic's records up to a sequence."""
    counts = {stream.value: 0 for stream in Stream if stream.topic is topic}
    digest = hashlib.sha256()
    for record in _records(log, topic, 0, until):
        counts[record.stream] += 1
        for part in _parts(record):
            digest.update(part)
        on_progress(record.sequence)
    return Content(counts, digest.hexdigest())


def _verified(
    source: EventLog, target: EventLog, topic: Topic, head: int, on_progress: OnProgress
) -> Content:
    def show(done: int) -> None:
        on_progress(f"verify {topic}", done, head)

    wanted = content(source, topic, head)
    found = content(target, topic, head, on_progress=show)
    if found != wanted or source.head(topic) != head:
        raise ConflictError(
            f"topic '{topic}' differs: the source has {wanted.counts} up to sequence {head} with"
            f" digest {wanted.digest}, the target {found.counts} with {found.digest}; was the"
            " source written to meanwhile? stop its services and copy to an empty log"
        )
    show(head)
    return wanted


def _check_same(source: EventLog, target: EventLog, topic: Topic, head: int, begun: int) -> None:
    """Refuse, before anything is written, a target that is not the beginning of the source."""
    if begun > head:
        raise FailedPreconditionError(
            f"topic '{topic}' of the target ends at {begun}, the source at {head}: the target is"
            " not an unfinished copy of the source"
        )
    theirs = {r.sequence: r for r in target.read(topic, max(0, begun - _BATCH), _BATCH)}
    for record in _records(source, topic, max(0, begun - _BATCH), begun):
        if theirs.get(record.sequence) != record:
            raise FailedPreconditionError(
                f"topic '{topic}' of the target differs from the source at sequence"
                f" {record.sequence}: the target is not an unfinished copy of the source"
            )


def _records(log: EventLog, topic: Topic, after: int, until: int) -> Iterator[Record]:
    """Yield the records in (after, until], without those that stand for holes."""
    while records := log.read(topic, after, _BATCH):
        for record in records:
            if record.sequence > until:
                return
            if record.key != HOLE:
                yield record
        after = records[-1].sequence


def _events(log: EventLog, topic: Topic, after: int, until: int) -> Iterator[Event]:
    """Yield one event for every sequence in (after, until]."""
    for record in _records(log, topic, after, until):
        yield from _holes(topic, after + 1, record.sequence)
        yield Event(record.stream, record.key, record.payload, record.time, record.headers)
        after = record.sequence
    yield from _holes(topic, after + 1, until + 1)


def _holes(topic: Topic, first: int, end: int) -> Iterator[Event]:
    if first < end and topic is not Topic.CATALOG:
        raise FailedPreconditionError(
            f"the source has forgotten sequences {first} to {end - 1} of topic '{topic}'"
            " (nats.interactions_max_age_days); a log that has forgotten cannot be copied with its"
            " sequences"
        )
    payload = item_pb2.CatalogRecord(delete_item_id=HOLE).SerializeToString()
    for _ in range(first, end):
        yield Event(Stream.CATALOG, HOLE, payload, 0.0)


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in events:
        if batch and (len(batch) == _BATCH or size + len(event.payload) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event.payload)
    if batch:
        yield batch


def _parts(record: Record) -> Sequence[bytes]:
    described = json.dumps([record.stream, record.key, dict(record.headers)], sort_keys=True)
    return (
        _PLACE.pack(record.sequence, record.time),
        described.encode(),
        len(record.payload).to_bytes(8, "big"),
        record.payload,
    )

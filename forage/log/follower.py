"""The follower keeps projections up to date with the log, each on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from forage.errors import UnavailableError
from forage.log.interface import EventLog, Topic
from forage.log.projection import Projection
from forage.log.snapshot_publisher import SnapshotPublisher
from forage.log.snapshots import IndexSnapshots
from forage.log.tail import Callbacks, Pace, Tail
from forage.retrieval import Deadline

_ANSWER_RESERVE_S = 0.01
_UPLOAD_S = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """How far one projection is, and what holds it up."""

    name: str
    topic: Topic
    applied: int
    """The sequence up to which readers see the topic."""
    head: int
    """The topic's last sequence."""
    lag: int
    """Sequences between the two; 0 when up to date."""
    ready: bool
    """Whether it has reached the head that was seen at start."""
    rebuilding: bool
    """Whether it is replaying the topic from its beginning, having had no durable state."""
    last_error: str
    """Why it is not getting on (or cannot save its state); empty when all is well."""


class Follower:
    """Applies the log to projections, checkpoints them, and tells how far they are.

    A projection never loses a record to an error: one that cannot be applied holds its projection
    up, is retried with backoff and named in the status, while the other projections go on. After
    an exception `apply` is given the same records again, so it should take in all or nothing. An
    `UnavailableError` that is no `StorageError` says that it waits for another process: that is no
    failure, and logged as a warning once a minute.
    """

    def __init__(
        self,
        log: EventLog,
        projections: Sequence[Projection],
        *,
        batch: int = 1000,
        checkpoint_every_s: float = 10.0,
        checkpoint_every_records: int = 20_000,
        linger_s: float = 0.2,
        snapshots: IndexSnapshots | None = None,
    ) -> None:
        """Prepare to follow; nothing is read before `start`.

        A batch has at most `batch` records. State is made durable when either of the two limits
        is reached. New interactions are left to gather for `linger_s` before they are read, once
        the projection is up to date. With `snapshots`, projections without state start from one,
        and new ones are published.
        """
        self._log = log
        self._progress = threading.Condition()
        self._stopping = threading.Event()
        self.caught_up = threading.Event()
        """Set once every projection has reached the head that was seen at start."""
        if batch < 1:
            raise ValueError(f"batch is {batch}, must be at least 1")
        pace = Pace(batch, checkpoint_every_s, checkpoint_every_records, linger_s)
        callbacks = Callbacks(self._stopping, self._report_progress)
        self._tails = {p.name: Tail(log, p, pace, callbacks) for p in projections}
        if len(self._tails) != len(projections):
            raise ValueError(f"projection names repeat: {[p.name for p in projections]}")
        self._snapshots = snapshots
        self._publisher = (
            None if snapshots is None else SnapshotPublisher(snapshots, [*self._tails.values()])
        )

    def start(self) -> None:
        """Restore every projection, then follow on daemon threads.

        Raises `StartupError` if a projection is ahead of the log, which means that the log was
        replaced; other errors of `restore` are passed on.
        """
        for tail in self._tails.values():
            tail.restore(self._snapshots)
        self._report_progress()
        for tail in self._tails.values():
            tail.start()
        if self._publisher is not None:
            self._publisher.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish the batches at hand, make all state durable, and end the threads."""
        deadline = Deadline.after(timeout_s)
        if self._publisher is not None:
            self._publisher.stop(min(_UPLOAD_S, timeout_s))
        self._stopping.set()
        self._report_progress()
        for name, tail in self._tails.items():
            if tail.is_alive():
                tail.join(max(0.0, deadline.remaining()))
            if tail.is_alive():
                _logger.error("projection %s did not stop within %.0f s", name, timeout_s)

    def applied(self, name: str) -> int:
        """Return the sequence up to which the named projection's readers see its topic."""
        return self._tails[name].applied

    def wait_for(self, topic: Topic, sequence: int, deadline: Deadline) -> None:
        """Block until every projection of `topic` has applied `sequence`.

        Raises `UnavailableError` naming the first projection that has not, shortly before the
        deadline so that the caller can still answer, or at once when the follower has stopped.
        """
        tails = [t for t in self._tails.values() if t.projection.topic is topic]
        with self._progress:
            while behind := next((t for t in tails if t.applied < sequence), None):
                remaining = deadline.remaining() - _ANSWER_RESERVE_S
                if remaining <= 0 or self._stopping.is_set():
                    raise _behind(behind, sequence)
                self._progress.wait(min(remaining, 60.0))

    def status(self) -> list[ProjectionStatus]:
        """Return the state of every projection; raises `StorageError` if the log is unreadable."""
        # Heads are read after `applied`, so that a lag is never negative.
        applied = {name: tail.applied for name, tail in self._tails.items()}
        heads = {topic: self._log.head(topic) for topic in Topic}
        return [
            ProjectionStatus(
                name=name,
                topic=tail.projection.topic,
                applied=applied[name],
                head=heads[tail.projection.topic],
                lag=max(0, heads[tail.projection.topic] - applied[name]),
                ready=tail.ready,
                rebuilding=tail.rebuilding,
                last_error=tail.last_error,
            )
            for name, tail in self._tails.items()
        ]

    def _report_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()
        if all(tail.ready for tail in self._tails.values()):
            self.caught_up.set()


def _behind(tail: Tail, wanted: int) -> UnavailableError:
    because = f" ({tail.last_error})" if tail.last_error else ""
    return UnavailableError(
        f"projection '{tail.projection.name}' has applied sequence {tail.applied} of topic"
        f" '{tail.projection.topic}', not yet {wanted}{because}",
        metadata={
            "projection": tail.projection.name,
            "applied": str(tail.applied),
            "wanted": str(wanted),
        },
    )

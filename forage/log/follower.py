"""The follower keeps projections up to date with the log, each on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forage.errors import StartupError, StorageError, UnavailableError
from forage.log.interface import EventLog, Record, Topic
from forage.log.projection import Projection
from forage.retrieval import Deadline

_WAIT_S = 0.25
_LINGER_S = 0.2
_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_ANSWER_RESERVE_S = 0.01
_logger = logging.getLogger(__name__)

OnError = Callable[[str, Exception], None]


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


@dataclass(frozen=True, slots=True)
class _Pace:
    batch: int
    checkpoint_every_s: float
    checkpoint_every_records: int


@dataclass(frozen=True, slots=True)
class _Callbacks:
    stopping: threading.Event
    on_progress: Callable[[], None]
    on_error: OnError


class Follower:
    """Applies the log to projections, checkpoints them, and tells how far they are.

    A projection never loses a record to an error: one that cannot be applied holds its projection
    up, is retried with backoff and named in the status, while the other projections go on. After
    an exception `apply` is given the same records again, so it should take in all or nothing.
    """

    def __init__(
        self,
        log: EventLog,
        projections: Sequence[Projection],
        *,
        batch: int = 1000,
        checkpoint_every_s: float = 2.0,
        checkpoint_every_records: int = 20_000,
        on_error: OnError = lambda name, error: None,
    ) -> None:
        """Prepare to follow; nothing is read before `start`.

        A batch has at most `batch` records. State is made durable when either of the two limits
        is reached. `on_error` is told (projection name, error) of every failure, on the
        projection's thread; it must not raise.
        """
        self._log = log
        self._progress = threading.Condition()
        self._stopping = threading.Event()
        self.caught_up = threading.Event()
        """Set once every projection has reached the head that was seen at start."""
        if batch < 1:
            raise ValueError(f"batch is {batch}, must be at least 1")
        pace = _Pace(batch, checkpoint_every_s, checkpoint_every_records)
        callbacks = _Callbacks(self._stopping, self._report_progress, on_error)
        self._tails = {p.name: _Tail(log, p, pace, callbacks) for p in projections}
        if len(self._tails) != len(projections):
            raise ValueError(f"projection names repeat: {[p.name for p in projections]}")

    def start(self) -> None:
        """Restore every projection, then follow on daemon threads.

        Raises `StartupError` if a projection is ahead of the log, which means that the log was
        replaced; other errors of `restore` are passed on.
        """
        for tail in self._tails.values():
            tail.restore()
        self._report_progress()
        for tail in self._tails.values():
            tail.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish the batches at hand, make all state durable, and end the threads."""
        self._stopping.set()
        self._report_progress()
        deadline = Deadline.after(timeout_s)
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


class _Tail(threading.Thread):
    """Follows the log for one projection."""

    def __init__(
        self, log: EventLog, projection: Projection, pace: _Pace, callbacks: _Callbacks
    ) -> None:
        super().__init__(name=f"follow-{projection.name}", daemon=True)
        self.projection = projection
        self.applied = 0
        self.ready = False
        self.rebuilding = False
        self._log = log
        self._pace = pace
        self._callbacks = callbacks
        self._target = 0
        self._size = pace.batch
        self._durable = 0
        self._changed = False
        self._checkpoint_from = 0.0
        self._checkpoint_at = 0.0
        self._apply_error = ""
        self._checkpoint_error = ""

    @property
    def last_error(self) -> str:
        return self._apply_error or self._checkpoint_error

    def restore(self) -> None:
        self.applied = self._durable = self.projection.restore()
        self._target = self._log.head(self.projection.topic)
        if self.applied > self._target:
            raise StartupError(
                f"projection '{self.projection.name}' includes sequence {self.applied} of topic"
                f" '{self.projection.topic}', which ends at {self._target}: its state belongs to"
                " another log; delete the projection's folder to have it rebuilt"
            )
        self.ready = self.applied >= self._target
        self.rebuilding = self.applied == 0 and not self.ready

    def run(self) -> None:
        self._checkpoint_at = time.monotonic() + self._pace.checkpoint_every_s
        backoff = _FIRST_BACKOFF_S
        while not self._callbacks.stopping.is_set():
            try:
                self._advance()
                backoff = _FIRST_BACKOFF_S
            except Exception as error:
                self._apply_error = self._failed(error, self._apply_error)
                # A smaller batch finds the record at fault, unless it is the disk's fault.
                if self._size == 1 or isinstance(error, StorageError):
                    self._callbacks.stopping.wait(backoff)
                    backoff = min(2 * backoff, _LAST_BACKOFF_S)
                else:
                    self._size = max(1, self._size // 4)
            self._checkpoint_if_due()
        self._checkpoint()

    def _advance(self) -> None:
        """Take in one batch, or wait a little for there to be one."""
        log, topic = self._log, self.projection.topic
        if not log.wait(topic, self.applied, _WAIT_S):
            return
        if self.ready and topic is Topic.INTERACTIONS:
            # Nobody waits for these; a few together cost one wake-up instead of many.
            self._callbacks.stopping.wait(_LINGER_S)
        # The head is read first: whatever is up to it and not among the records read is not
        # for this projection, so it counts as applied.
        head = log.head(topic)
        records = log.read(topic, self.applied, self._size, self.projection.streams)
        if records:
            self._apply(records)
        last = records[-1].sequence if records else 0
        self.applied = last if len(records) == self._size else max(head, last)
        self._size = min(2 * self._size, self._pace.batch)
        self._apply_error = ""
        if self.applied >= self._target:
            self.ready, self.rebuilding = True, False
        self._callbacks.on_progress()

    def _apply(self, records: Sequence[Record]) -> None:
        try:
            self.projection.apply(records)
        except Exception as error:
            first, last = records[0], records[-1]
            error.add_note(
                f"applying {first.stream} '{first.key}' (sequence {first.sequence})"
                if len(records) == 1
                else f"applying sequences {first.sequence} to {last.sequence}"
            )
            raise
        self._changed = True

    def _checkpoint_if_due(self) -> None:
        now = time.monotonic()
        due = self._changed and now >= self._checkpoint_at
        full = self.applied - self._durable >= self._pace.checkpoint_every_records
        if due or (full and now >= self._checkpoint_from):
            self._checkpoint()

    def _checkpoint(self) -> None:
        if self.applied == self._durable:
            return
        began = time.monotonic()
        sequence = self.applied
        try:
            self.projection.checkpoint(sequence)
        except Exception as error:
            self._checkpoint_error = self._failed(error, self._checkpoint_error)
            retry = self._pace.checkpoint_every_s
        else:
            self._durable, self._changed = sequence, False
            self._checkpoint_error = ""
            retry = 0.0
        now = time.monotonic()
        # State that is slow to save must not take more than a tenth of the projection's time.
        self._checkpoint_from = now + max(retry, 9 * (now - began))
        self._checkpoint_at = max(now + self._pace.checkpoint_every_s, self._checkpoint_from)

    def _failed(self, error: Exception, before: str) -> str:
        """Log and report a failure; return the text for the status."""
        notes = getattr(error, "__notes__", [])
        text = "; ".join([f"{type(error).__name__}: {error}", *notes])
        if text == before:
            _logger.warning("projection %s still fails: %s", self.projection.name, text)
        else:
            _logger.error("projection %s: %s", self.projection.name, text, exc_info=error)
        self._callbacks.on_error(self.projection.name, error)
        return text


def _behind(tail: _Tail, wanted: int) -> UnavailableError:
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

"""One projection's thread: it reads the log, applies it, and makes the state durable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from forage.errors import ForageError, StartupError, StorageError, UnavailableError
from forage.log.interface import EventLog, Record, Topic
from forage.log.projection import Projection
from forage.log.snapshots import IndexSnapshots

_WAIT_S = 0.25
_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_SAY_WAITING_S = 60.0
_logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is taken in at once, and how often state is made durable; see `Follower`."""

    batch: int
    checkpoint_every_s: float
    checkpoint_every_records: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a tail hears of, and tells."""

    stopping: threading.Event
    on_progress: Callable[[], None]


class Tail(threading.Thread):
    """Follows the log for one projection."""

    def __init__(
        self, log: EventLog, projection: Projection, pace: Pace, callbacks: Callbacks
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
        self._say_waiting_at = 0.0
        self._errands: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()

    @property
    def last_error(self) -> str:
        """Why it is not getting on, or cannot save its state; empty when all is well."""
        return self._apply_error or self._checkpoint_error

    def restore(self, snapshots: IndexSnapshots | None) -> None:
        """Load the projection's state, or first that of a snapshot; see `Follower.start`."""
        copied = 0 if snapshots is None else snapshots.install(self.projection)
        self.applied = self._durable = self.projection.restore()
        if self.applied < copied:
            _logger.warning(
                "projection %s cannot use the snapshot that was copied for it: it is built from"
                " the log",
                self.projection.name,
            )
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
        """Follow until told to stop."""
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
            self._run_errands()
        self._checkpoint()
        self._run_errands()

    def between_batches(self, work: Callable[[], T]) -> Future[T]:
        """Have this thread make its state durable and then do some work; see `Followed`."""
        done: Future[T] = Future()
        self._errands.put((done, work))
        return done

    def _run_errands(self) -> None:
        while True:
            try:
                done, work = self._errands.get_nowait()
            except Empty:
                return
            if not done.set_running_or_notify_cancel():
                continue
            self._checkpoint()
            try:
                if self.last_error:
                    raise StorageError(f"{self.projection.name} is held up: {self.last_error}")
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

    def _advance(self) -> None:
        """Take in one batch, or wait a little for there to be one."""
        log, topic = self._log, self.projection.topic
        if not log.wait(topic, self.applied, _WAIT_S):
            return
        if self.ready and topic is Topic.INTERACTIONS:
            # Nobody waits for these; a few together cost one wake-up instead of many.
            self._callbacks.stopping.wait(self._pace.linger_s)
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
        # Saving takes at most a tenth of the projection's time while it catches up, and a fiftieth
        # when it serves: a restart takes in far more records a second than ever come.
        took = now - began
        self._checkpoint_from = now + max(retry, 9 * took)
        self._checkpoint_at = now + max(self._pace.checkpoint_every_s, 49 * took)

    def _failed(self, error: Exception, before: str) -> str:
        """Log a failure; return the text for the status."""
        notes = getattr(error, "__notes__", [])
        text = "; ".join([f"{type(error).__name__}: {error}", *notes])
        if isinstance(error, UnavailableError) and not isinstance(error, StorageError):
            # Waiting for another process is expected, and may take thousands of attempts.
            if time.monotonic() >= self._say_waiting_at:
                _logger.warning("projection %s waits: %s", self.projection.name, error)
                self._say_waiting_at = time.monotonic() + _SAY_WAITING_S
        elif text == before:
            _logger.warning("projection %s still fails: %s", self.projection.name, text)
        else:
            defect = None if isinstance(error, ForageError) else error
            _logger.error("projection %s: %s", self.projection.name, text, exc_info=defect)
        return text

"""A collection on a server, which several processes search and one at a time writes.

The position up to which the collection has the catalogue is noted at the collection itself, when
everybody sees its rows. Serving processes report that position as theirs. Whoever holds the lease
writes, from that position on and by reading the log itself, so it does not matter who wrote before.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forage.errors import StartupError, UnavailableError
from forage.lease import Lease
from forage.log import EventLog, Record, Stream, Topic
from generators.semantic.projection import NAME, Indexer, Items
from generators.semantic.store import MilvusStore, State

_LEASE_S = 10.0
_WAIT_S = 3.0
_POLL_S = 0.05
_SETTLE_S = 1.0
"""How often a long write waits to be seen by searches, and notes its position."""
_PAGE = 250
"""Records between two renewals of the lease; embedding them takes a second or less."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Writing:
    """What a process needs that may write."""

    indexer: Indexer
    lease: Lease


class SharedProjection:
    """Follows a shared collection, and writes it while this process holds the lease."""

    name = NAME
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(
        self, log: EventLog, store: MilvusStore, items: Items, writing: Writing | None
    ) -> None:
        """Follow; write only if `writing` is given."""
        self._log = log
        self._store = store
        self._items = items
        self._writing = writing
        self._lease = f"{NAME}.{store.fingerprint}"
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"

    def restore(self) -> int:
        """Connect and return the collection's position; 0 if there is no collection yet.

        Raises `StartupError` if the server or the collection cannot be used, or if the collection
        was filled from another log.
        """
        if not self._store.open() and self._leads():
            self._store.create()
        state = self._store.state() or State()
        head = self._log.head(self.topic)
        if state.sequence > head:
            raise StartupError(
                f"milvus.collection: '{self._store.collection.name}' has the catalogue up to"
                f" sequence {state.sequence}, and the log (log_url) ends at {head}: it was filled"
                " from another log. Drop it to have it filled anew, or set milvus.collection to"
                " another name"
            )
        self._items.changed((), state)
        return state.sequence

    def apply(self, records: Sequence[Record]) -> None:
        """Return when the collection has the records, whoever writes them.

        Raises `UnavailableError` if that takes longer than some seconds; the follower tries again.
        """
        wanted = records[-1].sequence
        end = time.monotonic() + _WAIT_S
        while True:
            state = self._store.state()
            if state is not None and state.sequence >= wanted:
                self._items.changed([record.key for record in records], state)
                return
            if self._leads():
                self._write(state, wanted)
            elif time.monotonic() >= end:
                reached = 0 if state is None else state.sequence
                raise UnavailableError(
                    f"the collection has come to sequence {reached}, not yet {wanted}:"
                    " waiting for the process that writes it (role: index or both)"
                )
            else:
                time.sleep(_POLL_S)

    def checkpoint(self, sequence: int) -> None:
        """Do nothing: the position is kept with the collection."""

    def close(self) -> None:
        """Give the lease back, so that another need not wait for it to expire."""
        if self._writing is not None:
            self._writing.lease.release(self._lease, self._holder)

    def _leads(self) -> bool:
        writing = self._writing
        return writing is not None and writing.lease.acquire(self._lease, self._holder, _LEASE_S)

    def _write(self, state: State | None, wanted: int) -> None:
        """Write from the collection's position to `wanted`, as long as the lease is ours."""
        assert self._writing is not None
        if state is None:
            _logger.info("semantic: making the collection %s", self._store.collection.name)
            self._store.create()
            state = self._store.state() or State()
        saved, written, changed = state, state, list[str]()
        settle_at = time.monotonic() + _SETTLE_S
        while written.sequence < wanted:
            records = self._log.read(self.topic, written.sequence, _PAGE, self.streams)
            if records:
                written = self._writing.indexer.write(records, written)
                changed += [record.key for record in records]
            else:
                # Sequences without a record were replaced by later ones.
                written = replace(written, sequence=wanted)
            if not self._leads():
                self._items.changed(changed, self._items.state)
                self._step_back(saved)
                return
            if written.sequence < wanted and time.monotonic() < settle_at:
                continue
            written = self._writing.indexer.settle(written)
            self._items.changed(changed, written)
            if self._store.state() != saved:
                # Another stepped back, or the collection was replaced: begin where it is now.
                return
            self._store.save(written)
            saved, changed = written, []
            settle_at = time.monotonic() + _SETTLE_S

    def _step_back(self, state: State) -> None:
        """Have what was written without the lease written again.

        It may have overwritten something newer of the process that has the lease now.
        """
        _logger.warning(
            "semantic: the lease was lost while writing; writing again from %d", state.sequence
        )
        now = self._store.state()
        if now is not None and now.sequence > state.sequence:
            self._store.save(replace(now, sequence=state.sequence))

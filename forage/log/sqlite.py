"""The event log in one SQLite file, shared by the threads and processes of one machine."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forage.errors import StartupError, StorageError
from forage.log.interface import Event, Record, Stream, Topic
from forage.log.sqlite_file import check_format, connect, create

_POLL_FIRST_S = 0.004
_POLL_LAST_S = 0.04
_IDLE_CONNECTIONS = 8

_COLUMNS = "sequence, stream, key, time, headers, payload"
_COMPACT = f"INSERT OR REPLACE INTO catalog ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
# The update changes nothing; it is there because RETURNING is silent about an ignored row.
_INSERT_ONCE = (
    f"INSERT INTO interactions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (stream, key) DO UPDATE SET key = excluded.key RETURNING sequence"
)

_Row = tuple[str, str, float, str, bytes]


@dataclass(slots=True)
class _Pending:
    """One `append` call on its way into a transaction."""

    topic: Topic
    rows: list[_Row]
    sequences: list[int] = field(default_factory=list)
    done: bool = False
    error: BaseException | None = None


class SqliteEventLog:
    """An `EventLog` in a SQLite file in WAL mode, where readers never wait for the writer.

    Appends made at the same time share one transaction, and so one fsync (group commit): the
    first thread in becomes the leader and commits whatever has queued up behind it.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Connect to an existing log; use `open`, which also creates it and checks its format."""
        self._path = path
        self._read_only = read_only
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._commits = threading.Condition()
        self._queue: list[_Pending] = []
        self._committing = False
        self._appends = threading.Condition()
        self._known = dict.fromkeys(Topic, 0)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> SqliteEventLog:
        """Open the log at `path`, creating it first unless `read_only`.

        Raises `StartupError` naming the file if it is missing (`read_only`), cannot be written
        (not `read_only`), is damaged, is not a Forage event log, or has another format version.
        """
        log = cls(path, read_only=read_only)
        try:
            if not read_only and not path.exists():
                create(path)
            with closing(connect(path, read_only=read_only)) as connection:
                check_format(connection, path)
                if not read_only:
                    connection.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
        except (OSError, sqlite3.DatabaseError) as error:
            raise StartupError(
                f"event log {path}: {error}", metadata={"file": str(path)}
            ) from error
        return log

    def append(self, events: Sequence[Event]) -> list[int]:
        """Append events of one topic; see `EventLog.append`.

        Raises `ValueError` for events of several topics, a time that is not finite, or a key
        that is not Unicode.
        """
        self._check_open()
        if not events:
            return []
        pending = _Pending(events[0].stream.topic, [_row(event) for event in events])
        if any(event.stream.topic is not pending.topic for event in events):
            raise ValueError("an append takes events of one topic only")
        with self._commits:
            self._queue.append(pending)
            while self._committing and not pending.done:
                self._commits.wait()
            group: list[_Pending] = []
            if not pending.done:
                group, self._queue = self._queue, group
                self._committing = True
        if group:
            self._lead(group)
        elif pending.error is not None:
            raise StorageError(str(pending.error)) from pending.error
        return pending.sequences

    def read(
        self, topic: Topic, after: int, limit: int, streams: Sequence[Stream] = ()
    ) -> list[Record]:
        """Return records in order; see `EventLog.read`.

        Raises `ValueError` for a negative limit or a stream of another topic.
        """
        if limit < 0:
            raise ValueError(f"limit {limit} is negative")
        if any(stream.topic is not topic for stream in streams):
            raise ValueError(f"not all of {[str(s) for s in streams]} belong to topic {topic}")
        # Without an index in topic order over several streams, filtering by all would mean sorting.
        if all(stream in streams for stream in Stream if stream.topic is topic):
            streams = ()
        chosen = "" if not streams else f"AND stream IN ({', '.join('?' * len(streams))})"
        sql = (
            f"SELECT {_COLUMNS} FROM {topic} WHERE sequence > ? {chosen} ORDER BY sequence LIMIT ?"
        )
        with self._connection("read") as connection:
            return [_record(row) for row in connection.execute(sql, (after, *streams, limit))]

    def head(self, topic: Topic) -> int:
        """Return the last sequence given out; see `EventLog.head`."""
        with self._connection("read the head") as connection:
            return _head(connection, topic)

    def get(self, stream: Stream, key: str) -> Record | None:
        """Return the latest record with this key; see `EventLog.get`."""
        sql = f"SELECT {_COLUMNS} FROM {stream.topic} WHERE stream = ? AND key = ?"
        with self._connection("read") as connection:
            row = connection.execute(sql, (stream, key)).fetchone()
        return None if row is None else _record(row)

    def wait(self, topic: Topic, after: int, timeout: float) -> bool:
        """Block until there is more; see `EventLog.wait`.

        An append of this process wakes at once; one of another process is seen by polling, 40 ms
        late at worst.
        """
        deadline = time.monotonic() + timeout
        pause = _POLL_FIRST_S
        seen = None
        # `data_version` tells of other connections only, so one connection has to do all asking.
        with self._connection("wait") as connection:
            while True:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen and _head(connection, topic) > after:
                    return True
                seen = version
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                with self._appends:
                    if self._known[topic] <= after:
                        self._appends.wait(min(pause, remaining))
                self._check_open()
                pause = min(2 * pause, _POLL_LAST_S)

    def close(self) -> None:
        """Close idle connections now and busy ones when they are done; later calls fail."""
        with self._commits:
            while self._committing:
                self._commits.wait()
            self._closed = True
        with self._pool_lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self._appends:
            self._appends.notify_all()

    def _lead(self, group: list[_Pending]) -> None:
        failure: BaseException | None = None
        try:
            with self._connection("append") as connection:
                heads = _commit(connection, group)
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._commits:
                self._committing = False
                for pending in group:
                    pending.done, pending.error = True, failure
                self._commits.notify_all()
        with self._appends:
            self._known.update(heads)
            self._appends.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"event log {self._path} is closed")

    @contextmanager
    def _connection(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one thread; SQLite's failures leave as `StorageError`."""
        self._check_open()
        with self._pool_lock:
            connection = self._idle.pop() if self._idle else None
        keep = False
        try:
            connection = connection or connect(self._path, read_only=self._read_only)
            yield connection
            with self._pool_lock:
                keep = not self._closed and len(self._idle) < _IDLE_CONNECTIONS
                if keep:
                    self._idle.append(connection)
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"event log {self._path}: cannot {doing}: {error}",
                metadata={"file": str(self._path)},
            ) from error
        finally:
            if connection is not None and not keep:
                connection.close()


def _head(connection: sqlite3.Connection, topic: Topic) -> int:
    sql = "SELECT sequence FROM heads WHERE topic = ?"
    (sequence,) = connection.execute(sql, (topic.value,)).fetchone()
    return int(sequence)


def _commit(connection: sqlite3.Connection, group: Sequence[_Pending]) -> dict[Topic, int]:
    """Insert the group in one durable transaction; return the heads after it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("SELECT topic, sequence FROM heads").fetchall()
        heads = {Topic(topic): int(sequence) for topic, sequence in found}
        for pending in group:
            insert = _compact if pending.topic is Topic.CATALOG else _insert_once
            pending.sequences = insert(connection, pending.rows, heads[pending.topic])
            heads[pending.topic] = max(heads[pending.topic], *pending.sequences)
        connection.executemany(
            "UPDATE heads SET sequence = ? WHERE topic = ?",
            [(sequence, topic) for topic, sequence in heads.items()],
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return heads


def _compact(connection: sqlite3.Connection, rows: Sequence[_Row], head: int) -> list[int]:
    sequences = list(range(head + 1, head + 1 + len(rows)))
    connection.executemany(
        _COMPACT, ((sequence, *row) for sequence, row in zip(sequences, rows, strict=True))
    )
    return sequences


def _insert_once(connection: sqlite3.Connection, rows: Sequence[_Row], head: int) -> list[int]:
    sequences = []
    for row in rows:
        (sequence,) = connection.execute(_INSERT_ONCE, (head + 1, *row)).fetchone()
        head = max(head, sequence)
        sequences.append(int(sequence))
    return sequences


def _row(event: Event) -> _Row:
    # All that SQLite could refuse is refused here, so that it never fails the rest of a group.
    if not math.isfinite(event.time):
        raise ValueError(f"event {event.key!r}: time {event.time} is not finite")
    event.key.encode()
    headers = json.dumps(dict(event.headers)) if event.headers else ""
    return (event.stream.value, event.key, event.time, headers, bytes(event.payload))


def _record(row: tuple[int, str, str, float, str, bytes]) -> Record:
    sequence, stream, key, at, headers, payload = row
    parsed = json.loads(headers) if headers else {}
    return Record(sequence, Stream(stream), key, payload, at, parsed)

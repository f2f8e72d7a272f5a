"""The event log in NATS JetStream, shared by the processes of many machines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import grpc
from nats.aio.msg import Msg
from nats.js.errors import APIError

from forage.errors import InvalidArgumentError, StartupError, StorageError
from forage.log.interface import Event, Record, Stream, Topic
from forage.log.nats_connection import FULL, NatsConnection
from forage.log.nats_reading import get, read_stream
from forage.log.nats_streams import Layout, Message, decode, encode, ensure
from forage.settings import NatsSettings

MOST_ATOMIC = 1_000
"""Events that one append writes all or nothing: the server's limit for a batch."""
_POLL_S = 1.0
_PAUSE_S = 0.02
_MOST_BATCHES = 4
_PRESENT = {10071, 10164, 10158, 10201}
"""Refusals that mean: a message with this subject or id is there already, or being written."""


class LogFullError(StorageError):
    """The stream is as large as it may be: nothing is written until it is given more room."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "LOG_FULL"


class NatsEventLog:
    """An `EventLog` of two JetStream streams, `catalog` and `interactions`.

    Every key has a subject of its own. The catalogue keeps the last message of a subject; an
    interaction is written on the condition that its subject has no message yet, for which the
    server keeps no time limit. Several events go in one atomic batch (NATS ADR-50), of up to
    `MOST_ATOMIC` events: a larger append is atomic in parts of that size.
    """

    def __init__(self, connection: NatsConnection, *, owns_connection: bool = False) -> None:
        """Use streams that exist; see `open`."""
        self._connection = connection
        self._owns_connection = owns_connection
        self._layout = Layout(connection.settings)
        self._closed = False
        self._batch_ids = itertools.count(1)
        self._batches = asyncio.Semaphore(_MOST_BATCHES)
        self._known = dict.fromkeys(Topic, 0)
        self._asked = dict.fromkeys(Topic, 0.0)
        self._created = dict.fromkeys(Topic, "")
        self._heard = {topic: asyncio.Event() for topic in Topic}
        self._listening: dict[Topic, object] = dict.fromkeys(Topic)

    @classmethod
    def open(cls, url: str, settings: NatsSettings | None = None) -> NatsEventLog:
        """Open the log on the servers of `url`, creating its streams.

        Raises `StartupError` naming the setting: see `NatsConnection.open` and `ensure`.
        """
        connection = NatsConnection.open(url, settings or NatsSettings())
        try:
            return cls.on(connection, owns_connection=True)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def on(cls, connection: NatsConnection, *, owns_connection: bool = False) -> NatsEventLog:
        """Open the log on a connection, creating streams and buckets; see `open`."""
        log = cls(connection, owns_connection=owns_connection)
        try:
            connection.run(ensure(connection, log._layout), "open the log")
            for topic in Topic:
                log.head(topic)
        except StorageError as error:
            raise StartupError(f"log_url: {error.message}", metadata=error.metadata) from error
        return log

    def append(self, events: Sequence[Event]) -> list[int]:
        """Append events of one topic; see `EventLog.append`.

        Raises `ValueError` for events of several topics, a time that is not finite or a key that
        is not Unicode, `InvalidArgumentError` for an event above the server's message size, and
        `LogFullError` if the stream is full.
        """
        self._check_open()
        if not events:
            return []
        topic = events[0].stream.topic
        if any(event.stream.topic is not topic for event in events):
            raise ValueError("an append takes events of one topic only")
        messages = [encode(event, self._layout) for event in events]
        self._check_sizes(messages)
        write = self._replace if topic is Topic.CATALOG else self._insert_once
        extra_s = len(messages) / 500
        return self._connection.run(write(topic, messages), f"append to {topic}", extra_s=extra_s)

    def read(
        self, topic: Topic, after: int, limit: int, streams: Sequence[Stream] = ()
    ) -> list[Record]:
        """Return records in order; see `EventLog.read`.

        Raises `ValueError` for a negative limit or a stream of another topic.
        """
        self._check_open()
        if limit < 0:
            raise ValueError(f"limit {limit} is negative")
        if any(stream.topic is not topic for stream in streams):
            raise ValueError(f"not all of {[str(s) for s in streams]} belong to topic {topic}")
        every = all(s in streams for s in Stream if s.topic is topic)
        pattern = ">" if not streams or every else self._layout.subjects(streams[0])
        work = read_stream(
            self._connection, self._layout.stream(topic), max(0, after), limit, pattern
        )
        found = self._connection.run(work, f"read {topic}", extra_s=min(limit, 100_000) / 500)
        return [decode(message) for message in found]

    def head(self, topic: Topic) -> int:
        """Return the last sequence given out; see `EventLog.head`."""
        self._check_open()
        return self._connection.run(self._ask(topic), f"read the head of {topic}")

    def get(self, stream: Stream, key: str) -> Record | None:
        """Return the latest record with this key; see `EventLog.get`."""
        self._check_open()
        name = self._layout.stream(stream.topic)
        work = get(self._connection, name, last_by_subj=self._layout.subject(stream, key))
        found = self._connection.run(work, f"read {stream}")
        return None if found is None else decode(found)

    def wait(self, topic: Topic, after: int, timeout: float) -> bool:
        """Block until there is more; see `EventLog.wait`.

        The server tells of what it has stored; should that get lost, it is asked once a second.
        """
        self._check_open()
        if self._known[topic] > after:
            return True
        waiting = self._wait(topic, after, timeout)
        return self._connection.run(waiting, f"wait for {topic}", extra_s=timeout)

    def close(self) -> None:
        """End all waiting; later calls fail. Closes the connection if the log has opened it."""
        self._closed = True
        if self._owns_connection:
            self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"event log on NATS at {self._connection.name} is closed")

    def _check_sizes(self, messages: Sequence[Message]) -> None:
        most = self._connection.client.max_payload
        for message in messages:
            if message.size > most:
                raise InvalidArgumentError(
                    "events",
                    f"event '{message.key}' takes {message.size} bytes",
                    allowed=f"{most} bytes, the server's max_payload",
                )

    async def _replace(self, topic: Topic, messages: Sequence[Message]) -> list[int]:
        sequences: list[int] = []
        for part in _parts(messages):
            sequences += await self._publish(topic, part, {})
        return sequences

    async def _insert_once(self, topic: Topic, messages: Sequence[Message]) -> list[int]:
        """Publish those whose subject is not there yet; find the others."""
        known: dict[str, int] = {}
        unique = list({m.subject: m for m in reversed(messages)}.values())[::-1]
        for part in _parts(unique):
            missing = list(part)
            while missing:
                try:
                    given = await self._publish(topic, missing, _IF_ABSENT)
                except APIError as error:
                    if error.err_code not in _PRESENT:
                        raise
                    found = await self._find(topic, missing)
                    if not found:
                        # Another process is writing it now.
                        await asyncio.sleep(_PAUSE_S)
                    known |= found
                    missing = [m for m in missing if m.subject not in known]
                else:
                    known |= {m.subject: s for m, s in zip(missing, given, strict=True)}
                    missing = []
        return [known[message.subject] for message in messages]

    async def _find(self, topic: Topic, messages: Sequence[Message]) -> dict[str, int]:
        stream = self._layout.stream(topic)
        found = await asyncio.gather(
            *(get(self._connection, stream, last_by_subj=m.subject) for m in messages)
        )
        return {stored.subject: stored.sequence for stored in found if stored is not None}

    async def _publish(
        self, topic: Topic, messages: Sequence[Message], condition: dict[str, str]
    ) -> list[int]:
        """Publish all or none, and return their sequences; raises `APIError`."""
        stream = {"Nats-Expected-Stream": self._layout.stream(topic)}
        try:
            if len(messages) == 1:
                (message,) = messages
                # The id spares the server a look at the disk; the condition holds for ever.
                once = {"Nats-Msg-Id": message.subject} if condition else {}
                headers = {**message.headers, **stream, **condition, **once}
                answer = await self._connection.request(message.subject, message.payload, headers)
            else:
                async with self._batches:
                    answer = await self._publish_batch(messages, stream | condition)
        except APIError as error:
            if error.err_code in FULL:
                raise self._full(topic, error) from error
            raise
        last = int(answer["seq"])
        self._advance(topic, last)
        return list(range(last - len(messages) + 1, last + 1))

    async def _publish_batch(
        self, messages: Sequence[Message], condition: dict[str, str]
    ) -> dict[str, int]:
        client = self._connection.client
        # Ids of batches are compared among all clients, for as long as a batch is open.
        batch = {"Nats-Batch-Id": f"{client.new_inbox()}.{next(self._batch_ids)}"[-64:]}
        *most, last = enumerate(messages, 1)
        for index, message in most:
            headers = {**message.headers, **condition, **batch, "Nats-Batch-Sequence": str(index)}
            await client.publish(message.subject, message.payload, headers=headers)
        index, message = last
        commit = {"Nats-Batch-Sequence": str(index), "Nats-Batch-Commit": "1"}
        headers = {**message.headers, **condition, **batch, **commit}
        return await self._connection.request(message.subject, message.payload, headers)

    def _full(self, topic: Topic, error: APIError) -> LogFullError:
        name = self._layout.stream(topic)
        setting = f"nats.{topic}_max_bytes"
        return LogFullError(
            f"{setting}: stream '{name}' is full ({error.description}); allowed: a larger value,"
            " or more room on the server",
            metadata={"setting": setting, "stream": name},
        )

    async def _wait(self, topic: Topic, after: int, limit_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        while True:
            heard = self._heard[topic]
            client = self._connection.client
            if self._listening[topic] is not client:
                # One message is enough to wake us; what else is stored meanwhile is not ours yet.
                self._listening[topic] = client
                await self._connection.listen(self._layout.stored(topic), self._on_stored, 1)
                await self._ask(topic)
            elif loop.time() - self._asked[topic] > _POLL_S:
                await self._ask(topic)
            if self._known[topic] > after:
                return True
            remaining = until - loop.time()
            if remaining <= 0:
                return False
            try:
                async with asyncio.timeout(min(remaining, _POLL_S)):
                    await heard.wait()
            except TimeoutError:
                continue

    async def _on_stored(self, message: Msg) -> None:
        topic = Topic(message.subject.split(".")[2])
        self._listening[topic] = None
        self._advance(topic, int((message.headers or {}).get("Nats-Sequence", 0)))

    def _advance(self, topic: Topic, sequence: int) -> None:
        if sequence > self._known[topic]:
            self._known[topic] = sequence
            self._heard[topic].set()
            self._heard[topic] = asyncio.Event()

    async def _ask(self, topic: Topic) -> int:
        """Return the head as the stream's leader knows it."""
        before = self._known[topic]
        self._asked[topic] = asyncio.get_running_loop().time()
        name = self._layout.stream(topic)
        info = await self._connection.api(f"STREAM.INFO.{name}")
        head, created = int(info["state"]["last_seq"]), info["created"]
        if head < before or created != (self._created[topic] or created):
            raise StorageError(
                f"stream '{name}' ends at {head} and was created {created}; it ended at {before}"
                " before: it has been replaced or has lost records. Restart with the data folders"
                " that belong to it, or delete the projections' folders to have them rebuilt"
            )
        self._created[topic] = created
        self._advance(topic, head)
        return head


_IF_ABSENT = {"Nats-Expected-Last-Subject-Sequence": "0"}


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    return (messages[at : at + MOST_ATOMIC] for at in range(0, len(messages), MOST_ATOMIC))

"""The client for ordinary, blocking code. `forage.client.aio` is its twin."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.channel import channel_options, target
from forage.client import calls
from forage.client.attempts import Attempts, Retry, failure, not_reached, traced
from forage.client.calls import Call, Feedback, FeedbackKind, SearchOptions
from forage.client.results import SearchPage
from forage.client.state import Decision, FeedbackReceipt, IngestStatus, PolicyState, Replay
from forage.retrieval import Deadline
from forage.telemetry import Telemetry

ResultT = TypeVar("ResultT")
_POLL_S = 0.1
_RETRY = Retry()


class Client:
    """Calls a Forage orchestrator. Safe to share between threads; close it, or use `with`."""

    def __init__(
        self,
        address: str = "127.0.0.1:7100",
        *,
        timeout_s: float = 5.0,
        retry: Retry = _RETRY,
        telemetry: Telemetry | None = None,
        max_message_bytes: int = 16 * 2**20,
    ) -> None:
        """Prepare to call the orchestrator at `address`; it is connected to on first use.

        Several orchestrators are called in turn: `IP:port,IP:port`, or `dns:///name:port` for
        all addresses of a name. `timeout_s` is the deadline of a call, retries included. With
        `telemetry`, every attempt is a client span, and the server's spans hang below it.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._retry = retry
        self._telemetry = telemetry or Telemetry.disabled()
        self._channel = grpc.insecure_channel(
            target(address), options=channel_options(address, max_message_bytes)
        )
        self._schema: Schema | None = None

    def search(self, text: str = "", **options: Unpack[SearchOptions]) -> SearchPage:
        """Search, and return the first page, or the one that `page_token` names."""
        return self._run(calls.search(text, options))

    def pages(self, text: str = "", **options: Unpack[SearchOptions]) -> Iterator[SearchPage]:
        """Search, and yield page after page of the one ranked list."""
        following: SearchOptions | None = options
        while following is not None:
            page = self.search(text, **following)
            yield page
            following = calls.next_page(page, options)

    def record_feedback(
        self,
        request_id: str,
        item_id: str,
        kind: FeedbackKind | str,
        *,
        amount: float | None = None,
        event_id: str | None = None,
        time: float | None = None,
    ) -> FeedbackReceipt:
        """Record what a user did with a result; an `event_id` is made if none is given."""
        return self.record_events(
            [calls.feedback(request_id, item_id, kind, amount, event_id, time)]
        )

    def record_events(self, events: Sequence[Feedback]) -> FeedbackReceipt:
        """Record 1 to 1,000 events durably, all or none."""
        return self._run(calls.record_feedback(events))

    def upsert(self, items: Iterable[Item]) -> int:
        """Add or replace 1 to 5,000 items, all or none; return the write's sequence."""
        return self._run(calls.upsert(items, self.schema()))

    def delete(self, item_ids: Iterable[str]) -> int:
        """Remove 1 to 5,000 items; return the removal's sequence."""
        return self._run(calls.delete(item_ids))

    def get_item(self, item_id: str) -> Item:
        """Return one item; raises `NotFoundError`."""
        return self._run(calls.get_item(item_id))

    def schema(self) -> Schema:
        """Return the catalogue's schema, asked for once."""
        if self._schema is None:
            self._schema = self._run(calls.schema())
        return self._schema

    def ingest_status(self) -> IngestStatus:
        """Return how far every service has followed the log."""
        return self._run(calls.ingest_status())

    def wait_for(self, sequence: int, *, timeout_s: float = 30.0) -> IngestStatus:
        """Wait until every projection has applied a catalogue sequence.

        Raises `DeadlineExceededError` naming those that have not.
        """
        deadline = Deadline.after(timeout_s)
        while behind := (status := self.ingest_status()).behind(sequence):
            if deadline.remaining() < _POLL_S:
                raise not_reached(sequence, behind, timeout_s)
            time.sleep(_POLL_S)
        return status

    def policy(self) -> PolicyState:
        """Return the policy in use, and what each generator has done lately."""
        return self._run(calls.policy())

    def decision(self, request_id: str) -> Decision:
        """Return the record of one search; raises `NotFoundError`."""
        return self._run(calls.decision(request_id))

    def replay(self, request_id: str) -> Replay:
        """Decide a recorded search again, from its record alone."""
        return self._run(calls.replay(request_id))

    def set_generator_enabled(self, generator: str, enabled: bool) -> tuple[str, ...]:
        """Switch a generator on or off for every search; return those that are off."""
        return self._run(calls.set_generator_enabled(generator, enabled))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, call: Call[ResultT]) -> ResultT:
        attempts = Attempts(self._retry, call.timeout_s or self._timeout_s, call.retried)
        send: Any = self._channel.unary_unary(
            call.method, type(call.request).SerializeToString, call.response.FromString
        )
        while True:
            try:
                with traced(self._telemetry, call.method) as metadata:
                    response = send(call.request, timeout=attempts.remaining(), metadata=metadata)
            except grpc.RpcError as error:
                time.sleep(attempts.pause_after(failure(error, self.address)))
            else:
                return call.parse(response)

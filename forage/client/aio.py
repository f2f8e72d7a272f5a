"""The client for asyncio code. `forage.client.sync` is its twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
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


class AsyncClient:
    """Calls a Forage orchestrator. Use it within one event loop; close it, or use `async with`."""

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
        self._channel = grpc.aio.insecure_channel(
            target(address), options=channel_options(address, max_message_bytes)
        )
        self._schema: Schema | None = None

    async def search(self, text: str = "", **options: Unpack[SearchOptions]) -> SearchPage:
        """Search, and return the first page, or the one that `page_token` names."""
        return await self._run(calls.search(text, options))

    async def pages(
        self, text: str = "", **options: Unpack[SearchOptions]
    ) -> AsyncIterator[SearchPage]:
        """Search, and yield page after page of the one ranked list."""
        following: SearchOptions | None = options
        while following is not None:
            page = await self.search(text, **following)
            yield page
            following = calls.next_page(page, options)

    async def record_feedback(
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
        return await self.record_events(
            [calls.feedback(request_id, item_id, kind, amount, event_id, time)]
        )

    async def record_events(self, events: Sequence[Feedback]) -> FeedbackReceipt:
        """Record 1 to 1,000 events durably, all or none."""
        return await self._run(calls.record_feedback(events))

    async def upsert(self, items: Iterable[Item]) -> int:
        """Add or replace 1 to 5,000 items, all or none; return the write's sequence."""
        return await self._run(calls.upsert(items, await self.schema()))

    async def delete(self, item_ids: Iterable[str]) -> int:
        """Remove 1 to 5,000 items; return the removal's sequence."""
        return await self._run(calls.delete(item_ids))

    async def get_item(self, item_id: str) -> Item:
        """Return one item; raises `NotFoundError`."""
        return await self._run(calls.get_item(item_id))

    async def schema(self) -> Schema:
        """Return the catalogue's schema, asked for once."""
        if self._schema is None:
            self._schema = await self._run(calls.schema())
        return self._schema

    async def ingest_status(self) -> IngestStatus:
        """Return how far every service has followed the log."""
        return await self._run(calls.ingest_status())

    async def wait_for(self, sequence: int, *, timeout_s: float = 30.0) -> IngestStatus:
        """Wait until every projection has applied a catalogue sequence.

        Raises `DeadlineExceededError` naming those that have not.
        """
        deadline = Deadline.after(timeout_s)
        while behind := (status := await self.ingest_status()).behind(sequence):
            if deadline.remaining() < _POLL_S:
                raise not_reached(sequence, behind, timeout_s)
            await asyncio.sleep(_POLL_S)
        return status

    async def policy(self) -> PolicyState:
        """Return the policy in use, and what each generator has done lately."""
        return await self._run(calls.policy())

    async def decision(self, request_id: str) -> Decision:
        """Return the record of one search; raises `NotFoundError`."""
        return await self._run(calls.decision(request_id))

    async def replay(self, request_id: str) -> Replay:
        """Decide a recorded search again, from its record alone."""
        return await self._run(calls.replay(request_id))

    async def set_generator_enabled(self, generator: str, enabled: bool) -> tuple[str, ...]:
        """Switch a generator on or off for every search; return those that are off."""
        return await self._run(calls.set_generator_enabled(generator, enabled))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, call: Call[ResultT]) -> ResultT:
        attempts = Attempts(self._retry, call.timeout_s or self._timeout_s, call.retried)
        send: Any = self._channel.unary_unary(
            call.method, type(call.request).SerializeToString, call.response.FromString
        )
        while True:
            try:
                with traced(self._telemetry, call.method) as metadata:
                    response = await send(
                        call.request, timeout=attempts.remaining(), metadata=metadata
                    )
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.pause_after(failure(error, self.address)))
            else:
                return call.parse(response)

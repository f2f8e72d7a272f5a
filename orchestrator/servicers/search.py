"""`forage.v1.SearchService`."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import grpc
from opentelemetry import trace

from forage.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from forage.log import Topic
from forage.log.follower import Follower
from forage.retrieval import Deadline
from forage.services import Runtime
from forage.telemetry import Attribute
from forage.v1 import search_service_pb2 as pb
from forage.v1 import search_service_pb2_grpc as pb_grpc
from orchestrator.load import Load
from orchestrator.pipeline import Pipeline

Context = grpc.aio.ServicerContext[Any, Any]
_POLL_S = 0.01
_SHORTEST_S = 0.03
"""A search with less time than this cannot be answered by anybody."""


class SearchServicer(pb_grpc.SearchServiceServicer):
    """Admits, bounds and routes searches; the pipeline does the rest."""

    def __init__(
        self,
        pipeline: Pipeline,
        load: Load,
        follower: Follower,
        runtime: Runtime,
        *,
        deadline_s: float,
    ) -> None:
        self._pipeline = pipeline
        self._load = load
        self._follower = follower
        self._runtime = runtime
        self._deadline_s = deadline_s
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        """Answer a first page, a later page, or a repeated request."""
        remaining = context.time_remaining()
        deadline = Deadline.after(
            self._deadline_s if remaining is None else min(remaining, self._deadline_s)
        )
        if deadline.remaining() < _SHORTEST_S:
            raise DeadlineExceededError(f"a search needs at least {_SHORTEST_S * 1000:.0f} ms")
        with self._load.admitted():
            response = await self._respond(request, deadline)
        span = trace.get_current_span()
        span.set_attribute(Attribute.REQUEST_ID, response.request_id)
        span.set_attribute(Attribute.DEGRADED, bool(response.degraded))
        return response

    async def _respond(self, request: pb.SearchRequest, deadline: Deadline) -> pb.SearchResponse:
        if request.page_token:
            return await self._pipeline.page(request)
        if not request.request_id:
            return await self._decide(request, deadline)
        # A client that retries early must not have one request id decided twice.
        turn = self._turns.setdefault(request.request_id, asyncio.Lock())
        async with turn:
            repeated = await self._pipeline.repeat(request)
            return repeated or await self._decide(request, deadline)

    async def _decide(self, request: pb.SearchRequest, deadline: Deadline) -> pb.SearchResponse:
        if request.min_catalog_sequence:
            await self._applied(request.min_catalog_sequence, deadline)
        return await self._pipeline.search(request, deadline)

    async def _applied(self, sequence: int, deadline: Deadline) -> None:
        """Wait for a write. It polls, since threads that wait would starve other searches."""
        head = await self._runtime.in_thread(self._runtime.log.head, Topic.CATALOG)
        if sequence > head:
            raise InvalidArgumentError(
                "min_catalog_sequence", f"{sequence} has not been written", allowed=f"0 to {head}"
            )
        while True:
            try:
                return self._follower.wait_for(Topic.CATALOG, sequence, Deadline.after(0))
            except UnavailableError:
                if deadline.remaining() < _SHORTEST_S:
                    raise
            await asyncio.sleep(_POLL_S)

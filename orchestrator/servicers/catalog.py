"""`forage.v1.CatalogService`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from forage import wire
from forage.catalog.validation import check_item_id, validate_item
from forage.errors import InvalidArgumentError, NotFoundError, StorageError
from forage.log import Event, Stream, Topic
from forage.log.follower import Follower
from forage.reporting import status_response
from forage.services import Runtime
from forage.v1 import catalog_service_pb2 as pb
from forage.v1 import (
    catalog_service_pb2_grpc,
    generator_service_pb2,
    generator_service_pb2_grpc,
    item_pb2,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]
_MOST_ITEMS = 5_000
_STATUS_TIMEOUT_S = 1.0
_MOST_ECHOED = 200
"""Characters of a bad item's own text in an error, which travels in a header of limited size."""


class CatalogServicer(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Writes items to the log, and tells how far everybody has followed it."""

    def __init__(
        self,
        runtime: Runtime,
        schema_file: Path,
        follower: Follower,
        entries: Mapping[str, Any],
        generators: Mapping[str, grpc.aio.Channel],
        ranker: grpc.aio.Channel,
    ) -> None:
        """`entries` maps each of the orchestrator's projections to a function that counts it."""
        self._runtime = runtime
        self._schema_file = schema_file
        self._follower = follower
        self._entries = entries
        self._generators = {
            name: generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel)
            for name, channel in generators.items()
        }
        self._ranker = ranker_service_pb2_grpc.RankerServiceStub(ranker)

    async def UpsertItems(
        self, request: pb.UpsertItemsRequest, context: Context
    ) -> pb.UpsertItemsResponse:
        """Check all items, then append them all."""
        sequences = await self._runtime.in_thread(self._upsert, request.items)
        return pb.UpsertItemsResponse(sequence=sequences[-1])

    def _upsert(self, items: Sequence[item_pb2.Item]) -> list[int]:
        _check_count("items", len(items))
        now = time.time()
        seen: set[str] = set()
        events = []
        for index, message in enumerate(items):
            field = f"items[{index}]"
            item = wire.item_from_proto(message)
            try:
                validate_item(item, self._runtime.schema)
            except InvalidArgumentError as error:
                problem = error.message.partition(": ")[2].rpartition("; allowed: ")[0]
                raise InvalidArgumentError(
                    f"{field}.{error.field[:_MOST_ECHOED]}",
                    problem[:_MOST_ECHOED],
                    allowed=error.allowed,
                ) from error
            _check_once(item.item_id, f"{field}.item_id", seen)
            record = item_pb2.CatalogRecord(upsert=message)
            events.append(Event(Stream.CATALOG, item.item_id, record.SerializeToString(), now))
        return self._runtime.log.append(events)

    async def DeleteItems(
        self, request: pb.DeleteItemsRequest, context: Context
    ) -> pb.DeleteItemsResponse:
        """Append a tombstone for each item."""
        _check_count("item_ids", len(request.item_ids))
        now = time.time()
        seen: set[str] = set()
        events = []
        for index, item_id in enumerate(request.item_ids):
            check_item_id(item_id, f"item_ids[{index}]")
            _check_once(item_id, f"item_ids[{index}]", seen)
            record = item_pb2.CatalogRecord(delete_item_id=item_id)
            events.append(Event(Stream.CATALOG, item_id, record.SerializeToString(), now))
        sequences = await self._runtime.in_thread(self._runtime.log.append, events)
        return pb.DeleteItemsResponse(sequence=sequences[-1])

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Read the item's latest record."""
        check_item_id(request.item_id, "item_id")
        log = self._runtime.log
        record = await self._runtime.in_thread(log.get, Stream.CATALOG, request.item_id)
        latest = item_pb2.CatalogRecord.FromString(record.payload) if record else None
        if record is None or latest is None or latest.WhichOneof("change") != "upsert":
            raise NotFoundError(
                f"item_id: there is no item '{request.item_id}'", metadata={"field": "item_id"}
            )
        return pb.GetItemResponse(item=latest.upsert, sequence=record.sequence)

    async def GetSchema(
        self, request: pb.GetSchemaRequest, context: Context
    ) -> pb.GetSchemaResponse:
        """Return the schema file as it is."""
        try:
            text = await self._runtime.in_thread(self._schema_file.read_text, "utf-8")
        except OSError as error:
            raise StorageError(f"cannot read the schema file: {error}") from error
        return pb.GetSchemaResponse(yaml=text)

    async def GetIngestStatus(
        self, request: pb.GetIngestStatusRequest, context: Context
    ) -> pb.GetIngestStatusResponse:
        """Ask every service how far it is; one that cannot be reached is reported as such."""
        log = self._runtime.log
        others = await asyncio.gather(
            *(self._generator_status(name) for name in self._generators), self._ranker_status()
        )
        entries = {name: count() for name, count in self._entries.items()}
        own = await self._runtime.in_thread(
            status_response, "orchestrator", self._follower, entries
        )
        return pb.GetIngestStatusResponse(
            catalog_head=await self._runtime.in_thread(log.head, Topic.CATALOG),
            interactions_head=await self._runtime.in_thread(log.head, Topic.INTERACTIONS),
            services=[pb.ServiceStatus(service="orchestrator", status=own), *others],
        )

    async def _generator_status(self, name: str) -> pb.ServiceStatus:
        request = generator_service_pb2.GetStatusRequest()
        try:
            status = await self._generators[name].GetStatus(request, timeout=_STATUS_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return pb.ServiceStatus(service=name, error=f"{error.code().name}: {error.details()}")
        return pb.ServiceStatus(service=name, status=status)

    async def _ranker_status(self) -> pb.ServiceStatus:
        request = ranker_service_pb2.GetRankerStatusRequest()
        try:
            response = await self._ranker.GetRankerStatus(request, timeout=_STATUS_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            detail = f"{error.code().name}: {error.details()}"
            return pb.ServiceStatus(service="ranker", error=detail)
        return pb.ServiceStatus(service="ranker", status=response.status)


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= _MOST_ITEMS:
        raise InvalidArgumentError(field, f"{count} entries", allowed=f"1 to {_MOST_ITEMS}")


def _check_once(item_id: str, field: str, seen: set[str]) -> None:
    if item_id in seen:
        raise InvalidArgumentError(field, f"'{item_id}' occurs twice", allowed="each id once")
    seen.add(item_id)

"""What a change of one item costs a service that keeps the catalogue, and how soon it is seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import grpc

from bench.catalogs import Catalog
from bench.probe import Figures, Running
from bench.queries import percentile
from forage import wire
from forage.catalog.row_values import parse_item
from forage.catalog.schema import Schema
from forage.catalog.validation import validate_item
from forage.errors import DeadlineExceededError
from forage.log import Event, EventLog, Stream
from forage.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    generator_service_pb2,
    generator_service_pb2_grpc,
    item_pb2,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
)

_CHANGES = 60
_WATCHED = 15
_APART_S = 0.2
_POLL_S = 0.005
_LONGEST_S = 60.0


def write(found: Running, log: EventLog, catalog: Catalog, schema: Schema) -> Figures:
    """Change some items one after the other in the log that a running service follows.

    The first changes are only counted; the last are watched until the service has applied them.
    Raises `DeadlineExceededError` if it does not within a minute.
    """
    changes = list(_changes(catalog, schema, log, _CHANGES + _WATCHED))
    with grpc.insecure_channel(found.mesh.target(found.name)) as channel:
        applied = _applied(found.name, channel)
        began, before = time.monotonic(), found.usage().cpu_s
        time.sleep(_CHANGES * _APART_S)
        idle_s = (found.usage().cpu_s - before) / (time.monotonic() - began)
        began, before = time.monotonic(), found.usage().cpu_s
        for change in changes[:_CHANGES]:
            sequence = log.append([change])[-1]
            time.sleep(_APART_S)
        _wait(applied, sequence)
        used_s = found.usage().cpu_s - before - idle_s * (time.monotonic() - began)
        seen = []
        for change in changes[_CHANGES:]:
            written = time.monotonic()
            _wait(applied, log.append([change])[-1])
            seen.append(time.monotonic() - written)
    return {
        "cpu_ms": max(0.0, used_s) / _CHANGES * 1e3,
        "seen_p50_ms": percentile(seen, 0.5) * 1e3,
        "seen_most_ms": max(seen) * 1e3,
    }


def _changes(catalog: Catalog, schema: Schema, log: EventLog, number: int) -> Iterator[Event]:
    """Yield writes of the first films: without the last of its cast, or with it if it is gone."""
    rows = (row for row in catalog.rows() if row.get("kind") == "film" and row.get("cast"))
    for row in islice(rows, number):
        whole = upsert(row, schema)
        stored = log.get(Stream.CATALOG, whole.key)
        cut = upsert({**row, "cast": row["cast"][:-1]}, schema)
        yield cut if stored is not None and stored.payload == whole.payload else whole


def upsert(row: Mapping[str, Any], schema: Schema) -> Event:
    """Return what the orchestrator writes for a row; bad ones raise `InvalidArgumentError`."""
    item = parse_item(row, schema)
    validate_item(item, schema)
    record = item_pb2.CatalogRecord(upsert=wire.item_to_proto(item, schema))
    return Event(Stream.CATALOG, item.item_id, record.SerializeToString(), time.time())


def _wait(applied: Callable[[], int], sequence: int) -> None:
    end = time.monotonic() + _LONGEST_S
    while applied() < sequence:
        if time.monotonic() > end:
            raise DeadlineExceededError(f"change {sequence} was not applied in {_LONGEST_S:.0f} s")
        time.sleep(_POLL_S)


def _applied(name: str, channel: grpc.Channel) -> Callable[[], int]:
    """Return a function that tells up to where the service has applied the catalogue."""

    def status() -> Any:
        if name == "orchestrator":
            stub = catalog_service_pb2_grpc.CatalogServiceStub(channel)
            answer = stub.GetIngestStatus(
                catalog_service_pb2.GetIngestStatusRequest(), timeout=_LONGEST_S
            )
            return next(s.status for s in answer.services if s.service == name)
        if name == "ranker":
            ranker = ranker_service_pb2_grpc.RankerServiceStub(channel)
            request = ranker_service_pb2.GetRankerStatusRequest()
            return ranker.GetRankerStatus(request, timeout=_LONGEST_S).status
        generator = generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel)
        return generator.GetStatus(generator_service_pb2.GetStatusRequest(), timeout=_LONGEST_S)

    return lambda: min(p.applied_sequence for p in status().projections if p.topic == "catalog")

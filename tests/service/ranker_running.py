"""A running ranker over the fixture catalogue, for its tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forage.log.engines import open_log
from forage.registry import DirectoryRegistry
from forage.serving import serve
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.serving import eventually
from forage.v1 import ranker_service_pb2 as pb
from forage.v1 import ranker_service_pb2_grpc as pb_grpc
from ranker import SERVICE
from ranker.features import FeatureList
from ranker.lean_xgboost import xgboost
from ranker.model import KIND, RankingModel
from ranker.settings import RankerSettings
from tests.unit import ranker_parts

LIMIT_S = 20.0


class Running:
    """A running ranker."""

    def __init__(
        self, settings: RankerSettings, channel: grpc.aio.Channel, spans: InMemorySpanExporter
    ) -> None:
        self.registry = DirectoryRegistry(settings.data_dir / "registry")
        self.folder = settings.data_dir / "registry" / KIND
        self.features = FeatureList(catalog.SCHEMA, settings.generators)
        self.stub = pb_grpc.RankerServiceStub(channel)
        self.spans = spans

    def publish(self, feature: str, *, sign: float = 1.0) -> int:
        return publish(self.registry, self.features, feature, sign=sign)

    async def model_status(self) -> tuple[int, str]:
        status = (await self.stub.GetRankerStatus(pb.GetRankerStatusRequest())).status
        (model,) = [p for p in status.projections if p.name == "ranker.model"]
        return model.applied_sequence, model.last_error

    async def until(self, holds: Callable[[tuple[int, str]], bool]) -> tuple[int, str]:
        async def check() -> bool:
            return holds(await self.model_status())

        await eventually(check)
        return await self.model_status()

    async def ready(self) -> bool:
        status = (await self.stub.GetRankerStatus(pb.GetRankerStatusRequest())).status
        return bool(status.ready)


def publish(
    registry: DirectoryRegistry, features: FeatureList, feature: str, *, sign: float = 1.0
) -> int:
    """Publish a model that has learned to order by one feature."""
    rng = np.random.default_rng(0)
    rows = rng.random((400, len(features))).astype(np.float32)
    column = features.names.index(feature)
    booster = xgboost.train(
        {"max_depth": 4, "eta": 0.5, "nthread": 1},
        xgboost.DMatrix(rows, label=sign * rows[:, column]),
        20,
    )
    model = RankingModel.label(booster, features.names, features.version)
    current = registry.current(KIND)
    info = registry.publish(
        KIND,
        model.save(),
        {"metrics": {"ndcg@10": 0.5}, "lineage": {"parent_version": "0"}},
        expected_current=None if current is None else current.version,
    )
    return info.version


def configured(folder: Path) -> RankerSettings:
    schema = folder / "schema.yaml"
    schema.write_text(yaml.safe_dump(catalog.SCHEMA.model_dump(mode="json"), sort_keys=False))
    log = open_log("sqlite:log.db", folder)
    log.append([catalog.upsert(item) for item in catalog.items()])
    log.close()
    return RankerSettings.model_validate(
        {
            "data_dir": folder,
            "schema_file": schema,
            "reload_interval_ms": 20,
            "max_candidates": 50,
            "generators": ["lexical", "exploration"],
        }
    )


@asynccontextmanager
async def started(settings: RankerSettings) -> AsyncIterator[Running]:
    stop = asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("ranker", spans)
    task = asyncio.create_task(
        serve(SERVICE, settings, stop=stop, on_listening=listening.set_result, telemetry=telemetry)
    )
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.result()}") as channel:
            found = Running(settings, channel, spans)
            await eventually(found.ready)
            yield found
    finally:
        stop.set()
        await task
        telemetry.shutdown()


def request(*item_ids: str, **fields: object) -> pb.RankRequest:
    """Return a search for lanterns that lexical has answered with these items."""
    return ranker_parts.request(ranker_parts.query("lantern"), *item_ids, **fields)


async def refused(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the field that a call is refused for."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details:
        status.details[0].Unpack(info)
    return error.code(), info.metadata.get("field", "")


def ids(asked: pb.RankRequest, response: pb.RankResponse) -> list[str]:
    return [asked.item_ids[place] for place in response.order]

"""An orchestrator over list generators, all real servers in this process, for its tests."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from forage import wire
from forage.catalog import Item, Schema
from forage.errors import StorageError
from forage.log import Event, EventLog, Record, Topic
from forage.log.follower import Follower
from forage.services import Assembly, Runtime, Service
from forage.settings import GeneratorSettings, ServerSettings, ServiceSettings
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.lists import ListGenerator
from forage.testing.serving import eventually, running
from forage.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    generator_service_pb2,
    policy_service_pb2,
    policy_service_pb2_grpc,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)
from orchestrator import SERVICE
from orchestrator.settings import OrchestratorSettings

ITEMS = catalog.items()
IDS = [item.item_id for item in ITEMS]
SearchRequest = search_service_pb2.SearchRequest
SearchResponse = search_service_pb2.SearchResponse


def lists() -> list[ListGenerator]:
    """Three generators that find overlapping parts of the fixture catalogue."""
    return [
        ListGenerator("lexical", IDS[:25]),
        ListGenerator("semantic", IDS[35:10:-1]),
        ListGenerator("exploration", IDS[::-3]),
    ]


@dataclass
class BackwardRanker(ranker_service_pb2_grpc.RankerServiceServicer):
    """Ranks what comes first last; or returns `answer`, whatever it was given."""

    answer: ranker_service_pb2.RankResponse | None = None
    requests: list[ranker_service_pb2.RankRequest] = field(default_factory=list)

    async def Rank(self, request: ranker_service_pb2.RankRequest, context: Any) -> Any:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        order = range(len(request.item_ids))[::-1]
        best = order[: request.feature_rows]
        part = ranker_service_pb2.Contribution(feature="place", value=0.5)
        return ranker_service_pb2.RankResponse(
            order=order,
            scores=[place + 1 for place in order],
            model_version=7,
            feature_names=["fused_score"],
            feature_version="test",
            features=[request.fused_scores[place] for place in best],
            explanations=[
                ranker_service_pb2.Explanation(contributions=[part] if request.explain else [])
                for _ in best
            ],
        )

    async def GetRankerStatus(self, request: Any, context: Any) -> Any:
        status = generator_service_pb2.GetStatusResponse(service="ranker", ready=True)
        return ranker_service_pb2.GetRankerStatusResponse(status=status)

    def service(self) -> Service:
        def build(settings: ServiceSettings, runtime: Runtime) -> Assembly:
            def add_to(server: grpc.aio.Server) -> None:
                ranker_service_pb2_grpc.add_RankerServiceServicer_to_server(self, server)

            return Assembly(add_to, (), Follower(runtime.log, []))

        return Service("ranker", "Ranks backwards.", ServiceSettings, build)


class BrittleLog:
    """A real log: its disk is full while `full` is set, its catalogue slow until `readable` is."""

    def __init__(self) -> None:
        self.full = False
        self.appends = 0
        self.readable = threading.Event()
        self.readable.set()
        self._log: EventLog

    def around(self, log: EventLog) -> BrittleLog:
        self._log = log
        return self

    def append(self, events: Sequence[Event]) -> list[int]:
        self.appends += 1
        if self.full:
            raise StorageError("no space left on device")
        return self._log.append(events)

    def read(self, topic: Topic, *args: Any) -> list[Record]:
        if topic is Topic.CATALOG:
            self.readable.wait(30)
        return self._log.read(topic, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def on_log(log: BrittleLog) -> Service:
    """The orchestrator, with a log that can fail."""

    def build(settings: OrchestratorSettings, runtime: Runtime) -> Assembly:
        assembly: Assembly = SERVICE.build(settings, replace(runtime, log=log.around(runtime.log)))
        return assembly

    return replace(SERVICE, build=build)


class Mesh:
    """A running orchestrator, as its clients see it, and the generators behind it."""

    def __init__(self, folder: Path, generators: Sequence[ListGenerator]) -> None:
        self.folder = folder
        self.generators = {g.name: g for g in generators}
        self.ranker = BackwardRanker()
        self.ports: dict[str, int] = {}
        self.address = ""
        """Of the orchestrator."""
        self._servers: dict[str, AsyncExitStack] = {}

    async def start(self, name: str) -> None:
        """Start a generator or the ranker, on the port that it had before."""
        service = self.ranker.service() if name == "ranker" else self.generators[name].service()
        kind = ServiceSettings if name == "ranker" else GeneratorSettings
        server = ServerSettings(port=self.ports.get(name, 0), grace_ms=0)
        schema = self.folder / "schema.yaml"
        settings = kind(data_dir=self.folder, schema_file=schema, server=server)
        stack = self._servers[name] = AsyncExitStack()
        self.ports[name] = await stack.enter_async_context(running(service, settings))

    async def kill(self, name: str) -> None:
        """Stop a generator or the ranker, dropping its calls."""
        await self._servers.pop(name).aclose()

    async def close(self) -> None:
        for name in list(self._servers):
            await self.kill(name)

    def settings(
        self, *, targets: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
    ) -> OrchestratorSettings:
        """Return settings that plan simply, with `changes` by top-level name.

        `targets` holds changes by generator.
        """
        names = list(self.generators)
        content: dict[str, Any] = {
            "data_dir": self.folder,
            "schema_file": self.folder / "schema.yaml",
            "server": {"port": 0, "grace_ms": 0},
            "generators": {
                n: {"target": f"127.0.0.1:{self.ports[n]}", **(targets or {}).get(n, {})}
                for n in names
            },
            "ranker": {"target": f"127.0.0.1:{self.ports.get('ranker', 1)}"},
            "plan": {},
            # Otherwise one page in ten has an item moved up, and two searches differ.
            "slots": {"probability": 0.0},
        }
        for name, change in changes.items():
            merged = isinstance(change, dict) and name in content
            content[name] = {**content[name], **change} if merged else change
        everyone = dict.fromkeys(names, 10)
        plan = {
            "static": everyone,
            "presets": [everyone],
            "uniform_share": 0,
            "full_share": 0,
            "propensity_draws": 16,
            "traffic": {"static": 1.0},
        }
        content["plan"] = {**plan, **content["plan"]}
        return OrchestratorSettings.model_validate(content)

    def connect(self, channel: grpc.aio.Channel) -> None:
        self.search_stub = search_service_pb2_grpc.SearchServiceStub(channel)
        self.feedback = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.policy = policy_service_pb2_grpc.PolicyServiceStub(channel)

    async def search(self, text: str = "", *, timeout_s: float = 10.0, **fields: Any) -> Any:
        return await self.search_stub.Search(SearchRequest(text=text, **fields), timeout=timeout_s)

    async def upsert(self, items: Sequence[Item]) -> int:
        messages = [wire.item_to_proto(item, catalog.SCHEMA) for item in items]
        request = catalog_service_pb2.UpsertItemsRequest(items=messages)
        response = await self.catalog.UpsertItems(request)
        return int(response.sequence)

    async def delete(self, *item_ids: str) -> int:
        request = catalog_service_pb2.DeleteItemsRequest(item_ids=item_ids)
        return int((await self.catalog.DeleteItems(request)).sequence)

    async def click(self, response: Any, item_id: str, event_id: str, **fields: Any) -> Any:
        event = feedback_service_pb2.FeedbackEvent(
            event_id=event_id, request_id=response.request_id, item_id=item_id, kind=1
        )
        event.MergeFrom(feedback_service_pb2.FeedbackEvent(**fields))
        request = feedback_service_pb2.RecordFeedbackRequest(events=[event])
        return await self.feedback.RecordFeedback(request)

    async def decision(self, request_id: str) -> Any:
        request = policy_service_pb2.GetDecisionRequest(request_id=request_id)
        return (await self.policy.GetDecision(request)).decision

    async def recorded(self, request_id: str) -> Any:
        """Return a decision once its propensity is known, which is when it is written."""

        async def written() -> bool:
            return bool((await self.decision(request_id)).propensity)

        await eventually(written)
        return await self.decision(request_id)


@asynccontextmanager
async def orchestrating(
    mesh: Mesh,
    *,
    service: Service = SERVICE,
    telemetry: Telemetry | None = None,
    **changes: Any,
) -> AsyncIterator[Mesh]:
    """Run an orchestrator over a mesh whose generators run."""
    settings = mesh.settings(**changes)
    async with (
        running(service, settings, telemetry=telemetry) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        mesh.address = f"127.0.0.1:{port}"
        mesh.connect(channel)
        yield mesh


@asynccontextmanager
async def meshed(
    folder: Path,
    *,
    generators: Sequence[ListGenerator] | None = None,
    ranker: bool = True,
    items: Sequence[Item] = ITEMS,
    schema: Schema = catalog.SCHEMA,
    service: Service = SERVICE,
    telemetry: Telemetry | None = None,
    **changes: Any,
) -> AsyncIterator[Mesh]:
    """Run generators, perhaps a ranker, and an orchestrator that holds the items."""
    text = yaml.safe_dump(schema.model_dump(mode="json"), sort_keys=False)
    (folder / "schema.yaml").write_text(text)
    mesh = Mesh(folder, lists() if generators is None else generators)
    try:
        for name in (*mesh.generators, *(["ranker"] if ranker else [])):
            await mesh.start(name)
        async with orchestrating(mesh, service=service, telemetry=telemetry, **changes):
            if items:
                await applied(mesh, await mesh.upsert(items))
            yield mesh
    finally:
        await mesh.close()


async def applied(mesh: Mesh, sequence: int) -> None:
    """Wait until the orchestrator's own projections include a catalogue sequence."""

    async def reached() -> bool:
        (found,) = await projections(mesh, "orchestrator.catalog")
        return bool(found.applied_sequence >= sequence)

    await eventually(reached)


async def projections(mesh: Mesh, *names: str) -> list[Any]:
    """Return the status of the orchestrator's projections of these names."""
    status = await mesh.catalog.GetIngestStatus(catalog_service_pb2.GetIngestStatusRequest())
    own = next(s.status for s in status.services if s.service == "orchestrator")
    return [p for p in own.projections if p.name in names]


@dataclass(frozen=True)
class Refusal:
    """How a call was refused."""

    code: str
    reason: str
    metadata: dict[str, str]
    message: str


async def refusal(call: Callable[[], Any]) -> Refusal:
    """Return how a call is refused; fails if it is not."""
    try:
        answer = await call()
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            detail.Unpack(info)
        return Refusal(error.code().name, info.reason, dict(info.metadata), error.details() or "")
    raise AssertionError(f"it was not refused: {answer}")


def ids(response: Any) -> list[str]:
    """Return the item ids of an answer, in order."""
    return [result.item.item_id for result in response.results]


def degraded(response: Any) -> dict[str, str]:
    """Return what an answer lacks: component to reason."""
    return {d.component: d.reason for d in response.degraded}


def statuses(response: Any) -> dict[str, int]:
    """Return the status of every generator's call."""
    return {o.generator: o.status for o in response.outcomes}

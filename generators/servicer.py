"""Any retriever as a `forage.v1.CandidateGeneratorService`: the part all generators share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from forage import wire
from forage.catalog import filters
from forage.errors import InvalidArgumentError, UnavailableError
from forage.log import Projection, Topic
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots
from forage.reporting import status_response
from forage.retrieval import Deadline, Query, Retrieval, Retriever
from forage.services import Assembly, Runtime, Service
from forage.settings import GeneratorSettings
from forage.telemetry import Attribute, Span, Tracer
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc
from generators.version import generator_version

Context = grpc.aio.ServicerContext[Any, Any]
GRPC_SERVICE = pb.DESCRIPTOR.services_by_name["CandidateGeneratorService"].full_name


class Generator(Retriever, Protocol):
    """A retriever together with the projections that keep its index up to date."""

    @property
    def projections(self) -> Sequence[Projection]:
        """What the follower feeds; names start with the generator's name."""
        ...

    def entries(self) -> dict[str, int]:
        """Return how many entries (items, edges, queries) each projection holds, by its name."""
        ...

    def close(self) -> None:
        """Release the engine. Called once, after the last retrieval and the last checkpoint."""
        ...


SettingsT = TypeVar("SettingsT", bound=GeneratorSettings)


def generator_service(
    name: str,
    summary: str,
    settings_class: type[SettingsT],
    open_generator: Callable[[SettingsT, Runtime], Generator],
    *,
    definitions: int = 1,
) -> Service:
    """Return the `Service` that serves the generator that `open_generator` builds.

    `definitions` is raised whenever code changes what the generator answers to the same request
    from the same data, so that the bandit looks again at what it is worth.
    """

    def build(settings: SettingsT, runtime: Runtime) -> Assembly:
        generator = open_generator(settings, runtime)
        snapshots = IndexSnapshots.open(settings, runtime.log, runtime.registry, runtime.lease)
        follower = Follower(runtime.log, generator.projections, snapshots=snapshots)
        servicer = GeneratorServicer(
            generator,
            follower,
            runtime,
            version=generator_version(settings, runtime.schema, definitions),
            default_limit=settings.default_limit,
            max_limit=settings.max_limit,
        )

        async def stop() -> None:
            await runtime.in_thread(generator.close)

        return Assembly(
            servicers=servicer.add_to,
            grpc_services=(GRPC_SERVICE,),
            follower=follower,
            stop=stop,
        )

    return Service(name=name, summary=summary, settings=settings_class, build=build)


class GeneratorServicer(pb_grpc.CandidateGeneratorServiceServicer):
    """Serves any `Generator` as `forage.v1.CandidateGeneratorService`.

    The generators differ only in the retriever they hand in. Validation, limits, waiting for a
    write and the wire format live here once, so a new generator is a new retriever and no more.
    """

    def __init__(
        self,
        generator: Generator,
        follower: Follower,
        runtime: Runtime,
        *,
        version: str,
        default_limit: int,
        max_limit: int,
    ) -> None:
        self._generator = generator
        self._version = version
        self._follower = follower
        self._runtime = runtime
        self._tracer: Tracer = runtime.telemetry.tracer
        self._default_limit = default_limit
        self._max_limit = max_limit

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register this servicer."""
        pb_grpc.add_CandidateGeneratorServiceServicer_to_server(self, server)

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Retrieve on a worker thread and return the hits in rank order."""
        limit = self._limit(request)
        query = wire.query_from_proto(
            request.query, request_id=request.request_id, seed=request.seed
        )
        filters.validate(query.filters, self._runtime.schema)
        if not self._follower.caught_up.is_set():
            raise UnavailableError(f"{self._generator.name}: the index is being rebuilt")
        remaining = context.time_remaining()
        deadline = Deadline.after(math.inf if remaining is None else remaining)
        found = await self._runtime.in_thread(self._retrieve, query, limit, deadline, request)
        return pb.GenerateResponse(
            hits=wire.hits_to_proto(found.hits, explain=request.explain),
            scanned=found.scanned,
            catalog_sequence=self._catalog_sequence(),
            generator_version=self._version,
        )

    def _limit(self, request: pb.GenerateRequest) -> int:
        if request.limit > self._max_limit:
            raise InvalidArgumentError(
                "limit", f"{request.limit} is too many", allowed=f"0 to {self._max_limit}"
            )
        return request.limit or self._default_limit

    def _retrieve(
        self, query: Query, limit: int, deadline: Deadline, request: pb.GenerateRequest
    ) -> Retrieval:
        if request.min_catalog_sequence:
            self._follower.wait_for(Topic.CATALOG, request.min_catalog_sequence, deadline)
        deadline.check()
        with self._tracer.start_as_current_span(Span.RETRIEVE) as span:
            found = self._generator.retrieve(query, limit, deadline, explain=request.explain)
            span.set_attribute(Attribute.FAN_OUT, limit)
            span.set_attribute(Attribute.RETURNED, len(found.hits))
            span.set_attribute(Attribute.SCANNED, found.scanned)
        deadline.check()
        return found

    def _catalog_sequence(self) -> int:
        applied = [
            self._follower.applied(p.name)
            for p in self._generator.projections
            if p.topic is Topic.CATALOG
        ]
        return min(applied, default=0)

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Report how far each projection has followed the log."""
        return status_response(self._generator.name, self._follower, self._generator.entries())

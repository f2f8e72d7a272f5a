"""A small honest generator: it returns a fixed list, late or not at all if told so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from forage.errors import ForageError
from forage.log.follower import Follower
from forage.services import Assembly, Runtime, Service
from forage.settings import GeneratorSettings
from forage.v1 import candidate_pb2
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]
GRPC_SERVICE = pb.DESCRIPTOR.services_by_name["CandidateGeneratorService"].full_name


@dataclass(slots=True)
class ListGenerator(pb_grpc.CandidateGeneratorServiceServicer):
    """Serves the head of a list, in its order, whatever the query."""

    name: str
    item_ids: Sequence[str]
    delay_s: float = 0.0
    error: ForageError | None = None
    ready: bool = True
    """What it says of itself when asked for its status."""
    version: str = ""
    """What it says of itself with every answer."""
    requests: list[pb.GenerateRequest] = field(default_factory=list)
    """Every request received, in order."""

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Return the first `limit` items, after the delay, or raise the error."""
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        found = self.item_ids[: request.limit]
        return pb.GenerateResponse(
            hits=[
                pb.Hit(
                    item_id=item_id,
                    score=1 / rank,
                    reasons=[candidate_pb2.Reason(kind="place", detail=f"{rank} in the list")]
                    if request.explain
                    else (),
                )
                for rank, item_id in enumerate(found, start=1)
            ],
            scanned=len(self.item_ids),
            generator_version=self.version,
        )

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Report readiness as told; there is no projection behind a list."""
        return pb.GetStatusResponse(service=self.name, ready=self.ready)

    def service(self) -> Service:
        """Return this generator as a service that `running` can serve."""

        def build(settings: GeneratorSettings, runtime: Runtime) -> Assembly:
            def add_to(server: grpc.aio.Server) -> None:
                pb_grpc.add_CandidateGeneratorServiceServicer_to_server(self, server)

            return Assembly(add_to, (GRPC_SERVICE,), Follower(runtime.log, []))

        return Service(self.name, "A fixed list.", GeneratorSettings, build)

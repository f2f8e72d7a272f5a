"""A service that does what its query says, for tests of the bootstrap and the supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from forage.errors import InvalidArgumentError, StartupError
from forage.log import Record, Stream, Topic
from forage.log.follower import Follower
from forage.reporting import status_response
from forage.services import Assembly, Runtime, Service
from forage.settings import ServiceSettings
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
GRPC_SERVICE = "forage.v1.CandidateGeneratorService"
SECRET = "a value that no client may see"
_POLL_S = 0.01


class ProbeSettings(ServiceSettings):
    """What the probe can be told."""

    gate: Path | None = None
    """Applies no record before this file exists, and ends no `wait`."""
    refuse: str = ""
    """Refuses to start, and says this."""
    crash: bool = False
    """Ends with status 1 instead of starting."""


class GatedProjection:
    """Counts catalogue records once the gate is open."""

    name = "probe"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(self, gate: Path | None) -> None:
        self._gate = gate
        self.count = 0

    def restore(self) -> int:
        """Begin at the beginning."""
        return 0

    def apply(self, records: Sequence[Record]) -> None:
        """Count, or fail while the gate is shut: the follower tries again."""
        if self._gate is not None and not self._gate.exists():
            raise RuntimeError("the gate is shut")
        self.count += len(records)

    def checkpoint(self, sequence: int) -> None:
        """Keep nothing."""


class ProbeServicer(pb_grpc.CandidateGeneratorServiceServicer):
    """Answers, fails, waits or dies, by the query's text."""

    def __init__(self, settings: ProbeSettings, follower: Follower) -> None:
        self._settings = settings
        self._follower = follower

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register this servicer."""
        pb_grpc.add_CandidateGeneratorServiceServicer_to_server(self, server)

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Do what the text says: `refuse`, `break`, `die`, `wait`, or echo it as an item."""
        text = request.query.text
        if text == "refuse":
            raise InvalidArgumentError("query.text", "it says so", allowed="anything else")
        if text == "break":
            raise ValueError(SECRET)
        if text == "die":
            os._exit(9)
        gate = self._settings.gate
        # Another process opens the gate, so there is nothing to wait for but the file.
        while text == "wait" and gate is not None and not gate.exists():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return pb.GenerateResponse(hits=[pb.Hit(item_id=text or "nothing", score=1.0)])

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Report the projection."""
        return status_response("probe", self._follower, {})


def build(settings: ProbeSettings, runtime: Runtime) -> Assembly:
    """Assemble the probe."""
    if settings.refuse:
        raise StartupError(settings.refuse)
    if settings.crash:
        os._exit(1)
    follower = Follower(runtime.log, [GatedProjection(settings.gate)])
    servicer = ProbeServicer(settings, follower)
    return Assembly(servicer.add_to, (GRPC_SERVICE,), follower)


SERVICE = Service("probe", "Does what its query says.", ProbeSettings, build)


def install(directory: Path, *names: str) -> None:
    """Write the entry points by which `forage serve NAME` finds the probe, under these names.

    `directory` must be on the path that Python imports from.
    """
    info = directory / "forage_probe-1.0.dist-info"
    info.mkdir(parents=True)
    lines = [f"{name} = forage.testing.probe:SERVICE\n" for name in names]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forage-probe\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[forage.services]\n" + "".join(lines))

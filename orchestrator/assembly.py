"""Puts the orchestrator together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import grpc

from forage.channel import connect
from forage.errors import ForageError
from forage.lease import FileLease
from forage.log.follower import Follower
from forage.services import Assembly, Runtime, Service
from forage.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)
from orchestrator import servicers
from orchestrator.breaker import Breaker
from orchestrator.fanout import FanOut
from orchestrator.history import HistoryProjection
from orchestrator.index import CatalogProjection
from orchestrator.learning import PolicyProjection
from orchestrator.load import Load
from orchestrator.pipeline import Parts, Pipeline
from orchestrator.planner import Planner
from orchestrator.ranking import RANKER, Ranking
from orchestrator.recorder import Recorder
from orchestrator.settings import OrchestratorSettings
from orchestrator.snapshots import Snapshots
from orchestrator.switches import Mask, Switches
from orchestrator.understanding import Understanding

_REFRESH_S = 0.2
_METRICS_S = 5.0
_GRPC_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (search_service_pb2, "SearchService"),
        (feedback_service_pb2, "FeedbackService"),
        (catalog_service_pb2, "CatalogService"),
        (policy_service_pb2, "PolicyService"),
    )
)
_logger = logging.getLogger(__name__)


def build(settings: OrchestratorSettings, runtime: Runtime) -> Assembly:
    """Assemble the orchestrator; nothing is connected or read before `start`."""
    catalog = CatalogProjection(runtime.schema)
    history = HistoryProjection(settings.data_dir, runtime.log, settings.feedback)
    lease = FileLease(settings.data_dir / "leases") if settings.learner.enabled else None
    instruments = runtime.telemetry.instruments
    policy = PolicyProjection(
        settings,
        runtime.log,
        runtime.registry,
        lease,
        on_reward=lambda name, reward: instruments.reward(reward, policy=name),
    )
    follower = Follower(runtime.log, [catalog, history, policy], batch=300)
    breakers = {name: Breaker(settings.breaker) for name in (*settings.generators, RANKER)}
    planner = Planner(settings)
    snapshots = Snapshots(settings, runtime.registry)
    switches = Switches(settings, runtime.registry)
    recorder = Recorder(runtime, planner, draws=settings.plan.propensity_draws)
    load = Load(settings.load)
    channels: dict[str, grpc.aio.Channel] = {
        name: connect(
            target, runtime.telemetry, max_message_bytes=settings.server.max_message_bytes
        )
        for name, target in (
            *((g, t.target) for g, t in settings.generators.items()),
            (RANKER, settings.ranker.target),
        )
    }
    ranker_channel = channels.pop(RANKER)
    pipeline = Pipeline(
        Parts(
            settings=settings,
            runtime=runtime,
            catalog=catalog,
            history=history,
            understanding=Understanding(runtime.schema, catalog.gazetteer, settings.understanding),
            snapshots=snapshots,
            planner=planner,
            mask=Mask(settings, switches, breakers),
            fan_out=FanOut(channels, breakers, settings),
            ranking=Ranking(ranker_channel, breakers[RANKER], settings.ranker),
            recorder=recorder,
            load=load,
        )
    )

    def add_to(server: grpc.aio.Server) -> None:
        search_service_pb2_grpc.add_SearchServiceServicer_to_server(
            servicers.SearchServicer(
                pipeline, load, follower, runtime, deadline_s=settings.deadline_ms / 1000
            ),
            server,
        )
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(
            servicers.FeedbackServicer(runtime, recorder, settings.feedback), server
        )
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
            servicers.CatalogServicer(
                runtime,
                settings.schema_file,
                follower,
                {
                    catalog.name: lambda: len(catalog.view),
                    history.name: history.entries,
                    policy.name: lambda: policy.observations,
                },
                channels,
                ranker_channel,
            ),
            server,
        )
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(
            servicers.PolicyServicer(runtime, settings, snapshots, history, recorder, switches),
            server,
        )

    def publish() -> None:
        # Until it has caught up, a rebuilt learner knows less than what it published before.
        if follower.caught_up.is_set():
            policy.publish_if_due()

    def measure() -> None:
        for status in follower.status():
            instruments.projection_lag(status.lag, projection=status.name)

    tasks: list[asyncio.Task[None]] = []

    async def start() -> None:
        for work in (publish, snapshots.refresh, switches.refresh):
            await _attempt(work, runtime, "")
            tasks.append(asyncio.create_task(_every(_REFRESH_S, work, runtime)))
        tasks.append(asyncio.create_task(_every(_METRICS_S, measure, runtime)))
        await recorder.start()

    async def stop() -> None:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await recorder.stop()
        await runtime.in_thread(policy.release)
        await asyncio.gather(*(c.close() for c in (*channels.values(), ranker_channel)))

    return Assembly(add_to, _GRPC_SERVICES, follower, start, stop)


async def _every(interval_s: float, work: Callable[[], object], runtime: Runtime) -> None:
    failing = ""
    while True:
        await asyncio.sleep(interval_s)
        failing = await _attempt(work, runtime, failing)


async def _attempt(work: Callable[[], object], runtime: Runtime, failing: str) -> str:
    """Do some work; return why it failed, logging that unless `failing` says the same."""
    try:
        await runtime.in_thread(work)
    except Exception as error:
        if str(error) != failing:
            defect = None if isinstance(error, ForageError) else error
            _logger.error("%s", error, exc_info=defect)
        return str(error)
    return ""


SERVICE = Service(
    name="orchestrator",
    summary="Understands, plans, fans out, fuses, ranks and answers: the one public door.",
    settings=OrchestratorSettings,
    build=build,
)

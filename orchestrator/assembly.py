"""Puts the orchestrator together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import grpc

from forage.catalog.checkpoint import CatalogCheckpoint
from forage.channel import connect, replicated
from forage.errors import ForageError
from forage.lease import FileLease
from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots
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
from orchestrator.bandit.summary import posterior_width
from orchestrator.breaker import Breaker
from orchestrator.fanout import FanOut
from orchestrator.hedging import Hedge
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
    checkpoint = CatalogCheckpoint(
        settings.data_dir / CatalogProjection.name, runtime.log, runtime.schema, "orchestrator"
    )
    catalog = CatalogProjection(runtime.schema, checkpoint)
    history = HistoryProjection(settings.data_dir, runtime.log, settings.feedback)
    policy = _policy(settings, runtime)
    copies = IndexSnapshots.open(settings, runtime.log, runtime.registry, runtime.lease)
    follower = Follower(runtime.log, [catalog, history, policy], batch=300, snapshots=copies)
    breakers = {name: Breaker(settings.breaker) for name in (*settings.generators, RANKER)}
    planner = Planner(settings)
    snapshots = Snapshots(settings, runtime.registry)
    switches = Switches(settings, runtime.registry)
    recorder = Recorder(runtime, planner, draws=settings.plan.propensity_draws)
    channels, ranker = _channels(settings, runtime)
    hedges = _hedges(settings, runtime)
    parts = Parts(
        settings=settings,
        runtime=runtime,
        catalog=catalog,
        history=history,
        understanding=Understanding(runtime.schema, catalog.gazetteer, settings.understanding),
        snapshots=snapshots,
        planner=planner,
        mask=Mask(settings, switches, breakers),
        fan_out=FanOut(channels, breakers, hedges, settings),
        ranking=Ranking(ranker, breakers[RANKER], hedges.get(RANKER), settings.ranker),
        recorder=recorder,
        load=Load(settings.load),
    )
    chores = _Chores(runtime, follower, policy, snapshots, switches, breakers)

    def add_to(server: grpc.aio.Server) -> None:
        _add_servicers(server, parts, follower, policy, switches, channels, ranker)

    async def start() -> None:
        await chores.start()
        await recorder.start()

    async def stop() -> None:
        await chores.stop()
        await recorder.stop()
        await runtime.in_thread(policy.release)
        await asyncio.gather(*(c.close() for c in (*channels.values(), ranker)))

    return Assembly(add_to, _GRPC_SERVICES, follower, start, stop)


def _add_servicers(
    server: grpc.aio.Server,
    parts: Parts,
    follower: Follower,
    policy: PolicyProjection,
    switches: Switches,
    generators: Mapping[str, grpc.aio.Channel],
    ranker: grpc.aio.Channel,
) -> None:
    settings, runtime, recorder = parts.settings, parts.runtime, parts.recorder
    catalog, history = parts.catalog, parts.history
    entries: dict[str, Callable[[], int]] = {
        catalog.name: lambda: len(catalog.view),
        history.name: history.entries,
        policy.name: lambda: policy.observations,
    }
    deadline_s = settings.deadline_ms / 1000
    search_service_pb2_grpc.add_SearchServiceServicer_to_server(
        servicers.SearchServicer(
            Pipeline(parts), parts.load, follower, runtime, deadline_s=deadline_s
        ),
        server,
    )
    feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(
        servicers.FeedbackServicer(runtime, recorder, settings.feedback), server
    )
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
        servicers.CatalogServicer(
            runtime, settings.schema_file, follower, entries, generators, ranker
        ),
        server,
    )
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(
        servicers.PolicyServicer(runtime, settings, parts.snapshots, history, recorder, switches),
        server,
    )


def _policy(settings: OrchestratorSettings, runtime: Runtime) -> PolicyProjection:
    instruments = runtime.telemetry.instruments
    lease = runtime.lease or FileLease(settings.data_dir / "leases")
    return PolicyProjection(
        settings,
        runtime.log,
        runtime.registry,
        lease if settings.learner.enabled else None,
        on_reward=lambda name, reward: instruments.reward(reward, policy=name),
        tracer=runtime.telemetry.tracer,
    )


def _channels(
    settings: OrchestratorSettings, runtime: Runtime
) -> tuple[dict[str, grpc.aio.Channel], grpc.aio.Channel]:
    """Return the generators' channels by name, and the ranker's."""

    def channel(target: str) -> grpc.aio.Channel:
        most = settings.server.max_message_bytes
        return connect(target, runtime.telemetry, max_message_bytes=most)

    generators = {name: channel(target.target) for name, target in settings.generators.items()}
    return generators, channel(settings.ranker.target)


def _hedges(settings: OrchestratorSettings, runtime: Runtime) -> dict[str, Hedge]:
    """Return what repeats slow calls, for each service that has replicas."""
    addresses = {name: target.target for name, target in settings.generators.items()}
    addresses[RANKER] = settings.ranker.target
    instruments = runtime.telemetry.instruments

    def hedge(name: str) -> Hedge:
        return Hedge(settings.hedge, lambda outcome: instruments.hedged(outcome, component=name))

    return {name: hedge(name) for name, address in addresses.items() if replicated(address)}


class _Chores:
    """What is done again and again beside the searches: publish, refresh, measure."""

    def __init__(
        self,
        runtime: Runtime,
        follower: Follower,
        policy: PolicyProjection,
        snapshots: Snapshots,
        switches: Switches,
        breakers: Mapping[str, Breaker],
    ) -> None:
        self._runtime = runtime
        self._follower = follower
        self._policy = policy
        self._snapshots = snapshots
        self._switches = switches
        self._breakers = breakers
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Do everything once, then keep doing it."""
        for work in (self._publish, self._snapshots.refresh, self._switches.refresh):
            await _attempt(work, self._runtime, "")
            self._tasks.append(asyncio.create_task(_every(_REFRESH_S, work, self._runtime)))
        self._tasks.append(asyncio.create_task(_every(_METRICS_S, self._measure, self._runtime)))

    async def stop(self) -> None:
        """Stop after what is being done now."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _publish(self) -> None:
        # Until it has caught up, a rebuilt learner knows less than what it published before.
        if self._follower.caught_up.is_set():
            self._policy.publish_if_due()

    def _measure(self) -> None:
        instruments = self._runtime.telemetry.instruments
        now = time.monotonic()
        for name, breaker in self._breakers.items():
            instruments.breaker_state(breaker.state(now), generator=name)
        widths = posterior_width(self._snapshots.current.snapshot.hazard)
        for name, width in widths.items():
            instruments.posterior_width(width, generator=name)


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

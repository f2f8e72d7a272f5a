"""Fan-out: the planned calls in parallel under one deadline, and an outcome for each generator."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc

from forage.retrieval import Deadline
from forage.v1 import generator_service_pb2, generator_service_pb2_grpc, plan_pb2, query_pb2
from orchestrator.breaker import Breaker
from orchestrator.hedging import Hedge
from orchestrator.settings import OrchestratorSettings

_logger = logging.getLogger(__name__)

# Which failures are the mesh's weather, and which are somebody's defect and must be loud.
EXPECTED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)


def fair_timeout(timeout_ms: int) -> float:
    """Return the seconds that a service must have had before its silence counts as a failure.

    Otherwise callers in a hurry would open the breaker for everybody else.
    """
    return timeout_ms / 2_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one generator in one search."""

    generator: str
    status: plan_pb2.OutcomeStatus.ValueType
    fan_out: int = 0
    hits: Sequence[generator_service_pb2.Hit] = ()
    latency_s: float = 0.0
    detail: str = ""
    version: str = ""
    """The generator's, as it said with its answer."""

    @property
    def answered(self) -> bool:
        """Whether it answered in time; anything else is unknown, not empty."""
        return self.status == plan_pb2.OUTCOME_STATUS_ANSWERED


class FanOut:
    """Calls generators in parallel; failures become outcomes, never exceptions."""

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        breakers: Mapping[str, Breaker],
        hedges: Mapping[str, Hedge],
        settings: OrchestratorSettings,
    ) -> None:
        """`hedges` are of the generators that have replicas."""
        self._stubs = {
            name: generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel)
            for name, channel in channels.items()
        }
        self._breakers = breakers
        self._hedges = hedges
        self._settings = settings

    async def call(
        self,
        fan_outs: Mapping[str, int],
        masked: Mapping[str, str],
        query: query_pb2.Query,
        deadline: Deadline,
        *,
        request_id: str,
        seed: int,
        min_catalog_sequence: int,
        explain: bool,
    ) -> list[Outcome]:
        """Return one outcome per configured generator, in configuration order."""

        async def one(name: str) -> Outcome:
            fan_out = fan_outs.get(name, 0)
            if fan_out == 0:
                if name in masked:
                    return Outcome(name, plan_pb2.OUTCOME_STATUS_MASKED, detail=masked[name])
                return Outcome(name, plan_pb2.OUTCOME_STATUS_NOT_CHOSEN)
            request = generator_service_pb2.GenerateRequest(
                query=query,
                limit=fan_out,
                request_id=request_id,
                seed=seed,
                min_catalog_sequence=min_catalog_sequence,
                explain=explain,
            )
            return await self._generate(name, fan_out, request, deadline)

        names = list(self._stubs)
        return list(await asyncio.gather(*(one(name) for name in names)))

    async def _generate(
        self,
        name: str,
        fan_out: int,
        request: generator_service_pb2.GenerateRequest,
        deadline: Deadline,
    ) -> Outcome:
        breaker = self._breakers[name]
        started = time.monotonic()
        breaker.started(started)
        timeout = min(self._settings.generators[name].timeout_ms / 1000, deadline.remaining())
        try:
            response = await self._send(name, request, max(timeout, 0.001))
        except grpc.aio.AioRpcError as error:
            now = time.monotonic()
            hurried = timeout < fair_timeout(self._settings.generators[name].timeout_ms)
            if not (
                error.code() is grpc.StatusCode.INVALID_ARGUMENT
                or (error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and hurried)
            ):
                breaker.failed(now)
            return self._failure(name, fan_out, error, now - started)
        breaker.succeeded()
        return Outcome(
            name,
            plan_pb2.OUTCOME_STATUS_ANSWERED,
            fan_out,
            response.hits,
            time.monotonic() - started,
            version=response.generator_version,
        )

    async def _send(
        self, name: str, request: generator_service_pb2.GenerateRequest, timeout_s: float
    ) -> generator_service_pb2.GenerateResponse:
        generate, hedge = self._stubs[name].Generate, self._hedges.get(name)
        if hedge is None:
            return await generate(request, timeout=timeout_s)
        return await hedge.call(lambda left_s: generate(request, timeout=left_s), timeout_s)

    def _failure(
        self, name: str, fan_out: int, error: grpc.aio.AioRpcError, latency_s: float
    ) -> Outcome:
        code = error.code()
        if code not in EXPECTED:
            _logger.error("generator %s: %s: %s", name, code.name, error.details())
        timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
        return Outcome(
            name,
            plan_pb2.OUTCOME_STATUS_TIMED_OUT if timed_out else plan_pb2.OUTCOME_STATUS_FAILED,
            fan_out,
            latency_s=latency_s,
            detail=f"{code.name}: {error.details()}",
        )

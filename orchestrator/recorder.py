"""Records decisions after the answer: propensity first, then one commit for many searches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from forage import wire
from forage.errors import StorageError
from forage.log import Event, Stream
from forage.services import Runtime
from forage.telemetry import Attribute, Span
from forage.v1 import decision_pb2
from orchestrator.bandit.summary import effective_sample_size
from orchestrator.planner import Planned, Planner

_MOST_WAITING = 5_000
_BATCH = 256
_RECENT = 1_000
_RETRY_S = 0.5
_PATIENCE_S = 0.5
_POLL_S = 0.02
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    decision: decision_pb2.Decision
    planned: Planned | None
    trace: Context


class Recorder:
    """Keeps decisions until they are durable; feedback and later pages find them at once.

    A search never waits for the disk. While the log cannot be written, decisions wait in memory,
    up to a bound, and `failing` tells the searches to say so.
    """

    def __init__(self, runtime: Runtime, planner: Planner, *, draws: int) -> None:
        self._runtime = runtime
        self._planner = planner
        self._draws = draws
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._wake = asyncio.Event()
        self._written = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._dropped = 0
        self._propensities: deque[float] = deque(maxlen=_RECENT)
        self.failing = False
        """Whether the last attempt to write failed."""

    async def start(self) -> None:
        """Start writing."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what waits, trying once more if the log fails, and end."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task
        if lost := self._dropped + len(self._waiting):
            _logger.error("%d decisions could not be recorded", lost)

    def submit(self, decision: decision_pb2.Decision, planned: Planned | None) -> None:
        """Hand over a decision; `planned` is None for a later page, which has no plan."""
        self._waiting[decision.request_id] = _Waiting(decision, planned, otel_context.get_current())
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)
            self._dropped += 1
        self._wake.set()

    async def find(self, request_id: str) -> decision_pb2.Decision | None:
        """Return a decision, whether or not it is durable yet; None if there is none."""
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            return waiting.decision
        record = await self._runtime.in_thread(self._runtime.log.get, Stream.DECISIONS, request_id)
        return None if record is None else decision_pb2.Decision.FromString(record.payload)

    async def find_soon(self, request_id: str) -> decision_pb2.Decision | None:
        """Return a decision as `find` does, but wait a moment for it.

        A search that another orchestrator answered is in the log shortly after the answer, and its
        next page or its feedback may be here sooner.
        """
        until = time.monotonic() + _PATIENCE_S
        while True:
            decision = await self.find(request_id)
            if decision is not None or time.monotonic() > until:
                return decision
            await asyncio.sleep(_POLL_S)

    async def durable(self, request_ids: Collection[str]) -> None:
        """Wait until none of these decisions is waiting to be written.

        Raises `StorageError` if the log cannot be written now.
        """
        async with self._written:
            while any(r in self._waiting for r in request_ids):
                if self.failing:
                    raise StorageError("the decision is not durable yet; retry")
                await self._written.wait()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [w for w, _ in zip(self._waiting.values(), range(_BATCH), strict=False)]
                await self._write(batch)
                async with self._written:
                    self._written.notify_all()
                if self.failing:
                    if self._closing.is_set():
                        return
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), _RETRY_S)
            if self._closing.is_set():
                return

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            await self._runtime.in_thread(self._commit, batch)
        except Exception as error:
            if not self.failing:
                defect = None if isinstance(error, StorageError) else error
                _logger.error("decisions cannot be recorded: %s", error, exc_info=defect)
            self.failing = True
            return
        if self._dropped:
            _logger.error("%d decisions were given up while the log failed", self._dropped)
        self.failing, self._dropped = False, 0
        for waiting in batch:
            # The log keeps the first decision of an id, so one that came meanwhile is done too.
            self._waiting.pop(waiting.decision.request_id, None)

    def _measure(self, batch: list[_Waiting]) -> None:
        instruments = self._runtime.telemetry.instruments
        instruments.decisions_recorded(len(batch))
        known = [w.decision.propensity for w in batch if w.decision.propensity]
        self._propensities.extend(known)
        if known:
            instruments.propensity_ess(effective_sample_size(self._propensities))
        # One of a batch is enough for a distribution, and spares the searches beside it.
        planned = batch[0].planned
        if planned is not None:
            instruments.regret_proxy(self._planner.regret(planned), policy=planned.policy)

    def _commit(self, batch: list[_Waiting]) -> None:
        spans = [
            self._runtime.telemetry.tracer.start_span(Span.RECORD, context=w.trace) for w in batch
        ]
        try:
            for waiting, span in zip(batch, spans, strict=True):
                self._complete(waiting)
                span.set_attribute(Attribute.PROPENSITY, waiting.decision.propensity)
            self._runtime.log.append([_event(w.decision) for w in batch])
            self._measure(batch)
        finally:
            for span in spans:
                span.end()

    def _complete(self, waiting: _Waiting) -> None:
        decision, planned = waiting.decision, waiting.planned
        if planned is None or not self._draws or decision.propensity:
            return
        try:
            found = self._planner.propensity(planned, decision.request_id, self._draws)
        except Exception:
            # The decision is worth more than its propensity: 0 says that there is none.
            _logger.exception("the propensity of '%s' could not be computed", decision.request_id)
            return
        decision.propensity = found.value
        decision.propensity_draws = found.draws
        for name, row in zip(planned.context.generators, found.marginals, strict=True):
            decision.marginals.add(generator=name, probabilities=row)


def _event(decision: decision_pb2.Decision) -> Event:
    return Event(
        stream=Stream.DECISIONS,
        key=decision.request_id,
        payload=decision.SerializeToString(),
        time=wire.seconds(decision.time),
    )

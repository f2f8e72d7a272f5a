"""`forage.v1.FeedbackService`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.trace import Link, SpanContext, TraceFlags

from forage import wire
from forage.catalog.validation import check_item_id
from forage.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from forage.log import Event, Stream
from forage.services import Runtime
from forage.settings import FeedbackSettings
from forage.telemetry import Attribute, Span
from forage.v1 import decision_pb2
from forage.v1 import feedback_service_pb2 as pb
from forage.v1 import feedback_service_pb2_grpc as pb_grpc
from orchestrator.recorder import Recorder

Context = grpc.aio.ServicerContext[Any, Any]
_MOST_EVENTS = 1_000
_FUTURE_S = 300.0
_KINDS = {
    number: name.removeprefix("FEEDBACK_KIND_").lower() for name, number in pb.FeedbackKind.items()
}


class FeedbackServicer(pb_grpc.FeedbackServiceServicer):
    """Checks events against the searches they name, and appends them all or none."""

    def __init__(self, runtime: Runtime, recorder: Recorder, settings: FeedbackSettings) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._settings = settings

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: Context
    ) -> pb.RecordFeedbackResponse:
        """Record events; the trace links to the searches whose results they are about."""
        now = time.time()
        if not 1 <= len(request.events) <= _MOST_EVENTS:
            raise InvalidArgumentError(
                "events", f"{len(request.events)} events", allowed=f"1 to {_MOST_EVENTS}"
            )
        for index, event in enumerate(request.events):
            _identify(event, f"events[{index}]")
        # Projections join feedback to its decision, so the decision must be in the log first; and
        # what it says there is what the events are checked against.
        await self._recorder.durable({e.request_id for e in request.events})
        decisions = await self._decisions(request.events)
        for index, event in enumerate(request.events):
            _check(event, f"events[{index}]", decisions[event.request_id], now, self._settings)
        tracer = self._runtime.telemetry.tracer
        links = [link for d in decisions.values() if (link := _link(d)) is not None]
        with tracer.start_as_current_span(Span.RECORD_FEEDBACK, links=links) as span:
            if len(decisions) == 1:
                span.set_attribute(Attribute.REQUEST_ID, next(iter(decisions)))
            return await self._runtime.in_thread(self._append, request.events, now)

    async def _decisions(
        self, events: Sequence[pb.FeedbackEvent]
    ) -> dict[str, decision_pb2.Decision]:
        found: dict[str, decision_pb2.Decision] = {}
        for index, event in enumerate(events):
            if event.request_id not in found:
                decision = await self._recorder.find_soon(event.request_id)
                if decision is None:
                    raise NotFoundError(
                        f"events[{index}].request_id: there is no search '{event.request_id}'",
                        metadata={"field": f"events[{index}].request_id"},
                    )
                found[event.request_id] = decision
        return found

    def _append(self, events: Sequence[pb.FeedbackEvent], now: float) -> pb.RecordFeedbackResponse:
        log = self._runtime.log
        known = {e.event_id for e in events if log.get(Stream.FEEDBACK, e.event_id) is not None}
        sequences = log.append([_event(e, now) for e in events])
        recorded, seen = 0, set(known)
        for event in events:
            outcome = "duplicate" if event.event_id in seen else "recorded"
            recorded += event.event_id not in seen
            seen.add(event.event_id)
            self._runtime.telemetry.instruments.feedback_events(
                kind=_KINDS[event.kind], outcome=outcome
            )
        return pb.RecordFeedbackResponse(
            recorded=recorded, duplicates=len(events) - recorded, sequence=max(sequences)
        )


def _identify(event: pb.FeedbackEvent, field: str) -> None:
    check_item_id(event.event_id, f"{field}.event_id")
    check_item_id(event.request_id, f"{field}.request_id")
    check_item_id(event.item_id, f"{field}.item_id")


def _check(
    event: pb.FeedbackEvent,
    field: str,
    decision: decision_pb2.Decision,
    now: float,
    settings: FeedbackSettings,
) -> None:
    if event.kind not in _KINDS or event.kind == pb.FEEDBACK_KIND_UNSPECIFIED:
        allowed = ", ".join(name for number, name in _KINDS.items() if number)
        raise InvalidArgumentError(f"{field}.kind", "it is not set", allowed=allowed)
    if event.HasField("amount") and not (math.isfinite(event.amount) and 0 <= event.amount <= 1):
        raise InvalidArgumentError(f"{field}.amount", f"{event.amount}", allowed="0 to 1")
    if not any(shown.item_id == event.item_id for shown in decision.displayed):
        raise InvalidArgumentError(
            f"{field}.item_id",
            f"'{event.item_id}' was not shown by '{event.request_id}'",
            allowed="an item on the page that the request id names",
        )
    happened = wire.seconds(event.time) if event.HasField("time") else now
    searched = wire.seconds(decision.time)
    if happened > now + _FUTURE_S:
        raise InvalidArgumentError(
            f"{field}.time", "it is in the future", allowed=f"at most {_FUTURE_S:.0f} s from now"
        )
    if not searched - _FUTURE_S <= happened <= searched + settings.attribution_window_s:
        raise FailedPreconditionError(
            f"{field}.time: it is outside the attribution window of the search;"
            f" allowed: within {settings.attribution_window_s:.0f} s after it",
            metadata={"field": f"{field}.time"},
        )


def _event(event: pb.FeedbackEvent, now: float) -> Event:
    if not event.HasField("time"):
        event.time.CopyFrom(wire.timestamp(now))
    return Event(
        stream=Stream.FEEDBACK,
        key=event.event_id,
        payload=event.SerializeToString(),
        time=wire.seconds(event.time),
    )


def _link(decision: decision_pb2.Decision) -> Link | None:
    if not decision.trace_id:
        return None
    return Link(
        SpanContext(
            trace_id=int(decision.trace_id, 16),
            span_id=int(decision.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        ),
        {Attribute.REQUEST_ID: decision.request_id},
    )

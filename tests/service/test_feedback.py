"""Feedback: what is recorded, once, and what is refused and changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forage import wire
from forage.telemetry import Span, Telemetry
from forage.v1 import feedback_service_pb2 as pb
from tests.service.orchestrator_mesh import Mesh, ids, meshed, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLICK = pb.FEEDBACK_KIND_CLICK


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with meshed(tmp_path_factory.mktemp("feedback")) as found:
        yield found


def event(response: Any, **fields: Any) -> pb.FeedbackEvent:
    content = {
        "event_id": f"event-{time.time_ns()}",
        "request_id": response.request_id,
        "item_id": ids(response)[0],
        "kind": CLICK,
    }
    return pb.FeedbackEvent(**{**content, **fields})


async def record(mesh: Mesh, *events: pb.FeedbackEvent) -> Any:
    return await mesh.feedback.RecordFeedback(pb.RecordFeedbackRequest(events=events), timeout=10)


async def test_an_event_is_recorded_once_however_often_it_is_sent(mesh: Mesh) -> None:
    response = await mesh.search("once")
    click = event(response, event_id="once")

    first = await record(mesh, click)
    again = await record(mesh, click)
    twice = await record(mesh, click, event(response, event_id="new"), click)

    assert (first.recorded, first.duplicates) == (1, 0)
    assert (again.recorded, again.duplicates, again.sequence) == (0, 1, first.sequence)
    assert (twice.recorded, twice.duplicates) == (1, 2)
    assert twice.sequence == first.sequence + 1


async def test_events_of_several_searches_come_in_any_order(mesh: Mesh) -> None:
    early = await mesh.search("early")
    late = await mesh.search("late")
    now = time.time()

    answer = await record(
        mesh,
        event(late, event_id="b", time=wire.timestamp(now + 2)),
        event(early, event_id="a", time=wire.timestamp(now - 2)),
        event(late, event_id="c", kind=pb.FEEDBACK_KIND_DISLIKE, time=wire.timestamp(now)),
    )

    assert answer.recorded == 3


async def test_feedback_may_follow_its_search_at_once(mesh: Mesh) -> None:
    for number in range(10):
        response = await mesh.search(f"at once {number}")
        answer = await record(mesh, event(response))
        assert answer.recorded == 1


async def test_a_result_of_a_later_page_is_credited_to_that_page(mesh: Mesh) -> None:
    first = await mesh.search("pages", page_size=3)
    second = await mesh.search("pages", page_size=3, page_token=first.next_page_token)

    answer = await record(mesh, event(second))
    found = await refusal(lambda: record(mesh, event(first, item_id=ids(second)[0])))

    assert answer.recorded == 1
    assert found.code == "INVALID_ARGUMENT"


async def test_feedback_of_an_unknown_search_is_not_found_and_changes_nothing(mesh: Mesh) -> None:
    response = await mesh.search("known")
    before = (await record(mesh, event(response))).sequence

    found = await refusal(
        lambda: record(mesh, event(response), event(response, request_id="nobody"))
    )

    assert (found.code, found.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert found.metadata["field"] == "events[1].request_id"
    assert (await record(mesh, event(response))).sequence == before + 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no event id": ({"event_id": ""}, "event_id"),
    "a long event id": ({"event_id": "e" * 257}, "event_id"),
    "an event id with a control character": ({"event_id": "a\nb"}, "event_id"),
    "no request id": ({"request_id": ""}, "request_id"),
    "a long request id": ({"request_id": "r" * 100_000}, "request_id"),
    "no item": ({"item_id": ""}, "item_id"),
    "an item that was not shown": ({"item_id": "film:unknown"}, "item_id"),
    "no kind": ({"kind": pb.FEEDBACK_KIND_UNSPECIFIED}, "kind"),
    "an unknown kind": ({"kind": 99}, "kind"),
    "an amount that is NaN": ({"amount": math.nan}, "amount"),
    "an infinite amount": ({"amount": math.inf}, "amount"),
    "a negative amount": ({"amount": -0.1}, "amount"),
    "too large an amount": ({"amount": 1.1}, "amount"),
    "a time in the future": ({"time": wire.timestamp(time.time() + 3_600)}, "time"),
    "a time beyond all years": ({"time": Timestamp(seconds=2**62)}, "time"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
async def test_bad_events_are_refused_by_field(
    mesh: Mesh, fields: dict[str, Any], field: str
) -> None:
    response = await mesh.search("bad")

    found = await refusal(lambda: record(mesh, event(response), event(response, **fields)))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"] == f"events[1].{field}"
    assert found.metadata["allowed"]


@pytest.mark.parametrize("age", [-(2**40), -3_600.0])
async def test_an_event_from_before_its_search_is_outside_the_window(
    mesh: Mesh, age: float
) -> None:
    response = await mesh.search("before")
    stamp = Timestamp(seconds=int(time.time() + age))

    found = await refusal(lambda: record(mesh, event(response, time=stamp)))

    assert (found.code, found.metadata["field"]) == ("FAILED_PRECONDITION", "events[0].time")


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_request_has_between_one_and_a_thousand_events(mesh: Mesh, count: int) -> None:
    response = await mesh.search("many")

    found = await refusal(lambda: record(mesh, *[event(response)] * count))

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "events")


async def test_the_trace_of_feedback_links_to_the_trace_of_its_search(tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("orchestrator", spans)
    async with meshed(tmp_path, telemetry=telemetry, ranker=False) as mesh:
        response = await mesh.search("linked")
        decision = await mesh.decision(response.request_id)
        await record(mesh, event(response))

    (recording,) = [s for s in spans.get_finished_spans() if s.name == Span.RECORD_FEEDBACK]
    (link,) = recording.links
    assert f"{link.context.trace_id:032x}" == response.trace_id
    assert f"{link.context.span_id:016x}" == decision.span_id
    assert recording.context.trace_id != link.context.trace_id
    telemetry.shutdown()

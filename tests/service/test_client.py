import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from forage.catalog.item import Item, Value
from forage.client import AsyncClient, Client, Retry, UnreachableError
from forage.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from forage.log import Stream
from forage.retrieval import Filter
from forage.telemetry import Telemetry
from tests.service.served import RISING, SHOWN, Served, served, stuck

QUICK = Retry(first_s=0.01, longest_s=0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("client")) as found:
        yield found


@pytest.fixture
def mesh(shared: Served) -> Served:
    shared.begin()
    return shared


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, int]]:
    with stuck(tmp_path_factory.mktemp("behind")) as found:
        yield found


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, mesh: Served) -> Callable[..., Any]:
    """Calls one method of a new client, in either style, and returns or raises what it does."""

    def run(
        method: str,
        *args: Any,
        at: Served = mesh,
        client: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        kwargs = {"retry": QUICK, **(client or {})}
        if request.param == "sync":
            with Client(at.address, **kwargs) as sync:
                return getattr(sync, method)(*args, **options)

        async def awaited() -> Any:
            async with AsyncClient(at.address, **kwargs) as aio:
                result: Awaitable[Any] = getattr(aio, method)(*args, **options)
                return await result

        return asyncio.run(awaited())

    return run


def test_a_search_returns_items_with_provenance(call):
    page = call("search", "moon", page_size=1, filters=[Filter("year", minimum=1990.0)])

    assert [r.item.item_id for r in page] == [RISING]
    assert page.results[0].item.number("year") == 1991.0
    assert page.results[0].provenance[0].generator == "titles"
    assert page.results[0].provenance[0].rank == len(SHOWN) - 1
    assert [o.status for o in page.outcomes] == ["answered", "not_chosen"]
    assert page.degraded == ()
    assert page.plan is None


def test_explain_brings_plan_reasons_and_contributions(call):
    page = call("search", "moon", explain=True)

    assert page.plan.calls[0].levels == (0, 10, 25, 50, 100)
    assert page.results[0].provenance[0].reasons[0].detail == f"{len(SHOWN)} in the list"
    assert page.results[0].contributions == {"place": 0.5}


def test_pages_show_the_whole_list_once(mesh):
    with Client(mesh.address) as client:
        seen = [r.item.item_id for page in client.pages("", page_size=7) for r in page]

    async def asynchronous() -> list[str]:
        async with AsyncClient(mesh.address) as client:
            return [r.item.item_id async for page in client.pages("", page_size=7) for r in page]

    assert seen == SHOWN
    assert asyncio.run(asynchronous()) == seen


def test_an_item_comes_back_as_it_was_written(call, mesh):
    item = Item(
        "film:new",
        "film",
        {
            "title": (Value("New"),),
            "genre": (Value("drama", 0.5, "genre:drama", predicted=True),),
            "released": (Value(1_000_000.5),),
        },
    )

    sequence = call("upsert", [item])

    assert mesh.logged(Stream.CATALOG)[0].sequence == sequence
    assert mesh.items() == {"film:new": item}
    assert call("get_item", "film:new") == item
    assert call("delete", ["film:new"]) == sequence + 1
    with pytest.raises(NotFoundError):
        call("get_item", "film:new")


def test_a_refusal_names_field_and_what_is_allowed(call):
    with pytest.raises(InvalidArgumentError) as refused:
        call("search", "", filters=[Filter("mood", ("dark",))])

    assert refused.value.field == "filters[0].attribute"
    assert "year" in refused.value.allowed


def test_feedback_is_retried_through_an_outage_and_counted_once(call, mesh):
    page = call("search", "moon")
    mesh.line.failures.extend([UnavailableError("restarting"), OverloadedError("busy")])
    # The third attempt is recorded, and its answer is lost.
    mesh.line.failure_after = UnavailableError("cut off")

    receipt = call("record_feedback", page.request_id, page.results[0].item.item_id, "click")

    assert mesh.line.calls.count("RecordFeedback") == 4
    assert (receipt.recorded, receipt.duplicates) == (0, 1)
    assert list(mesh.events()) == list(receipt.event_ids)


def test_a_retried_search_is_answered_from_the_first_attempts_decision(call, mesh):
    mesh.line.failure_after = UnavailableError("cut off")

    page = call("search", "moon")

    assert mesh.line.calls == ["Search", "Search"]
    (asked,) = mesh.mesh.generators["titles"].requests
    assert asked.request_id == page.request_id


def test_an_overloaded_server_is_not_searched_again(call, mesh):
    mesh.line.failures.append(OverloadedError("busy"))

    with pytest.raises(OverloadedError):
        call("search", "moon")

    assert mesh.line.calls == ["Search"]


def test_retries_end_with_the_deadline(call, mesh):
    mesh.line.refuse("Search", UnavailableError("down"))
    started = time.monotonic()

    # The deadline may also come while an attempt is on its way.
    with pytest.raises((UnavailableError, DeadlineExceededError)):
        call("search", "moon", client={"timeout_s": 0.5})

    assert 0.3 < time.monotonic() - started < 2.0
    assert mesh.line.calls.count("Search") > 2


def test_a_server_that_says_it_is_unavailable_was_reached(call, mesh):
    mesh.line.failures.append(UnavailableError("rebuilding"))

    with pytest.raises(UnavailableError) as failed:
        call("policy", client={"retry": Retry(for_s=0.0)})

    assert not isinstance(failed.value, UnreachableError)


def test_no_server_at_the_address_is_an_error_of_its_own():
    with (
        Client("127.0.0.1:1", retry=Retry(for_s=0.1)) as client,
        pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"),
    ):
        client.search("moon")


def test_a_client_goes_on_after_the_server_was_restarted(tmp_path):
    over = threading.Event()

    def restart(port: int) -> None:
        with served(tmp_path, items=(), server={"port": port, "grace_ms": 0}):
            over.wait(20)

    with served(tmp_path) as first:
        address = first.mesh.address
        client = Client(address, timeout_s=20.0)
        before = client.search("moon")
    with client:
        with pytest.raises(UnavailableError):
            client.search("moon", timeout_s=0.2)
        thread = threading.Thread(target=restart, args=(int(address.rpartition(":")[2]),))
        thread.start()
        after = client.search("moon")
        over.set()
        thread.join()

    assert [r.item for r in after] == [r.item for r in before]
    assert len(after) == 10


def test_waiting_for_a_sequence_names_who_is_behind(call, mesh, behind):
    stuck_mesh, sequence = behind
    head = call("ingest_status").catalog_head

    with pytest.raises(DeadlineExceededError) as failed:
        call("wait_for", sequence, at=stuck_mesh, timeout_s=0.2)

    assert call("wait_for", head).catalog_head == head
    applied = sequence - 7
    assert f"orchestrator.catalog (at {applied}), others (unreachable)" in failed.value.message


def test_decisions_policy_replay_and_switches(call, mesh):
    page = call("search", "moon")

    decision = call("decision", page.request_id)
    assert decision.displayed == tuple(r.item.item_id for r in page)
    assert call("replay", page.request_id).identical
    assert call("set_generator_enabled", "titles", False) == ("titles",)
    # A decision is decided again from its record, whatever has been switched off since.
    assert call("replay", page.request_id).identical
    assert [arm.enabled for arm in call("policy").arms] == [False, True]
    missing = call("search", "moon").degraded
    assert [(d.component, d.reason) for d in missing] == [("titles", "DISABLED")]
    assert call("set_generator_enabled", "titles", True) == ()


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, InMemorySpanExporter]]:
    """A mesh whose orchestrator is traced: its address, and the spans."""
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("server", spans)
    with served(tmp_path_factory.mktemp("traced"), telemetry=telemetry) as found:
        yield found.mesh.address, spans


@pytest.mark.parametrize("style", ["sync", "async"])
def test_the_servers_span_hangs_below_the_clients(traced, style):
    address, spans = traced
    spans.clear()
    telemetry = Telemetry.in_memory("client", spans)
    if style == "sync":
        with Client(address, telemetry=telemetry) as client:
            client.search("moon")
    else:

        async def asynchronous() -> None:
            async with AsyncClient(address, telemetry=telemetry) as client:
                await client.search("moon")

        asyncio.run(asynchronous())

    search = "forage.v1.SearchService/Search"
    by_kind = {span.kind: span for span in spans.get_finished_spans() if span.name == search}
    client_span, server_span = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
    assert server_span.parent is not None
    assert server_span.parent.span_id == client_span.context.span_id
    assert server_span.context.trace_id == client_span.context.trace_id

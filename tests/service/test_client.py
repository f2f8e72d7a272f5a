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
from forage.retrieval import Filter
from forage.telemetry import Telemetry
from forage.testing.catalog import SCHEMA, items
from forage.testing.orchestrator import InMemoryOrchestrator
from forage.testing.running import running

QUICK = Retry(first_s=0.01, longest_s=0.05)


@pytest.fixture
def orchestrator() -> InMemoryOrchestrator:
    orchestrator = InMemoryOrchestrator(SCHEMA)
    orchestrator.put(*items())
    return orchestrator


@pytest.fixture
def address(orchestrator: InMemoryOrchestrator) -> Iterator[str]:
    with running(orchestrator) as address:
        yield address


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, address: str) -> Callable[..., Any]:
    """Calls one method of a new client, in either style, and returns or raises what it does."""

    def run(method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        kwargs = {"retry": QUICK, **(client or {})}
        if request.param == "sync":
            with Client(address, **kwargs) as sync:
                return getattr(sync, method)(*args, **options)

        async def awaited() -> Any:
            async with AsyncClient(address, **kwargs) as aio:
                result: Awaitable[Any] = getattr(aio, method)(*args, **options)
                return await result

        return asyncio.run(awaited())

    return run


def test_a_search_returns_items_with_provenance(call):
    page = call("search", "moon", page_size=1, filters=[Filter("year", minimum=1990.0)])

    assert [r.item.item_id for r in page] == ["film:copper-moon-rising"]
    assert page.results[0].item.number("year") == 1991.0
    assert page.results[0].provenance[0].generator == "titles"
    assert page.outcomes[0].status == "answered"
    assert page.plan is None


def test_explain_brings_plan_reasons_and_contributions(call):
    page = call("search", "moon", explain=True)

    assert page.plan.calls[0].levels == (0, 10, 25)
    assert page.results[0].provenance[0].reasons[0].detail == "title"
    assert page.results[0].contributions == {"titles.rank": 0.5}


def test_pages_show_the_whole_list_once(orchestrator, address):
    with Client(address) as client:
        seen = [r.item.item_id for page in client.pages("", page_size=7) for r in page]

    async def asynchronous() -> list[str]:
        async with AsyncClient(address) as client:
            return [r.item.item_id async for page in client.pages("", page_size=7) for r in page]

    assert seen == list(orchestrator.items)
    assert asyncio.run(asynchronous()) == seen


def test_an_item_comes_back_as_it_was_written(call, orchestrator):
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

    assert sequence == orchestrator.sequence
    assert call("get_item", "film:new") == item
    assert call("delete", ["film:new"]) == sequence + 1
    with pytest.raises(NotFoundError):
        call("get_item", "film:new")


def test_a_refusal_names_field_and_what_is_allowed(call):
    with pytest.raises(InvalidArgumentError) as refused:
        call("search", "", filters=[Filter("mood", ("dark",))])

    assert refused.value.field == "filters[0].attribute"
    assert "year" in refused.value.allowed


def test_feedback_is_retried_through_an_outage_and_counted_once(call, orchestrator):
    page = call("search", "moon")
    orchestrator.failures.extend([UnavailableError("restarting"), OverloadedError("busy")])
    # The third attempt is recorded, and its answer is lost.
    orchestrator.failure_after = UnavailableError("cut off")

    receipt = call("record_feedback", page.request_id, page.results[0].item.item_id, "click")

    assert orchestrator.calls.count("RecordFeedback") == 4
    assert receipt.duplicates == 1
    assert list(orchestrator.events) == list(receipt.event_ids)


def test_a_retried_search_is_answered_from_the_first_attempts_decision(call, orchestrator):
    orchestrator.failure_after = UnavailableError("cut off")

    page = call("search", "moon")

    assert orchestrator.calls == ["Search", "Search"]
    assert list(orchestrator.decisions) == [page.request_id]


def test_an_overloaded_server_is_not_searched_again(call, orchestrator):
    orchestrator.failures.append(OverloadedError("busy"))

    with pytest.raises(OverloadedError):
        call("search", "moon")

    assert orchestrator.calls == ["Search"]


def test_retries_end_with_the_deadline(call, orchestrator):
    orchestrator.failures.extend([UnavailableError("down")] * 1_000)
    started = time.monotonic()

    with pytest.raises(UnavailableError, match="down"):
        call("search", "moon", client={"timeout_s": 0.3})

    assert time.monotonic() - started < 2.0


def test_a_server_that_says_it_is_unavailable_was_reached(call, orchestrator):
    orchestrator.failures.append(UnavailableError("rebuilding"))

    with pytest.raises(UnavailableError) as failed:
        call("policy", client={"retry": Retry(for_s=0.0)})

    assert not isinstance(failed.value, UnreachableError)


def test_no_server_at_the_address_is_an_error_of_its_own():
    with (
        Client("127.0.0.1:1", retry=Retry(for_s=0.1)) as client,
        pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"),
    ):
        client.search("moon")


def test_a_client_goes_on_after_the_server_was_restarted(orchestrator):
    done = threading.Event()

    def restart(port: int) -> None:
        with running(orchestrator, port=port):
            done.wait(20)

    with running(orchestrator) as address:
        client = Client(address, timeout_s=20.0)
        client.search("moon")
    with client:
        with pytest.raises(UnavailableError):
            client.search("moon", timeout_s=0.2)
        thread = threading.Thread(target=restart, args=(int(address.rpartition(":")[2]),))
        thread.start()
        page = client.search("moon")
        done.set()
        thread.join()

    assert len(page) == 2


def test_waiting_for_a_sequence_names_who_is_behind(call, orchestrator):
    assert call("wait_for", orchestrator.sequence).catalog_head == orchestrator.sequence
    orchestrator.lag = 5

    with pytest.raises(DeadlineExceededError, match=r"absent \(unreachable\), titles \(at "):
        call("wait_for", orchestrator.sequence, timeout_s=0.2)


def test_decisions_policy_replay_and_switches(call, orchestrator):
    page = call("search", "moon")

    decision = call("decision", page.request_id)
    assert decision.displayed == tuple(r.item.item_id for r in page)
    assert call("replay", page.request_id).identical
    assert call("set_generator_enabled", "titles", False) == ("titles",)
    assert not call("replay", page.request_id).identical
    assert not call("policy").arms[0].enabled
    assert call("search", "moon").degraded[0].reason == "DISABLED"


@pytest.mark.parametrize("style", ["sync", "async"])
def test_the_servers_span_hangs_below_the_clients(orchestrator, style):
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("client", spans)
    with running(orchestrator, telemetry=Telemetry.in_memory("server", spans)) as address:
        if style == "sync":
            with Client(address, telemetry=telemetry) as client:
                client.search("moon")
        else:

            async def asynchronous() -> None:
                async with AsyncClient(address, telemetry=telemetry) as client:
                    await client.search("moon")

            asyncio.run(asynchronous())

    by_kind = {span.kind: span for span in spans.get_finished_spans()}
    client_span, server_span = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
    assert server_span.parent is not None
    assert server_span.parent.span_id == client_span.context.span_id
    assert client_span.name == server_span.name == "forage.v1.SearchService/Search"

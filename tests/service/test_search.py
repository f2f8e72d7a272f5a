"""Searching: what is answered, what is refused, and what stays as it was."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forage import wire
from forage.catalog.filters import matches
from forage.catalog.item import Value
from forage.retrieval import Filter
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.lists import ListGenerator
from forage.v1 import plan_pb2, query_pb2
from orchestrator.paging import PageToken
from tests.service.orchestrator_mesh import (
    IDS,
    ITEMS,
    Mesh,
    SearchRequest,
    degraded,
    ids,
    meshed,
    refusal,
    statuses,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEEPER = "film:the-lantern-keeper"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh for tests that change nothing."""
    async with meshed(tmp_path_factory.mktemp("search")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def changing(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh for tests that write."""
    async with meshed(tmp_path) as found:
        yield found


def values(attribute: str, *wanted: str, exclude: bool = False) -> query_pb2.Filter:
    return query_pb2.Filter(
        attribute=attribute, any_of=query_pb2.ValueSet(values=wanted), exclude=exclude
    )


def between(attribute: str, low: float | None, high: float | None) -> query_pb2.Filter:
    message = query_pb2.Filter(attribute=attribute)
    message.range.SetInParent()
    if low is not None:
        message.range.min = low
    if high is not None:
        message.range.max = high
    return message


async def test_a_search_is_answered_by_every_part_and_says_how(mesh: Mesh) -> None:
    response = await mesh.search("lantern")

    assert len(response.results) == 10
    assert [r.position for r in response.results] == list(range(1, 11))
    assert not response.degraded
    assert set(statuses(response).values()) == {plan_pb2.OUTCOME_STATUS_ANSWERED}
    assert response.model_version == 7
    assert response.total_candidates > 10
    assert list(response.understood.tokens) == ["lantern"]
    assert response.latency.ToMicroseconds() > 0
    assert set(response.stages) == {"understand", "plan", "fan_out", "fuse", "rank", "answer"}
    assert not response.HasField("plan")


async def test_every_result_names_all_the_generators_that_found_it(mesh: Mesh) -> None:
    response = await mesh.search("lantern", page_size=100)

    for result in response.results:
        found = {
            name: list(g.item_ids[:10]).index(result.item.item_id) + 1
            for name, g in mesh.generators.items()
            if result.item.item_id in g.item_ids[:10]
        }
        assert {p.generator: p.rank for p in result.provenance} == found


async def test_explain_returns_the_plan_and_the_contributions(mesh: Mesh) -> None:
    response = await mesh.search("lantern", explain=True)

    assert [c.generator for c in response.plan.calls] == list(mesh.generators)
    assert [c.fan_out for c in response.plan.calls] == [10, 10, 10]
    assert response.plan.policy == "static"
    assert response.results[0].contributions[0].feature == "place"


async def test_results_are_grouped_and_counted_on_request(mesh: Mesh) -> None:
    response = await mesh.search("x", group_by_kind=True, facets=["kind", "genre"], page_size=50)

    kinds: dict[str, list[int]] = {}
    for result in response.results:
        kinds.setdefault(result.item.kind, []).append(result.position)
    assert {g.kind: list(g.positions) for g in response.groups} == kinds
    assert [g.kind for g in response.groups] == list(kinds)
    kind, genre = response.facets
    assert {c.value: c.count for c in kind.counts} == {k: len(p) for k, p in kinds.items()}
    assert [c.count for c in genre.counts] == sorted((c.count for c in genre.counts), reverse=True)


async def test_related_items_are_those_that_at_least_two_results_name(mesh: Mesh) -> None:
    response = await mesh.search("x", page_size=10)

    shown = set(ids(response))
    by_id = {item.item_id: item for item in ITEMS}
    assert response.related
    for related in response.related:
        naming = {
            i
            for i in shown
            if related.item.item_id in {v.item_id for _, v in by_id[i].references()}
        }
        assert related.item.item_id not in shown
        assert related.count == len(naming) >= 2


PUNCTUATION = ["", "   ", "!!!", '"unbalanced', "(((", "-", "AND OR NOT", "title:", ":::", "year:>"]
COLONS = ["mood :dark", '"mood:dark"', "Alien: Covenant"]
SCRIPTS = ["شاهد الفيلم", "東京の灯", "\u202egnp.exe", "😀 love"]
LONG = ["a" * 4_096, "lov " * 1_000]


@pytest.mark.parametrize("text", [*PUNCTUATION, *COLONS, *SCRIPTS, *LONG])
async def test_odd_texts_are_searched_all_the_same(mesh: Mesh, text: str) -> None:
    response = await mesh.search(text)

    assert len(response.results) == 10
    assert not response.degraded


BAD: dict[str, tuple[SearchRequest, str]] = {
    "100 kB of text": (SearchRequest(text="love " * 20_000), "text"),
    "a null character": (SearchRequest(text="a\0b"), "text"),
    "an escape character": (SearchRequest(text="\x1b[31m"), "text"),
    "a C1 control character": (SearchRequest(text="a\u0085b"), "text"),
    "a field that cannot be searched": (SearchRequest(text="love mood:dark"), "text"),
    "the same field in brackets": (SearchRequest(text="(mood:(dark OR sad))"), "text"),
    "the same field with a phrase": (SearchRequest(text='mood:"dark night"'), "text"),
    "a negative page size": (SearchRequest(page_size=-1), "page_size"),
    "a huge page size": (SearchRequest(page_size=2**31 - 1), "page_size"),
    "an id with a space": (SearchRequest(request_id="a b"), "request_id"),
    "an id with a line break at its end": (SearchRequest(request_id="abc\n"), "request_id"),
    "an id of a later page": (SearchRequest(request_id="abc~10~10"), "request_id"),
    "a very long id": (SearchRequest(request_id="a" * 100_000), "request_id"),
    "a locale that is none": (SearchRequest(locale="en_GB!"), "locale"),
    "a long device": (SearchRequest(device="x" * 65), "device"),
    "an unknown policy": (SearchRequest(policy="best"), "policy"),
    "a preset as policy": (SearchRequest(policy="preset0"), "policy"),
    "a very long policy": (SearchRequest(policy="p" * 100_000), "policy"),
    "an unknown filter": (
        SearchRequest(filters=[values("colour", "red")]),
        "filters[0].attribute",
    ),
    "a very long filter name": (
        SearchRequest(filters=[values("c" * 100_000, "red")]),
        "filters[0].attribute",
    ),
    "a filter without a constraint": (
        SearchRequest(filters=[query_pb2.Filter(attribute="genre")]),
        "filters[0].constraint",
    ),
    "a filter without values": (SearchRequest(filters=[values("genre")]), "filters[0]"),
    "values for a number": (SearchRequest(filters=[values("year", "1994")]), "filters[0]"),
    "a range of words": (SearchRequest(filters=[between("genre", 1, 2)]), "filters[0]"),
    "a range that is NaN": (
        SearchRequest(filters=[between("year", math.nan, None)]),
        "filters[0].range.min",
    ),
    "an infinite range": (
        SearchRequest(filters=[between("year", None, math.inf)]),
        "filters[0].range.max",
    ),
    "a range upside down": (
        SearchRequest(filters=[between("year", 2000, 1990)]),
        "filters[0].range",
    ),
    "an empty range": (SearchRequest(filters=[between("year", None, None)]), "filters[0]"),
    "too many filters": (SearchRequest(filters=[values("genre", "a")] * 33), "filters"),
    "too many values": (
        SearchRequest(filters=[values("genre", *map(str, range(1_001)))]),
        "filters[0].any_of.values",
    ),
    "a very long value": (
        SearchRequest(filters=[values("genre", "a" * 2_000)]),
        "filters[0].any_of.values",
    ),
    "an unknown facet": (SearchRequest(facets=["genre", "colour"]), "facets[1]"),
    "a facet of text": (SearchRequest(facets=["synopsis"]), "facets[0]"),
    "too many facets": (SearchRequest(facets=["genre"] * 33), "facets"),
    "too many examples": (SearchRequest(like_item_ids=[KEEPER] * 21), "like_item_ids"),
    "a long user id": (
        SearchRequest(user=query_pb2.UserContext(user_id="u" * 257)),
        "user.user_id",
    ),
    "too many recent items": (
        SearchRequest(user=query_pb2.UserContext(recent_item_ids=["a"] * 201)),
        "user.recent_item_ids",
    ),
    "a long recent item": (
        SearchRequest(user=query_pb2.UserContext(recent_item_ids=["a" * 257])),
        "user.recent_item_ids",
    ),
    "too many user attributes": (
        SearchRequest(user=query_pb2.UserContext(attributes={str(i): "" for i in range(33)})),
        "user.attributes",
    ),
    "a sequence that nobody wrote": (
        SearchRequest(min_catalog_sequence=2**63),
        "min_catalog_sequence",
    ),
}


@pytest.mark.parametrize(("request_", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_are_refused_by_field(
    mesh: Mesh, request_: SearchRequest, field: str
) -> None:
    found = await refusal(lambda: mesh.search_stub.Search(request_, timeout=10))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"] == field
    assert found.metadata["allowed"]


def token_of(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


BAD_TOKENS = {
    "not base64": "§§§",
    "not JSON": "AAAA",
    "a number": token_of(1),
    "too short a list": token_of(["a"]),
    "a negative offset": token_of(["a", -1, ""]),
    "an offset that is no number": token_of(["a", "b", ""]),
    "true as an offset": token_of(["a", True, ""]),
    "a huge offset": token_of(["a", 10**30, ""]),
    "an id with a lone surrogate": token_of(["\ud800", 10, ""]),
    "nesting": base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    "a made-up digest": token_of(["a", 10, "x"]),
    "100 kB": "A" * 100_000,
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
async def test_tokens_that_are_none_are_refused(mesh: Mesh, token: str) -> None:
    found = await refusal(lambda: mesh.search("x", page_token=token))

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_token")


async def test_a_token_of_another_request_is_refused(mesh: Mesh) -> None:
    first = await mesh.search("lantern")

    found = await refusal(lambda: mesh.search("moon", page_token=first.next_page_token))

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_token")


async def test_a_page_is_checked_like_a_first_page(mesh: Mesh) -> None:
    first = await mesh.search("lantern")

    found = await refusal(
        lambda: mesh.search("lantern", page_token=first.next_page_token, page_size=-5)
    )

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_size")


async def test_a_token_of_a_search_that_is_not_recorded_is_not_found(mesh: Mesh) -> None:
    first = await mesh.search("lantern")
    request_id, offset, digest = json.loads(base64.urlsafe_b64decode(first.next_page_token + "=="))
    token = PageToken(request_id + "x", offset, digest).encode()

    found = await refusal(lambda: mesh.search("lantern", page_token=token))

    assert found.code == "NOT_FOUND"


async def test_unknown_example_items_are_not_found(mesh: Mesh) -> None:
    found = await refusal(lambda: mesh.search(like_item_ids=[KEEPER, "film:" + "x" * 10_000]))

    assert (found.code, found.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert found.metadata["field"] == "like_item_ids"


async def test_a_field_that_cannot_be_searched_is_refused_whatever_the_plan(mesh: Mesh) -> None:
    before = sum(len(g.requests) for g in mesh.generators.values())

    for policy in ("static", "full", "thompson", "lints", "uniform", "epsilon_greedy"):
        found = await refusal(lambda p=policy: mesh.search("mood:dark", policy=p))
        assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "text")

    assert sum(len(g.requests) for g in mesh.generators.values()) == before


async def test_filters_reach_every_generator(mesh: Mesh) -> None:
    wanted = Filter("genre", ("drama",))

    await mesh.search("filtered", filters=[wire.filter_to_proto(wanted)])

    for generator in mesh.generators.values():
        (last,) = [r for r in generator.requests if r.query.text == "filtered"]
        assert wire.filters_from_proto(last.query.filters) == (wanted,)


@pytest.mark.parametrize("filters", catalog.FILTERS.values(), ids=catalog.FILTERS)
async def test_an_item_that_a_generator_let_slip_through_a_filter_is_not_shown(
    mesh: Mesh, filters: tuple[Filter, ...]
) -> None:
    response = await mesh.search(
        "x", filters=[wire.filter_to_proto(f) for f in filters], page_size=100
    )

    found = {i for g in mesh.generators.values() for i in g.item_ids[:10]}
    allowed = {i.item_id for i in ITEMS if matches(i, filters)}
    assert set(ids(response)) == found & allowed
    assert response.total_candidates == len(found & allowed)


async def test_pages_are_one_list_cut_up(mesh: Mesh) -> None:
    whole = await mesh.search("one list", page_size=100)

    seen, token = [], ""
    for _ in range(20):
        page = await mesh.search("cut up", page_size=4, page_token=token, facets=["kind"])
        positions = [r.position for r in page.results]
        assert positions == list(range(len(seen) + 1, len(seen) + 1 + len(positions)))
        assert sum(c.count for c in page.facets[0].counts) == whole.total_candidates
        seen += ids(page)
        token = page.next_page_token
        if not token:
            break

    assert seen == ids(whole)


async def test_the_page_size_may_change_between_pages(mesh: Mesh) -> None:
    first = await mesh.search("sizes", page_size=3)
    second = await mesh.search("sizes", page_size=5, page_token=first.next_page_token)
    other = await mesh.search("sizes", page_size=7, page_token=first.next_page_token)

    assert ids(other)[:5] == ids(second)
    assert len({first.request_id, second.request_id, other.request_id}) == 3


async def test_what_only_one_size_of_a_page_showed_can_be_credited(mesh: Mesh) -> None:
    first = await mesh.search("credit", page_size=3)
    await mesh.search("credit", page_size=2, page_token=first.next_page_token)
    wide = await mesh.search("credit", page_size=9, page_token=first.next_page_token)

    recorded = await mesh.click(wide, ids(wide)[-1], "wide-page")

    assert recorded.recorded == 1


async def test_pages_stay_as_they_were_while_catalogue_and_policy_change(changing: Mesh) -> None:
    whole = ids(await changing.search("stable", page_size=100, request_id="whole"))
    first = await changing.search("stable", page_size=5)
    later = replace(ITEMS[0], item_id="film:brand-new")
    await changing.upsert([later])
    for generator in changing.generators.values():
        generator.item_ids = ["film:brand-new", *reversed(generator.item_ids)]

    second = await changing.search("stable", page_size=5, page_token=first.next_page_token)

    assert ids(first) + ids(second) == whole[:10]
    assert [r.position for r in second.results] == [6, 7, 8, 9, 10]


async def test_a_deleted_item_is_shown_on_no_page(changing: Mesh) -> None:
    first = await changing.search("gone", page_size=5)
    root = await changing.decision(first.request_id)
    whole = [d.item_id for d in (*root.displayed, *root.later)]
    gone = [whole[0], whole[6]]
    sequence = await changing.delete(*gone)

    again = await changing.search("gone", page_size=100, min_catalog_sequence=sequence)
    second = await changing.search("gone", page_size=5, page_token=first.next_page_token)

    assert set(ids(again)) == set(whole) - set(gone)
    assert ids(second) == [i for i in whole[5:10] if i not in gone]
    decision = await changing.decision(second.request_id)
    assert [d.item_id for d in decision.displayed] == ids(second)


async def test_a_repeated_request_id_gets_the_same_answer(changing: Mesh) -> None:
    first = await changing.search("again", request_id="again-1", facets=["kind"])
    for generator in changing.generators.values():
        generator.item_ids = list(reversed(generator.item_ids))

    second = await changing.search("again", request_id="again-1", facets=["kind"])

    assert ids(second) == ids(first)
    assert second.facets == first.facets
    assert second.outcomes == first.outcomes
    assert second.next_page_token == first.next_page_token
    assert second.latency == first.latency


async def test_searches_of_one_request_id_at_once_are_one_search(mesh: Mesh) -> None:
    answers = await asyncio.gather(
        *(mesh.search("at once", request_id="at-once") for _ in range(8))
    )

    assert {tuple(ids(a)) for a in answers} == {tuple(ids(answers[0]))}
    for generator in mesh.generators.values():
        assert [r.query.text for r in generator.requests].count("at once") == 1


async def test_a_write_is_visible_to_a_search_that_waits_for_it(changing: Mesh) -> None:
    item = replace(
        ITEMS[0],
        item_id="film:zanzibar",
        attributes={**ITEMS[0].attributes, "title": (Value("Zanzibar Nights"),)},
    )
    for generator in changing.generators.values():
        generator.item_ids = ["film:zanzibar", *generator.item_ids]

    sequence = await changing.upsert([item])
    response = await changing.search(
        "zanzibar nights", min_catalog_sequence=sequence, page_size=100
    )

    assert "film:zanzibar" in ids(response)
    assert response.understood.query_class == query_pb2.QUERY_CLASS_NAVIGATIONAL
    for generator in changing.generators.values():
        assert generator.requests[-1].min_catalog_sequence == sequence


async def test_example_items_reach_the_generators(mesh: Mesh) -> None:
    response = await mesh.search(like_item_ids=[KEEPER, KEEPER])

    assert response.understood.query_class == query_pb2.QUERY_CLASS_BROWSE
    last = mesh.generators["semantic"].requests[-1]
    assert list(last.query.like_item_ids) == [KEEPER, KEEPER]


async def test_the_same_request_has_the_same_randomness_in_every_generator(mesh: Mesh) -> None:
    await mesh.search("seeded", request_id="seeded-1")

    seeds = {
        r.seed for g in mesh.generators.values() for r in g.requests if r.request_id == "seeded-1"
    }
    assert len(seeds) == 1
    assert seeds != {0}


async def test_a_search_names_its_trace_and_the_servers_span(tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("orchestrator", spans)
    async with meshed(tmp_path, telemetry=telemetry) as mesh:
        response = await mesh.search("traced")
        decision = await mesh.decision(response.request_id)

    finished = {f"{s.context.span_id:016x}": s for s in spans.get_finished_spans()}
    assert response.trace_id == decision.trace_id != ""
    assert finished[decision.span_id].parent is None
    assert f"{finished[decision.span_id].context.trace_id:032x}" == response.trace_id
    telemetry.shutdown()


async def test_a_catalogue_without_items_gives_empty_answers(tmp_path: Path) -> None:
    generators = [ListGenerator("lexical", [])]
    async with meshed(tmp_path, generators=generators, items=()) as mesh:
        response = await mesh.search("anything", facets=["genre"], group_by_kind=True)

    assert not response.results
    assert response.total_candidates == 0
    assert response.next_page_token == ""
    assert degraded(response) == {}


async def test_ids_that_the_catalogue_does_not_hold_are_not_shown(tmp_path: Path) -> None:
    generators = [ListGenerator("lexical", ["film:unknown", KEEPER, IDS[3]])]
    async with meshed(tmp_path, generators=generators) as mesh:
        response = await mesh.search("x")
        decision = await mesh.decision(response.request_id)

    assert set(ids(response)) == {KEEPER, IDS[3]}
    assert {d.item_id for d in decision.displayed} == {KEEPER, IDS[3]}

"""Searching: what is answered, and what stays as it was."""

from __future__ import annotations

import asyncio
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
from forage.v1.search_service_pb2 import SearchRequest
from tests.service.orchestrator_mesh import (
    IDS,
    ITEMS,
    Mesh,
    degraded,
    ids,
    meshed,
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


async def test_a_search_is_answered_by_every_part_and_says_how(mesh: Mesh) -> None:
    response = await mesh.search("lantern")

    assert len(response.results) == 10
    assert [r.position for r in response.results] == list(range(1, 11))
    assert not response.degraded
    assert set(statuses(response).values()) == {plan_pb2.OUTCOME_STATUS_ANSWERED}
    assert response.model_version == 7
    assert response.total_candidates > 10
    assert list(response.understood.tokens) == ["lantern"]
    assert set(response.stages) == {"understand", "plan", "fan_out", "fuse", "rank", "answer"}
    took = [stage.ToNanoseconds() for stage in response.stages.values()]
    assert min(took) > 0
    assert sum(took) <= response.latency.ToNanoseconds()
    assert not response.HasField("plan")


async def test_an_outcome_says_how_long_a_generator_took_and_which_version_it_is(
    tmp_path: Path,
) -> None:
    generators = [
        ListGenerator("lexical", IDS[:5], version="first"),
        ListGenerator("semantic", IDS[5:], version="second", delay_s=0.02),
    ]

    async with meshed(tmp_path, generators=generators) as mesh:
        response = await mesh.search("lantern")
        recorded = await mesh.recorded(response.request_id)

    quick, slow = response.outcomes
    assert list(recorded.outcomes) == [quick, slow]
    assert (quick.generator_version, slow.generator_version) == ("first", "second")
    whole = response.stages["fan_out"].ToMicroseconds()
    assert 20_000 <= slow.latency.ToMicroseconds() <= whole
    assert 0 < quick.latency.ToMicroseconds() <= whole


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


async def test_what_two_results_name_is_not_related_if_it_is_a_result(tmp_path: Path) -> None:
    films = ["film:night-of-the-copper-moon", "film:copper-moon-rising"]
    everyone = [ListGenerator("lexical", [*films, "person:dario-velt"])]
    async with meshed(tmp_path, generators=everyone) as mesh:
        response = await mesh.search("copper moon")

    related = {r.item.item_id: (r.attribute, r.count) for r in response.related}
    assert set(ids(response)) == {*films, "person:dario-velt"}
    assert related == {"person:sefa-morrow": ("cast", 2), "genre:horror": ("genre", 2)}


PUNCTUATION = ["", "   ", "!!!", '"unbalanced', "(((", "-", "AND OR NOT", "title:", ":::", "year:>"]
COLONS = ["mood :dark", '"mood:dark"', "Alien: Covenant"]
SCRIPTS = ["شاهد الفيلم", "東京の灯", "\u202egnp.exe", "😀 love"]
LONG = ["a" * 4_096, "lov " * 1_000]


@pytest.mark.parametrize("text", [*PUNCTUATION, *COLONS, *SCRIPTS, *LONG])
async def test_odd_texts_are_searched_all_the_same(mesh: Mesh, text: str) -> None:
    response = await mesh.search(text)

    assert len(response.results) == 10
    assert not response.degraded


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


async def test_a_page_that_ends_with_the_list_is_the_last(mesh: Mesh) -> None:
    first = await mesh.search("ends", page_size=3)
    rest = first.total_candidates - 3

    short = await mesh.search("ends", page_size=rest - 1, page_token=first.next_page_token)
    exact = await mesh.search("ends", page_size=rest, page_token=first.next_page_token)
    whole = await mesh.search("ends whole", page_size=first.total_candidates)

    assert short.next_page_token
    assert not exact.next_page_token
    assert not whole.next_page_token
    assert len(exact.results) == rest


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


async def test_a_search_that_is_not_sampled_names_no_trace(tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("orchestrator", spans)
    async with meshed(tmp_path, telemetry=telemetry) as mesh:
        response = await mesh.search_stub.Search(
            SearchRequest(text="untraced"),
            timeout=10.0,
            metadata=(("traceparent", f"00-{7:032x}-{7:016x}-00"),),
        )
        decision = await mesh.decision(response.request_id)

    assert response.results
    assert (response.trace_id, decision.trace_id, decision.span_id) == ("", "", "")
    assert not [s for s in spans.get_finished_spans() if s.context.trace_id == 7]
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

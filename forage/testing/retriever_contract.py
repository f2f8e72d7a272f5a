"""What every candidate generator owes the mesh, as tests to inherit."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from forage.catalog.filters import matches
from forage.errors import DeadlineExceededError, InvalidArgumentError
from forage.retrieval import (
    Deadline,
    Filter,
    Interpretation,
    Query,
    QueryClass,
    Slot,
    UserContext,
)
from forage.testing import catalog
from forage.testing.bench import Bench, Generator
from forage.testing.projection_contract import ProjectionContract, ids

ODD_TEXTS = {
    "100 kB of words": "lantern moon " * 8_000,
    "100 kB without a space": "lantern" * 15_000,
    "100 kB of brackets": "(" * 100_000,
    "control characters": "lantern\x00\x01\x1e\x1f\x7f\u0085\u2028 moon\r\n\t",
    "an unbalanced quote": '"copper moon',
    "quotes and operators only": '"" OR AND NOT -- + ^ ~ * [ TO } :',
    "unbalanced brackets": "((lantern) moon] {rain",
    "right to left": "فانوس المساء \u202e‮lantern‬ עברית",
    "Chinese and Japanese": "東京の灯 灯籠",
    "emoji": "🏮 lantern 👩‍🚀🏳️‍🌈",
    "combining marks": "cafe\u0301 n\u0308octu\u0300rne" + "\u0301" * 500,
    "regular expression": "lan.*(tern)+ [a-z]{3,} \\d$",
    "many wildcards": "*a*b*c* ?????? l*n*r* " * 20,
    "deeply nested": "(" * 200 + "moon" + ")" * 200,
    "field syntax": "year:[1990 TO title:moon cast:",
    "numbers": "1e999 -0 NaN 007 ١٢٣ 1994",
}
"""Texts that must be answered or refused as an invalid argument, by what is odd about them."""


class RetrieverContract(ProjectionContract):
    """The promises of `Retriever`, `Generator` and its projections.

    A subclass supplies `open_generator` and the fixture `query`, and may override `prepare` and
    `twin`. The catalogue is `forage.testing.catalog`; it reaches the generator through a real log
    and follower.
    """

    complete = True
    """Whether a limit above the size of the catalogue returns all that can be found."""
    heeds_years = True
    """Whether years that a query names bring the items of those years to the front."""

    def test_hits_are_best_first_and_unique(self, shared_bench: Bench, query: Query) -> None:
        hits = shared_bench.retrieve(query).hits

        assert len(hits) > 1, "the query must find several items, or these tests prove little"
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        assert len({h.item_id for h in hits}) == len(hits)
        assert {h.item_id for h in hits} <= shared_bench.items.keys()

    @pytest.mark.parametrize("limit", [1, 2, 7])
    def test_a_smaller_limit_gives_a_prefix(
        self, shared_bench: Bench, query: Query, limit: int
    ) -> None:
        everything = shared_bench.retrieve(query).hits

        found = shared_bench.retrieve(query, limit).hits

        assert ids(found) == ids(everything)[:limit]

    def test_the_same_query_gives_the_same_answer(self, shared_bench: Bench, query: Query) -> None:
        assert shared_bench.retrieve(query) == shared_bench.retrieve(query)

    def test_queries_asked_at_once_are_answered_as_alone(
        self, shared_bench: Bench, query: Query
    ) -> None:
        texts = ("lantern", "mara ellwood", "copper moon", "quiet orbit")
        queries = [query, *(text_query(text) for text in texts)]
        alone = [shared_bench.retrieve(asked) for asked in queries]

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as threads:
                found = list(threads.map(shared_bench.retrieve, queries * 8))
        finally:
            sys.setswitchinterval(interval)

        assert found == alone * 8

    def test_every_hit_says_why_it_was_found(self, shared_bench: Bench, query: Query) -> None:
        hits = shared_bench.retrieve(query, limit=25).hits

        assert all(h.reasons for h in hits)
        assert all(r.kind and r.detail for h in hits for r in h.reasons)

    def test_the_work_done_is_counted(self, shared_bench: Bench, query: Query) -> None:
        found = shared_bench.retrieve(query)

        assert found.scanned > 0

    @pytest.mark.parametrize("name", catalog.FILTERS)
    def test_every_hit_satisfies_the_filters(
        self, shared_bench: Bench, query: Query, name: str
    ) -> None:
        filters = catalog.FILTERS[name]

        hits = shared_bench.retrieve(replace(query, filters=filters)).hits

        assert all(matches(shared_bench.items[h.item_id], filters) for h in hits)

    @pytest.mark.parametrize("name", catalog.FILTERS)
    def test_a_filter_takes_away_only_what_it_excludes(
        self, shared_bench: Bench, query: Query, name: str
    ) -> None:
        if not self.complete:
            pytest.skip("this generator never returns all that can be found")
        filters = catalog.FILTERS[name]
        everything = ids(shared_bench.retrieve(query, limit=200).hits)

        found = ids(shared_bench.retrieve(replace(query, filters=filters), limit=200).hits)

        wanted = {i for i in everything if matches(shared_bench.items[i], filters)}
        assert wanted <= set(found)

    @pytest.mark.parametrize(
        ("years", "films"),
        [
            ("1994", {"film:the-lantern-keeper"}),
            ("1990..1999", {"film:the-lantern-keeper", "film:café-nocturne"}),
            ("2010..2019", {"film:a-quiet-orbit", "film:the-last-cartographer"}),
            ("1979..1994", {"film:iron-harvest-song", "film:the-lantern-keeper"}),
            ("1995..2009", {"film:café-nocturne", "film:the-paper-orchestra"}),
        ],
    )
    def test_items_of_the_years_that_a_query_names_come_first(
        self, shared_bench: Bench, years: str, films: set[str]
    ) -> None:
        if not self.heeds_years:
            pytest.skip("this generator does not know years")
        slots = (
            Slot("cast", "Mara Ellwood", 1.0, "person:mara-ellwood", 0, 2),
            Slot("year", years, 1.0, "", 2, 3),
        )
        query = replace(
            text_query(f"mara ellwood {years[:4]}"),
            interpretations=(Interpretation(slots, "", 1.0),),
            filters=(Filter("kind", ("film",)),),
        )

        found = ids(shared_bench.retrieve(query).hits)

        assert set(found[: len(films)]) == films

    @pytest.mark.parametrize("years", ["0994", "1999..1990", "1990..", "nineties", "2000..2000000"])
    def test_what_is_no_year_changes_nothing(
        self, shared_bench: Bench, query: Query, years: str
    ) -> None:
        named = query.interpretations[0] if query.interpretations else Interpretation((), "", 1.0)
        odd = replace(named, slots=(*named.slots, Slot("year", years, 0.5, "", 6, 7)))

        found = ids(shared_bench.retrieve(replace(query, interpretations=(odd,))).hits)

        assert found == ids(shared_bench.retrieve(replace(query, interpretations=(named,))).hits)

    def test_a_passed_deadline_is_an_error(self, generator: Generator, query: Query) -> None:
        with pytest.raises(DeadlineExceededError):
            generator.retrieve(query, 10, Deadline.after(-1.0))

    @pytest.mark.parametrize("filters", [(), catalog.FILTERS["several at once"]])
    def test_an_empty_query_is_allowed(
        self, shared_bench: Bench, filters: tuple[Filter, ...]
    ) -> None:
        hits = shared_bench.retrieve(Query(filters=filters)).hits

        assert all(matches(shared_bench.items[h.item_id], filters) for h in hits)

    @pytest.mark.parametrize("name", ODD_TEXTS)
    def test_odd_texts_are_answered_or_refused(self, generator: Generator, name: str) -> None:
        query = text_query(ODD_TEXTS[name])

        with suppress(InvalidArgumentError):
            assert len(generator.retrieve(query, 10, Deadline.after(5.0)).hits) <= 10

    def test_unknown_ids_attributes_and_values_are_answered_or_refused(
        self, shared_bench: Bench, query: Query
    ) -> None:
        slots = (
            Slot("no_such_attribute", "lantern", 0.9),
            Slot("cast", "Nobody At All", 0.5, item_id="person:nobody"),
        )
        odd = replace(
            query,
            interpretations=(Interpretation(slots, "", 1.0),),
            user=UserContext("user-1", ("film:gone", "film:gone", "")),
            like_item_ids=("film:not-there",),
            language="xx",
        )

        hits = shared_bench.retrieve(odd).hits

        assert {h.item_id for h in hits} <= shared_bench.items.keys()

    def test_a_limit_above_the_size_of_the_catalogue_is_allowed(
        self, shared_bench: Bench, query: Query
    ) -> None:
        assert len(shared_bench.retrieve(query, limit=1_000).hits) <= len(shared_bench.items)

    def test_entries_are_counted_for_every_projection(self, generator: Generator) -> None:
        names = [p.name for p in generator.projections]

        assert sorted(generator.entries()) == sorted(names)
        assert all(name.split(".")[0] == generator.name for name in names)
        assert all(count >= 0 for count in generator.entries().values())


def text_query(text: str) -> Query:
    """Return the query of a text, with tokens as the simplest understanding would cut them."""
    tokens = tuple(text.casefold().split())[:64]
    return Query(
        text=text,
        normalized=" ".join(tokens),
        tokens=tokens,
        query_class=QueryClass.TOPICAL if tokens else QueryClass.EMPTY,
        time=1_700_000_000.0,
        request_id="request-1",
        seed=7,
    )

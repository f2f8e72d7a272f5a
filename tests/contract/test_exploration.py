"""Exploration keeps the promises of every generator, and some of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forage.catalog import matches
from forage.catalog.item import Item, Value
from forage.log import Topic
from forage.retrieval import Filter, Interpretation, Query, Slot, UserContext
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.interactions import decision, feedback
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import RetrieverContract, text_query
from generators.exploration.retriever import ExplorationRetriever
from generators.exploration.settings import ExplorationSettings

NOW = 1_700_000_000.0
DAY = 86_400.0
FILMS = (Filter("kind", ("film",)),)
ORBIT, RUNNERS = "film:a-quiet-orbit", "film:runners"


def show(
    bench: Bench, shown: list[str], engaged: str = "", *, times: int = 1, time: float = NOW
) -> None:
    """Append empty searches that showed items, each with a click on one of them."""
    events = [decision(f"r{time}{i}{shown[0]}", Query(), shown, time=time) for i in range(times)]
    if engaged:
        events += [
            feedback(f"e-{e.key}", e.key, engaged, time=time, kind="play") for e in tuple(events)
        ]
    bench.append(*events)


class TestExploration(RetrieverContract):
    def open_generator(self, data_dir: Path, runtime: Runtime) -> ExplorationRetriever:
        return ExplorationRetriever.open(ExplorationSettings(data_dir=data_dir), runtime)

    def prepare(self, bench: Bench) -> None:
        super().prepare(bench)
        show(bench, [ORBIT, RUNNERS, "film:the-lantern-keeper"], RUNNERS, times=3)

    @pytest.fixture
    def query(self) -> Query:
        slot = Slot("cast", "Mara Ellwood", 0.9, "person:mara-ellwood", 0, 2)
        reading = Interpretation((slot,), "lantern", 0.9)
        return replace(text_query("mara ellwood lantern"), interpretations=(reading,))

    def test_years_alone_name_the_items_of_those_years(self, shared_bench: Bench) -> None:
        reading = Interpretation((Slot("year", "1990..1999", 0.9, "", 0, 1),), "", 0.9)

        found = shared_bench.retrieve(
            replace(text_query("1990s"), interpretations=(reading,)), limit=50
        )

        nineties = (Filter("year", minimum=1990.0, maximum=1999.0),)
        items = shared_bench.items.values()
        assert set(ids(found.hits)) == {i.item_id for i in items if matches(i, nineties)}

    def test_a_seed_gives_one_answer_and_another_seed_another(self, shared_bench: Bench) -> None:
        query = Query(time=NOW)

        answers = {
            tuple(ids(shared_bench.retrieve(replace(query, seed=seed), limit=10).hits))
            for seed in (1, 1, 2, 3, 2**64 - 1)
        }

        assert len(answers) == 4

    def test_words_keep_what_is_not_relevant_out(self, shared_bench: Bench, query: Query) -> None:
        for seed in range(10):
            hits = shared_bench.retrieve(replace(query, seed=seed)).hits

            for item in (shared_bench.items[h.item_id] for h in hits):
                words = " ".join(item.texts("title")).casefold()
                relevant = {"mara", "ellwood", "lantern"} & set(words.split())
                assert relevant or "Mara Ellwood" in item.texts("cast")

    def test_nothing_relevant_is_nothing_found(self, shared_bench: Bench) -> None:
        assert shared_bench.retrieve(text_query("zzz qqq")).hits == ()

    def test_everything_is_open_on_an_empty_query(self, shared_bench: Bench) -> None:
        hits = shared_bench.retrieve(Query(time=NOW), limit=200).hits

        assert set(ids(hits)) == set(shared_bench.items)

    def test_more_like_these_shares_people_or_genres(self, shared_bench: Bench) -> None:
        example = shared_bench.items[ORBIT]
        people = {*example.texts("cast"), *example.texts("director"), *example.texts("genre")}

        hits = shared_bench.retrieve(Query(like_item_ids=(ORBIT,), filters=FILMS)).hits

        assert hits
        assert ORBIT not in ids(hits)
        for item in (shared_bench.items[h.item_id] for h in hits):
            own = {*item.texts("cast"), *item.texts("director"), *item.texts("genre")}
            assert own & people

    def test_the_users_taste_comes_up_more_often(self, shared_bench: Bench) -> None:
        def times_found(user: UserContext) -> int:
            return sum(
                "film:iron-harvest-song" in ids(shared_bench.retrieve(query, limit=5).hits)
                for query in (
                    Query(filters=FILMS, user=user, seed=seed, time=NOW) for seed in range(60)
                )
            )

        westerns = UserContext("u", ("film:seven-miles-of-rain",))
        assert times_found(westerns) > times_found(UserContext())

    def test_what_the_user_just_engaged_with_is_nothing_new(self, shared_bench: Bench) -> None:
        query = Query(user=UserContext("u", (ORBIT,)), time=NOW)

        assert ORBIT not in ids(shared_bench.retrieve(query, limit=200).hits)

    def test_a_new_item_reaches_its_first_impressions(self, bench: Bench) -> None:
        films = [i for i, item in bench.items.items() if item.kind == "film"]
        for film in films:
            show(bench, [film], times=10)
        bench.upsert(Item("film:new", "film", {"title": (Value("Paper Comet"),)}))

        def times_first() -> int:
            queries = [Query(filters=FILMS, seed=seed, time=NOW) for seed in range(100)]
            top = Counter(bench.retrieve(q, limit=1).hits[0].item_id for q in queries)
            return top["film:new"]

        at_first = times_first()
        assert at_first > 2 * 100 / len(films)
        hits = bench.retrieve(Query(filters=FILMS, time=NOW), limit=50).hits
        reasons = next(h.reasons for h in hits if h.item_id == "film:new")
        assert ("novelty", "shown 0 times") in {(r.kind, r.detail) for r in reasons}
        show(bench, ["film:new"], times=20)
        assert times_first() < at_first / 2

    def test_what_is_new_leads_until_it_had_its_first_looks(self, bench: Bench) -> None:
        def lead() -> int:
            queries = [Query(filters=FILMS, seed=seed, time=NOW) for seed in range(40)]
            return sum(bench.retrieve(q, limit=1).hits[0].item_id == "film:new" for q in queries)

        attributes = {"title": (Value("Paper Comet"),), "released": (Value(NOW),)}
        bench.upsert(Item("film:new", "film", attributes))

        assert lead() == 40
        show(bench, ["film:new"], times=9)
        assert lead() == 40
        show(bench, ["film:new"], times=1, time=NOW + 1)
        assert lead() < 20

    def test_draws_get_closer_together_as_an_item_is_shown(self, bench: Bench) -> None:
        def spread() -> float:
            return float(
                np.std(
                    [
                        next(h.score for h in hits if h.item_id == "film:copper-moon-rising")
                        for hits in (
                            bench.retrieve(Query(seed=s, time=NOW), limit=50).hits
                            for s in range(100)
                        )
                    ]
                )
            )

        before = spread()
        show(bench, ["film:copper-moon-rising"], "film:copper-moon-rising", times=10)
        between = spread()
        show(bench, ["film:copper-moon-rising"], times=90, time=NOW + 1)

        assert spread() < before
        assert spread() < between

    def test_the_newest_items_get_a_bonus_before_the_query_was_made(
        self, shared_bench: Bench
    ) -> None:
        fresh = {
            h.item_id: r.weight
            for h in shared_bench.retrieve(Query(time=NOW, filters=FILMS)).hits
            for r in h.reasons
            if r.kind == "fresh"
        }

        assert max(fresh, key=lambda i: fresh[i]) == "film:winter's-arithmetic".replace("'", "")

    def test_what_was_shown_long_ago_is_worth_another_look(self, bench: Bench) -> None:
        show(bench, [RUNNERS], times=50)

        def best(time: float) -> float:
            scores = [
                next(h.score for h in hits if h.item_id == RUNNERS)
                for hits in (
                    bench.retrieve(Query(seed=s, time=time), limit=50).hits for s in range(40)
                )
            ]
            return float(np.mean(scores))

        assert best(NOW + 400 * DAY) > best(NOW)

    def test_records_delivered_again_do_not_count_twice(self, bench: Bench) -> None:
        before = bench.retrieve(Query(time=NOW))
        engagement = bench.generator.projections[1]

        engagement.apply(bench.log.read(Topic.INTERACTIONS, 0, 100, engagement.streams))

        assert bench.retrieve(Query(time=NOW)) == before


def test_a_large_pool_is_sampled_anew_with_every_seed(tmp_path: Path) -> None:
    settings = ExplorationSettings(data_dir=tmp_path, pool_limit=20)
    bench = Bench(tmp_path, lambda _, runtime: ExplorationRetriever.open(settings, runtime))
    bench.upsert(*catalog.items())
    bench.start()

    found = [bench.retrieve(Query(seed=seed, time=NOW), limit=200) for seed in range(30)]
    bench.close()

    assert {retrieval.scanned for retrieval in found} == {20}
    assert {i for retrieval in found for i in ids(retrieval.hits)} == set(bench.items)


def test_what_is_owed_looks_is_in_every_sample_of_a_large_pool(tmp_path: Path) -> None:
    settings = ExplorationSettings(data_dir=tmp_path, pool_limit=20)
    bench = Bench(tmp_path, lambda _, runtime: ExplorationRetriever.open(settings, runtime))
    new = {f"film:new-{n}": f"Paper Comet {n}" for n in range(5)}
    dated = {"released": (Value(NOW),)}
    bench.upsert(
        *catalog.items(),
        *(Item(i, "film", {"title": (Value(t),), **dated}) for i, t in new.items()),
    )
    bench.start()

    found = [bench.retrieve(Query(seed=seed, time=NOW), limit=200) for seed in range(10)]
    bench.close()

    assert all(set(new) <= set(ids(retrieval.hits)) for retrieval in found)


def test_the_fixture_catalogue_has_the_items_of_these_tests() -> None:
    assert {ORBIT, RUNNERS} <= {item.item_id for item in catalog.items()}

from dataclasses import replace
from pathlib import Path

import pytest

from forage.catalog.item import Item, Value
from forage.retrieval import Filter, Interpretation, Query, QueryClass, Slot, UserContext
from forage.services import Runtime
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.interactions import decision, feedback
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import RetrieverContract
from generators.graph.retriever import GraphRetriever
from generators.graph.settings import CoEngagementSettings, GraphSettings

NOW = 1_700_000_000.0
DAY = 86_400.0


def named(*item_ids: str, **rest: object) -> Query:
    slots = tuple(
        Slot("cast", item_id, 1.0, item_id, 2 * n, 2 * n + 2) for n, item_id in enumerate(item_ids)
    )
    return Query(
        query_class=QueryClass.BROWSE,
        interpretations=(Interpretation(slots, "", 1.0),),
        time=NOW,
        **rest,
    )


def chosen(
    bench: Bench,
    number: str,
    time: float,
    *items: str,
    normalized: str = "",
    user: str = "",
    kind: str = "play",
) -> None:
    query = Query(text=normalized, normalized=normalized, user=UserContext(user_id=user))
    events = [decision(number, query, items, time=time)]
    events += [
        feedback(f"{number}-{n}", number, item, time=time + n, kind=kind)
        for n, item in enumerate(items)
    ]
    bench.append(*events)


class TestGraphRetriever(RetrieverContract):
    def open_generator(self, data_dir: Path, runtime: Runtime) -> GraphRetriever:
        return GraphRetriever.open(GraphSettings(data_dir=data_dir), runtime)

    def prepare(self, bench: Bench) -> None:
        super().prepare(bench)
        chosen(bench, "r1", NOW - DAY, "film:runners", "film:the-paper-orchestra", user="u0")
        chosen(bench, "r2", NOW - DAY, "film:a-quiet-orbit", normalized="alone in space")

    @pytest.fixture
    def query(self) -> Query:
        return named("person:mara-ellwood", normalized="mara ellwood", tokens=("mara", "ellwood"))

    def test_the_named_item_and_its_neighbours_come_first(self, shared_bench: Bench) -> None:
        hits = shared_bench.retrieve(named("person:odell-brann"), limit=5).hits

        films = [i.item_id for i in catalog.items() if "Odell Brann" in i.texts("cast")]
        assert set(ids(hits)) == {"person:odell-brann", *films}

    def test_the_reason_is_the_path(self, shared_bench: Bench) -> None:
        hits = shared_bench.retrieve(named("person:odell-brann"), limit=40).hits

        details = {h.item_id: h.reasons[0].detail for h in hits}
        assert details["person:odell-brann"] == "Odell Brann (named in the query)"
        assert details["film:iron-harvest-song"] == "Odell Brann —cast→ Iron Harvest Song"
        assert details["person:hugo-marchetti-lowe"].startswith("Odell Brann —cast→ ")
        assert details["person:hugo-marchetti-lowe"].endswith(" —director→ Hugo Marchetti-Lowe")

    @pytest.mark.parametrize(
        ("people", "film"),
        [
            (("person:mara-ellwood", "person:priya-valdane"), "film:a-quiet-orbit"),
            (("person:kit-sorensen-hale", "person:tobin-achterberg"), "film:winter's-arithmetic"),
            (("person:odell-brann", "person:amélie-roux"), "film:love-actually-not"),
        ],
    )
    def test_what_two_people_share_comes_first(
        self, shared_bench: Bench, people: tuple[str, ...], film: str
    ) -> None:
        film = film.replace("'", "")

        assert ids(shared_bench.retrieve(named(*people), limit=1).hits) == [film]

    def test_of_two_alike_the_popular_one_comes_first(self, bench: Bench) -> None:
        film = bench.items["film:seven-miles-of-rain"]
        twin = replace(
            film,
            item_id="film:a-twin",
            attributes={**film.attributes, "popularity": (Value(0.0),)},
        )
        bench.upsert(twin)

        hits = bench.retrieve(named("person:odell-brann"), limit=40).hits

        scores = {h.item_id: h.score for h in hits}
        assert scores[film.item_id] / scores[twin.item_id] == pytest.approx(1 + 0.3 * 0.64)

    def test_readings_of_the_same_words_are_alternatives(self, shared_bench: Bench) -> None:
        readings = (
            Interpretation((Slot("cast", "Odell", 1.0, "person:odell-brann", 0, 1),), "", 0.7),
            Interpretation((Slot("genre", "Horror", 1.0, "genre:horror", 0, 1),), "", 0.3),
        )

        found = ids(shared_bench.retrieve(Query(interpretations=readings, time=NOW), 12).hits)

        assert found.index("film:iron-harvest-song") < found.index("film:copper-moon-rising")

    def test_items_like_examples_are_found_without_the_examples(self, shared_bench: Bench) -> None:
        query = Query(like_item_ids=("film:orbit-the-return",), time=NOW)

        hits = shared_bench.retrieve(replace(query, filters=(Filter("kind", ("film",)),))).hits

        assert hits[0].item_id == "film:a-quiet-orbit"
        assert "film:orbit-the-return" not in ids(hits)

    def test_history_alone_finds_unseen_items(self, shared_bench: Bench) -> None:
        query = Query(user=UserContext("u9", ("film:orbit-the-return",)), time=NOW)

        found = ids(shared_bench.retrieve(query).hits)

        assert "film:a-quiet-orbit" in found
        assert "film:orbit-the-return" not in found

    def test_what_many_chose_with_the_history_comes_before_what_few_did(self, bench: Bench) -> None:
        films = ("film:iron-harvest-song", "film:copper-moon-rising")
        for number in range(6):
            pair = ("film:runners", films[number > 3])
            chosen(bench, f"together-{number}", NOW + 5 * number, *pair, user=f"u-{number}")
        query = Query(user=UserContext("u9", ("film:runners",)), time=NOW + 60)

        found = ids(bench.retrieve(query).hits)

        assert found[:2] == list(films)

    def test_history_only_reorders_where_something_is_named(self, bench: Bench) -> None:
        chosen(bench, "together", NOW, "film:runners", "film:copper-moon-rising", user="u1")
        slot = Slot("title", "A Quiet Orbit", 1.0, "film:a-quiet-orbit", 0, 3)
        named = (Interpretation((slot,), "", 1.0),)
        query = Query(interpretations=named, user=UserContext("u9", ("film:runners",)), time=NOW)

        assert ids(bench.retrieve(query).hits)[0] == "film:a-quiet-orbit"

    def test_nothing_to_start_from_finds_nothing(self, shared_bench: Bench) -> None:
        assert shared_bench.retrieve(Query(text="words", normalized="words")).hits == ()

    def test_what_was_chosen_for_a_query_is_found_for_it(self, shared_bench: Bench) -> None:
        query = Query(text="alone in space", normalized="alone in space", time=NOW)

        hits = shared_bench.retrieve(query).hits

        assert hits[0].item_id == "film:a-quiet-orbit"
        assert hits[0].reasons[0].detail == "alone in space —chosen for→ A Quiet Orbit"

    def test_items_chosen_by_one_user_become_neighbours(self, bench: Bench) -> None:
        query = Query(like_item_ids=("film:runners",), time=NOW)
        pair = ("film:runners", "film:seven-miles-of-rain")
        before = _score(bench, query, pair[1])

        chosen(bench, "r9", NOW - 60, *pair, user="u1")

        assert _score(bench, query, pair[1]) > before
        reasons = {h.item_id: h.reasons[0].detail for h in bench.retrieve(query).hits}
        assert reasons[pair[1]] == "Runners —chosen with→ Seven Miles of Rain"

    def test_choices_too_far_apart_or_of_different_users_do_not_meet(self, bench: Bench) -> None:
        before = bench.generator.entries()["graph.engagement"]

        chosen(bench, "r3", NOW - 9 * 3600, "film:runners", user="u1")
        chosen(bench, "r4", NOW - 60, "film:lantern-festival", user="u1")
        chosen(bench, "r5", NOW - 50, "film:seven-miles-of-rain", user="u2")

        assert bench.generator.entries()["graph.engagement"] == before

    def test_refusals_make_no_edges(self, bench: Bench) -> None:
        before = bench.generator.entries()["graph.engagement"]

        chosen(bench, "r3", NOW, "film:runners", "film:lantern-festival", user="u1", kind="dislike")

        assert bench.generator.entries()["graph.engagement"] == before

    def test_engagement_fades_with_time(self, bench: Bench) -> None:
        pair = ("film:runners", "film:seven-miles-of-rain")
        chosen(bench, "r9", NOW, *pair, user="u1")
        query = Query(like_item_ids=pair[:1], time=NOW)

        soon = _score(bench, query, pair[1])
        later = _score(bench, replace(query, time=NOW + 60 * DAY), pair[1])
        much_later = _score(bench, replace(query, time=NOW + 6000 * DAY), pair[1])

        assert soon > later > much_later

    def test_a_reference_is_walked_before_and_after_its_item_exists(self, bench: Bench) -> None:
        cast = (Value("New Face", 1.0, "person:new-face"),)
        film = Item("film:new", "film", {"title": (Value("New"),), "cast": cast})
        bench.upsert(film)
        assert ids(bench.retrieve(named("person:new-face")).hits) == ["film:new"]

        bench.upsert(Item("person:new-face", "person", {"title": (Value("New Face"),)}))

        assert set(ids(bench.retrieve(named("person:new-face")).hits)) == {
            "film:new",
            "person:new-face",
        }


def test_decay_is_exact_over_more_half_lives_than_a_float_has_room_for(tmp_path: Path) -> None:
    engagement = CoEngagementSettings(half_life_days=0.01)
    bench = Bench(
        tmp_path,
        lambda folder, runtime: GraphRetriever.open(
            GraphSettings(data_dir=folder, engagement=engagement), runtime
        ),
    )
    bench.upsert(*catalog.items())
    bench.start()
    chosen(bench, "r1", NOW, "film:runners", normalized="old")
    query = Query(normalized="old", time=NOW + 60 * DAY)
    chosen(bench, "r2", NOW + 60 * DAY, "film:lantern-festival", normalized="old")

    assert ids(bench.retrieve(query).hits)[0] == "film:lantern-festival"
    bench.restart()
    assert ids(bench.retrieve(query).hits)[0] == "film:lantern-festival"
    bench.close()


def test_the_weakest_edges_go_first(tmp_path: Path) -> None:
    engagement = CoEngagementSettings(max_edges=100)
    bench = Bench(
        tmp_path,
        lambda folder, runtime: GraphRetriever.open(
            GraphSettings(data_dir=folder, engagement=engagement), runtime
        ),
    )
    bench.upsert(*catalog.items())
    bench.start()
    chosen(bench, "strong", NOW, "film:runners", normalized="kept")
    for number in range(120):
        chosen(bench, f"r{number}", NOW, "film:runners", normalized=f"q{number}", kind="click")

    assert 80 <= bench.generator.entries()["graph.engagement"] <= 100
    assert bench.retrieve(Query(normalized="kept", time=NOW)).hits
    bench.close()


def _score(bench: Bench, query: Query, item_id: str) -> float:
    hits = bench.retrieve(query, limit=100).hits
    return next((h.score for h in hits if h.item_id == item_id), 0.0)

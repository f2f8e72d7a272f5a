"""What a person sees: navigation, typos, type-ahead, stems, slots, and survival of damage."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forage.catalog.item import Item, Value
from forage.errors import InvalidArgumentError, StartupError
from forage.retrieval import Deadline, Filter, Hit, Interpretation, Query, Slot
from forage.testing import catalog
from forage.testing.bench import Bench
from generators.lexical import SERVICE
from generators.lexical.index import LexicalProjection
from generators.lexical.layout import Layout, tie
from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import ExpansionSettings, LexicalSettings


def make_bench(folder: Path, **chosen: object) -> Bench:
    settings = LexicalSettings.model_validate({"data_dir": folder, **chosen})
    return Bench(folder, lambda _, runtime: LexicalRetriever.open(settings, runtime))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = make_bench(tmp_path_factory.mktemp("answers"))
    bench.upsert(*catalog.items())
    bench.start()
    yield bench
    bench.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    bench.upsert(*catalog.items())
    bench.start()
    yield bench
    bench.close()


def hits(bench: Bench, text: str, **more: object) -> tuple[Hit, ...]:
    return bench.retrieve(replace(Query(text=text), **more)).hits


def ids(bench: Bench, text: str, **more: object) -> list[str]:
    return [h.item_id for h in hits(bench, text, **more)]


def reading(*slots: Slot, confidence: float = 1.0) -> tuple[Interpretation, ...]:
    return (Interpretation(slots, "", confidence),)


@pytest.mark.parametrize("item", catalog.items(), ids=lambda item: item.item_id)
def test_an_item_whose_title_is_typed_comes_first(shared: Bench, item: Item) -> None:
    assert ids(shared, item.texts("title")[0])[0] == item.item_id


def test_an_obscure_exact_title_beats_popular_partial_ones_whatever_the_slots(bench: Bench) -> None:
    bench.upsert(Item("film:moon", "film", {"title": (Value("Moon"),)}))
    slots = reading(Slot("cast", "Tobin Achterberg", 1.0), Slot("genre", "horror", 1.0))

    assert ids(bench, "moon")[0] == "film:moon"
    assert ids(bench, "moon", interpretations=slots)[0] == "film:moon"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("lantren festivl", "film:lantern-festival"),
        ("cartografer", "film:the-last-cartographer"),
        ("achterburg", "person:tobin-achterberg"),
        ("cafe nocturne", "film:café-nocturne"),
        ("CAFÉ NOCTURNÉ", "film:café-nocturne"),
        ("winters arithmetic", "film:winters-arithmetic"),
        ("run", "film:runners"),
        ("runner clock", "film:the-running-clockmaker"),
        ("東京", "film:東京の灯"),
        ("orbit: the return", "film:orbit-the-return"),
    ],
)
def test_what_is_typed_imperfectly_is_found(shared: Bench, typed: str, found: str) -> None:
    assert found in ids(shared, typed)[:3]


@pytest.mark.parametrize("typed", ["la", "lan", "lante", "the lant"])
def test_the_last_word_is_completed(shared: Bench, typed: str) -> None:
    found = ids(shared, typed)

    assert {"film:the-lantern-keeper", "film:lantern-festival"} <= set(found)


def test_a_finished_last_word_is_not_completed(shared: Bench) -> None:
    assert "film:the-lantern-keeper" not in ids(shared, "lan ")


def test_a_word_as_typed_counts_more_than_its_stem(bench: Bench) -> None:
    bench.upsert(
        Item("film:a", "film", {"title": (Value("Painted Door"),)}),
        Item("film:b", "film", {"title": (Value("Painting Door"),)}),
    )

    assert ids(bench, "painting ")[:2] == ["film:b", "film:a"]
    assert ids(bench, "painted ")[:2] == ["film:a", "film:b"]


def test_a_known_word_is_not_corrected(bench: Bench) -> None:
    bench.upsert(Item("film:noon", "film", {"title": (Value("Moan"),)}))

    assert "film:noon" not in ids(bench, "moon ")


def test_expansion_can_be_turned_off(tmp_path: Path) -> None:
    off = ExpansionSettings(stem=0, prefix=0, typo=0)
    bench = make_bench(tmp_path, expansion=off.model_dump())
    bench.upsert(*catalog.items())
    bench.start()

    assert ids(bench, "run") == ids(bench, "lantren") == ids(bench, "lant") == []
    bench.close()


def test_a_phrase_stays_within_one_value(shared: Bench) -> None:
    assert "film:the-lantern-keeper" in ids(shared, 'cast:"mara ellwood"')
    assert ids(shared, 'cast:"ellwood tobin"') == []


def test_a_slot_finds_what_the_words_do_not(shared: Bench) -> None:
    slots = reading(Slot("cast", "Sefa Morrow", 0.8, "person:sefa-morrow"))

    found = ids(shared, "zefa moro", interpretations=slots)

    assert found[0] == "person:sefa-morrow"
    assert "film:copper-moon-rising" in found


def test_what_several_readings_agree_on_is_surer_and_never_surer_than_certain(
    shared: Bench,
) -> None:
    slot = Slot("cast", "Sefa Morrow", 1.0, "person:sefa-morrow")

    def score(*confidences: float) -> float:
        readings = tuple(Interpretation((slot,), "", c) for c in confidences)
        found = hits(shared, "copper moon", interpretations=readings)
        return next(h.score for h in found if h.item_id == "film:copper-moon-rising")

    assert score(0.3) < score(0.3, 0.3) == pytest.approx(score(0.6))
    assert score(1.0, 1.0) == score(1.0)


def test_years_alone_find_the_items_of_those_years(shared: Bench) -> None:
    found = ids(shared, "nineties", interpretations=reading(Slot("year", "1990..1999", 0.9)))

    nineties = [f for f in catalog.items() if 1990 <= (f.number("year") or 0) <= 1999]
    assert set(found) == {film.item_id for film in nineties}


def test_the_longer_the_time_the_less_it_tells(shared: Bench) -> None:
    def score(years: str) -> float:
        found = hits(shared, "lantern", interpretations=reading(Slot("year", years, 1.0)))
        return next(h.score for h in found if h.item_id == "film:the-lantern-keeper")

    assert score("1994") > score("1991..1999") > score("1979..2020")


def test_a_year_is_no_title(tmp_path: Path) -> None:
    # The bonus of a whole title grows with all that the query weighs, so it is left out.
    bench = make_bench(tmp_path, title_exact=0)
    bench.upsert(*catalog.items())
    bench.start()
    bench.upsert(Item("film:1994", "film", {"title": (Value("1994"),), "year": (Value(2021.0),)}))

    def score(*slots: Slot) -> float:
        found = hits(bench, "1994", interpretations=reading(*slots))
        return next(hit.score for hit in found if hit.item_id == "film:1994")

    assert score(Slot("year", "1994", 0.9)) == score()
    bench.close()


def test_a_surer_slot_counts_more(shared: Bench) -> None:
    def score(confidence: float) -> float:
        slots = reading(Slot("genre", "western", confidence))
        found = hits(shared, "rain", interpretations=slots)
        return next(h.score for h in found if h.item_id == "film:seven-miles-of-rain")

    assert score(0.2) < score(0.5) < score(1.0)


def test_a_value_that_holds_weakly_counts_less(shared: Bench) -> None:
    found = hits(shared, "xyzzy", interpretations=reading(Slot("genre", "romance", 1.0)))
    prior = {i.item_id: math.log2(2 + (i.number("popularity") or 0)) for i in catalog.items()}
    worth = {h.item_id: h.score / prior[h.item_id] for h in found}

    assert worth["film:love-actually-not"] == pytest.approx(
        worth["film:love-in-the-tin-city"] * round(0.7 * 255) / 255
    )


def test_demands_are_not_widened_by_slots(shared: Bench) -> None:
    slots = reading(Slot("cast", "Sefa Morrow", 1.0))

    found = ids(shared, "year:>2012 moon", interpretations=slots)

    years = {i.item_id: i.number("year") for i in catalog.items()}
    assert found
    assert all((years[item_id] or 0) > 2012 for item_id in found)


def test_a_blank_text_browses_by_popularity(shared: Bench) -> None:
    found = hits(shared, " ", filters=(Filter("kind", ("film",)),))

    popularity = {i.item_id: i.number("popularity") or 0.0 for i in catalog.items()}
    assert [h.item_id for h in found][:2] == [
        "film:the-last-cartographer",
        "film:the-lantern-keeper",
    ]
    assert [h.score for h in found] == [math.log2(2 + popularity[h.item_id]) for h in found]
    assert found[0].reasons[0].kind == "popularity"


def test_ties_are_broken_by_the_item_id_alone(bench: Bench) -> None:
    twins = [Item(f"film:{n}", "film", {"title": (Value("Twin Glass"),)}) for n in range(300)]
    bench.upsert(*twins)
    expected = sorted((t.item_id for t in twins), key=lambda item_id: -tie(item_id))

    found = bench.generator.retrieve(Query(text="glass"), 200, Deadline.after(30)).hits

    assert [h.item_id for h in found] == expected[:200]


def test_example_items_without_a_text_find_nothing(shared: Bench) -> None:
    assert ids(shared, "", like_item_ids=("film:runners",)) == []


@pytest.mark.parametrize("text", ["🏮", "!!! ???", "xyzzy"])
def test_a_text_without_a_known_word_finds_nothing(shared: Bench, text: str) -> None:
    assert ids(shared, text) == []


def test_an_unsearchable_field_is_refused(shared: Bench) -> None:
    with pytest.raises(InvalidArgumentError, match="mood"):
        hits(shared, "mood:dark")


def test_reasons_name_the_value_that_was_met(shared: Bench) -> None:
    found = {h.item_id: h for h in hits(shared, "ellwood lantern")}

    details = [r.detail for r in found["film:the-lantern-keeper"].reasons]

    assert details[0] == "title: The Lantern Keeper"
    assert "cast: Mara Ellwood" in details
    assert sum(r.weight for r in found["film:the-lantern-keeper"].reasons) == pytest.approx(1.0)


def test_scores_do_not_depend_on_the_history_of_updates(bench: Bench) -> None:
    before = hits(bench, "lantern moon drama")
    for item in catalog.items()[:10]:
        bench.upsert(replace(item, attributes={"title": (Value("Something Else Entirely"),)}))
    bench.upsert(*catalog.items()[:10])

    assert hits(bench, "lantern moon drama") == before


def test_rows_are_used_again_after_updates(bench: Bench) -> None:
    projection = bench.generator.projections[0]
    assert isinstance(projection, LexicalProjection)
    sequence = bench.log.head(projection.topic)
    bench.follower.stop()
    for _ in range(30):
        projection.apply(bench.log.read(projection.topic, 0, 100))
        projection.checkpoint(sequence)

    view = projection.view
    assert view is not None
    assert len(view.statistics.rows.item_ids) == 1_024
    assert len(view.statistics.rows.postings) < 10_000
    assert ids(bench, "the lantern keeper")[0] == "film:the-lantern-keeper"


@pytest.mark.parametrize("engine", ["tantivy", "whoosh"])
def test_damage_to_any_one_file_is_noticed(tmp_path: Path, engine: str) -> None:
    bench = make_bench(tmp_path, engine=engine)
    bench.upsert(*catalog.items())
    bench.start()
    before = hits(bench, "lantern")
    bench.stop()
    folder = tmp_path / "lexical"
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.stat().st_size)
    assert len(names) > 2

    for number in range(len(names)):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        bench.start()
        assert hits(bench, "lantern") == before
        bench.stop()
    bench.close()


@pytest.mark.parametrize("change", [{"popularity_weight": 3.0}, {"engine": "whoosh"}])
def test_an_index_of_other_settings_is_rebuilt(tmp_path: Path, change: dict[str, object]) -> None:
    first = make_bench(tmp_path)
    first.upsert(*catalog.items())
    first.start()
    first.close()

    second = make_bench(tmp_path, **change)

    assert second.unrestored() == ["lexical: 0 of 41"]
    second.start()
    assert ids(second, "lantern")
    second.close()


def test_a_depth_below_twice_the_limit_is_refused_at_start(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, depth=300)

    with pytest.raises(StartupError, match="at least 2 \\* max_limit, 400"):
        bench.open()
    bench.close()


def test_an_unknown_language_is_refused_at_start(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, language="xx")

    with pytest.raises(StartupError, match="no stemmer for 'xx'"):
        bench.open()
    bench.close()


def test_the_service_is_called_lexical() -> None:
    assert SERVICE.name == "lexical"
    assert SERVICE.settings is LexicalSettings
    assert set(Layout.of(catalog.SCHEMA).searchable) == {
        "kind", "title", "synopsis", "cast", "director", "genre", "language", "year", "released",
        "popularity",
    }  # fmt: skip

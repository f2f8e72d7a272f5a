"""Query understanding: several weighted readings of what was typed, whatever was typed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.catalog import Item, Schema
from forage.catalog.item import Value
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter, Interpretation, Query, QueryClass
from forage.testing import catalog
from forage.text import tokenize
from orchestrator.understanding import Gazetteer, Understanding, UnderstandingSettings

SONGS = Schema.model_validate(
    {
        "name": "songs",
        "kinds": ["song", "artist", "playlist"],
        "attributes": {
            "title": {"roles": ["text"]},
            "artist": {"roles": ["text", "keyword", "entity"], "kind": "artist"},
            "genre": {"roles": ["keyword"]},
            "year": {"roles": ["number"]},
            "popularity": {"roles": ["popularity"]},
        },
    }
)


def song(item_id: str, title: str, artist: str, genre: str, year: float, popularity: float) -> Item:
    attributes = {
        "title": (Value(title),),
        "artist": (Value(artist.title(), 1.0, f"artist:{artist}"),),
        "genre": (Value(genre),),
        "year": (Value(year),),
        "popularity": (Value(popularity),),
    }
    return Item(item_id, "song", attributes)


def artist(name: str, popularity: float) -> Item:
    attributes = {"title": (Value(name.title()),), "popularity": (Value(popularity),)}
    return Item(f"artist:{name}", "artist", attributes)


MUSIC = (
    artist("taylor swift", 0.95),
    artist("taylor dayne", 0.2),
    artist("courtney love", 0.3),
    artist("adele", 0.9),
    song("song:love-story", "Love Story", "taylor swift", "Country", 2008.0, 0.9),
    song("song:love", "Love", "courtney love", "Rock", 1994.0, 0.4),
    song("song:hello", "Hello", "adele", "Soul", 2015.0, 0.9),
    song("song:tailor", "The Tailor", "taylor dayne", "Love", 1988.0, 0.1),
    Item("playlist:love", "playlist", {"title": (Value("Love"),), "popularity": (Value(0.6),)}),
)


def reader(items=MUSIC, schema=SONGS) -> Understanding:
    gazetteer = Gazetteer(schema)
    for item in items:
        gazetteer.upsert(item)
    return Understanding(schema, gazetteer, UnderstandingSettings())


MUSICAL = reader()
FILMS = reader(catalog.items(), catalog.SCHEMA)


def understood(text: str, by: Understanding = MUSICAL, **fields) -> Query:
    return by.understand(text, time=0.0, request_id="r", seed=1, **fields)


def slots(reading: Interpretation) -> set[tuple[str, str]]:
    return {(slot.attribute, slot.value) for slot in reading.slots}


def test_a_misspelt_artist_beside_a_title_word_keeps_several_readings_apart():
    readings = understood("tayler love").interpretations

    found = [slots(r) for r in readings]
    assert any(("artist", "Taylor Swift") in f and ("title", "Love") in f for f in found)
    assert any(("artist", "Taylor Swift") in f and ("genre", "Love") in f for f in found)
    assert len({r.slots for r in readings}) == len(readings)
    assert readings[0].confidence < 0.7


def test_a_plain_word_keeps_title_genre_and_playlist_readings_apart():
    readings = understood("love").interpretations

    named = {(s.attribute, s.value, s.item_id) for r in readings for s in r.slots}
    assert {("title", "Love", "song:love"), ("title", "Love", "playlist:love")} <= named
    assert ("genre", "Love", "") in named
    by_item = {s.item_id: r.confidence for r in readings for s in r.slots}
    assert by_item["playlist:love"] > by_item["song:love"]


def test_a_full_title_is_read_as_itself_first():
    query = understood("Love Story")

    assert query.query_class is QueryClass.NAVIGATIONAL
    assert query.interpretations[0].slots[0].item_id == "song:love-story"
    assert query.interpretations[0].residual == ""


@pytest.mark.parametrize(
    ("text", "item_id"),
    [
        ("mara elwood", "person:mara-ellwood"),
        ("maar ellwood", "person:mara-ellwood"),
        ("ellwood", "person:mara-ellwood"),
        ("achterberg", "person:tobin-achterberg"),
        ("quilfeather", "person:ines-quillfeather"),
        ("the last cartog", "film:the-last-cartographer"),
        ("last cartographer", "film:the-last-cartographer"),
        ("cafe nocturne", "film:café-nocturne"),
        ("winters arithmetic", "film:winters-arithmetic"),
        ("amelie roux", "person:amélie-roux"),
        ("東京の灯", "film:東京の灯"),
        ("orbit return", "film:orbit-the-return"),
        ("scince fiction", "genre:science-fiction"),
    ],
)
def test_imperfect_names_are_recognised(text, item_id):
    readings = understood(text, FILMS).interpretations

    assert item_id in {slot.item_id for slot in readings[0].slots}


def test_the_nearer_the_spelling_the_surer_the_reading():
    def best(text: str) -> float:
        query = understood(text, FILMS)
        return max(
            s.confidence
            for r in query.interpretations
            for s in r.slots
            if s.item_id == "person:mara-ellwood"
        )

    assert best("mara ellwood") > best("mara elwood") > best("maar elwood")


def test_a_person_is_read_as_what_the_catalogue_links_them_by():
    (reading, *_) = understood("ines quillfeather", FILMS).interpretations

    assert slots(reading) == {("director", "Ines Quillfeather")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1994", "1994"),
        ("1990s", "1990..1999"),
        ("90s", "1990..1999"),
        ("drama 1994", "1994"),
        ("drama before 2000", "1979..1999"),
        ("westerns until 2000", "1979..2000"),
        ("films since 2000", "2000..2020"),
        ("after the 1990s", "2000..2020"),
        ("between 1990 and 1995", "1990..1995"),
        ("films from the nineties", "1990..1999"),
    ],
)
def test_years_and_decades_are_read_as_numbers(text, value):
    found = {s for r in understood(text, FILMS).interpretations for s in r.slots}

    assert ("year", value) in {(s.attribute, s.value) for s in found}


@pytest.mark.parametrize("text", ["1850", "2999", "1850s", "12345", "0s"])
def test_years_that_no_item_has_are_words(text):
    found = {s.attribute for r in understood(text, FILMS).interpretations for s in r.slots}

    assert "year" not in found


def test_the_year_that_a_time_ends_with_is_not_read_by_itself():
    found = {s for r in understood("westerns before 1990", FILMS).interpretations for s in r.slots}

    assert {s.value for s in found if s.attribute == "year"} == {"1979..1989"}


@pytest.mark.parametrize(
    ("text", "genre"), [("westerns", "western"), ("comedies", "comedy"), ("90s crimes", "crime")]
)
def test_a_plural_is_read_as_what_it_is_a_plural_of(text, genre):
    (reading, *_) = understood(text, FILMS).interpretations

    assert genre in {s.value.lower() for s in reading.slots if s.attribute == "genre"}


def test_the_singular_is_surer_than_the_plural_and_titles_have_none():
    films = (
        song("song:dream", "Dream", "adele", "Ballad", 2001.0, 0.9),
        artist("adele", 0.9),
    )
    by = reader(films)

    def sure(text: str) -> dict[str, float]:
        readings = understood(text, by).interpretations
        return {s.value: s.confidence for r in readings for s in r.slots}

    assert sure("ballad")["Ballad"] > sure("ballads")["Ballad"] > 0
    # A title is only misspelt: one edit.
    factor = UnderstandingSettings().edit_factor
    assert sure("dreams")["Dream"] == pytest.approx(factor * sure("dream")["Dream"])


@pytest.mark.parametrize("text", ["from the", "of the", "in"])
def test_function_words_are_no_part_of_a_name(text):
    films = (
        *MUSIC,
        song("song:hip", "From the Hip", "adele", "Pop", 1999.0, 0.9),
        song("song:rings", "Lord of the Rings", "adele", "Pop", 1999.0, 0.9),
    )

    assert not understood(text, reader(films)).interpretations


def test_a_word_that_is_known_is_not_corrected_beside_function_words_alone():
    songs = (
        *MUSIC,
        song("song:man", "The Man", "adele", "Pop", 1999.0, 0.9),
        song("song:main", "Main Street", "adele", "Pop", 1999.0, 0.1),
    )
    by = reader(songs)

    found = {s.value for r in understood("the main", by).interpretations for s in r.slots}

    assert "Main Street" in found
    assert "The Man" not in found
    assert "The Man" in {
        s.value for r in understood("the mann", by).interpretations for s in r.slots
    }


def test_a_word_of_very_many_names_tells_little_of_which():
    studios = tuple(
        song(f"song:{n}", f"{n}ville Blues", "adele", "Pop", 1999.0, 0.5)
        for n in ("ash", "bel", "cor", "dun", "elm", "fen", "gil", "hex", "ivy", "jut", "kel")
        for n in (n + "a", n + "o", n + "u")
    )
    few, many = reader((*MUSIC, *studios[:3])), reader((*MUSIC, *studios))

    def best(by: Understanding) -> float:
        readings = understood("blues", by).interpretations
        return max(s.confidence for r in readings for s in r.slots)

    assert best(many) < best(few) / 2
    # The whole name is as sure as ever, also where only a misspelling leads to it.
    for typed in ("ashaville blues", "ashavile blues"):
        assert understood(typed, many).interpretations[0].slots[0].confidence > 0.6


def test_a_whole_name_is_as_sure_as_ever_among_many_that_hold_it():
    def sure(others: int) -> float:
        songs = [song(f"s:{n}", f"Number {n} Soul", "adele", "Pop", 1999.0, 0.5) for n in range(40)]
        # Also a genre's name, so neither is sure by being the only one.
        one = song("s:soul", "Soul", "adele", "Soul", 1999.0, 0.9)
        by = reader((*MUSIC, one, *songs[:others]))
        readings = understood("soul", by).interpretations
        return max(s.confidence for r in readings for s in r.slots if s.item_id == "s:soul")

    assert sure(40) == sure(0)


def test_in_a_sentence_a_title_of_one_word_of_content_counts_as_little_as_one_of_one_word():
    songs = (
        *MUSIC,
        song("song:world", "The World", "adele", "Pop", 1999.0, 0.5),
        song("song:people", "People", "adele", "Pop", 1999.0, 0.5),
        song("song:high", "High School", "adele", "Pop", 1999.0, 0.5),
    )
    by = reader(songs)

    def share(text: str, title: str) -> float:
        readings = understood(text, by).interpretations
        return sum(r.confidence for r in readings if any(s.value == title for s in r.slots))

    assert share("which song is about the world that we had", "The World") == pytest.approx(
        share("which song is about people that we had", "People"), rel=0.5
    )
    assert share("which song is about high school that we had", "High School") > 1.3 * share(
        "which song is about the world that we had", "The World"
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("cast:hanks year:>2000 robots", ("robots",)),
        ('title:"the lantern keeper" moon', ("moon",)),
        ("year:[1990 TO 1999] moon", ("moon",)),
        ("kind:film", ()),
        ("love -remix", ("love",)),
        ('love NOT "tin city"', ("love",)),
        ("love AND (tin OR city)", ("love", "tin", "city")),
        ("Alien: Covenant", ("alien", "covenant")),
        ("sci-fi", ("sci", "fi")),
        ("DON'T", ("dont",)),
        ("Amélie ＡＢＣ", ("amelie", "abc")),
        ("", ()),
        ("!?…", ()),
    ],
)
def test_only_what_is_asked_for_in_words_is_read(text, tokens):
    query = understood(text, FILMS)

    assert query.tokens == tokens
    assert query.normalized == " ".join(tokens)


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("", {}, QueryClass.EMPTY),
        ("", {"filters": (Filter("kind", ("film",)),)}, QueryClass.BROWSE),
        ("", {"like_item_ids": ("a",)}, QueryClass.BROWSE),
        ("year:>2000", {}, QueryClass.BROWSE),
        ("mara ellwood", {}, QueryClass.BROWSE),
        ("the lantern keeper", {}, QueryClass.NAVIGATIONAL),
        ("people who talk to silent planets", {}, QueryClass.TOPICAL),
    ],
)
def test_queries_are_classed_by_the_need_they_express(text, fields, expected):
    assert understood(text, FILMS, **fields).query_class is expected


@pytest.mark.parametrize(
    ("text", "locale", "expected"),
    [
        ("love", "", "en"),
        ("amour", "fr-FR", "fr"),
        ("любовь", "en-GB", "ru"),
        ("東京の灯", "", "ja"),
        ("東京", "", "zh"),
        ("사랑", "", "ko"),
        ("حب", "", "ar"),
        ("אהבה", "", "he"),
        ("love", "haw-US", "en"),
        ("😀", "de", "de"),
    ],
)
def test_the_script_tells_the_language_and_else_the_locale(text, locale, expected):
    assert understood(text, locale=locale).language == expected


@pytest.mark.parametrize(
    "text", ["a\0b", "\x1b[2J", "a\u0085", "\ud800", "x" * 4_097, "語" * 1_366]
)
def test_text_that_cannot_be_taken_is_refused(text):
    with pytest.raises(InvalidArgumentError) as refused:
        understood(text)

    assert refused.value.field == "text"


def test_line_breaks_are_spaces_and_text_is_composed():
    query = understood("\tlove\r\nstory \n")

    assert query.text == "love story"
    assert understood("cafe\u0301").text == "café"


@pytest.mark.parametrize("words", [33, 700, 1_000])
def test_a_query_of_very_many_words_is_read_by_its_beginning(words):
    query = understood("love story " + "zzz " * words)

    assert len(query.tokens) == words + 2
    assert query.interpretations
    assert query.interpretations[0].residual.split().count("zzz") >= words
    assert sum(r.confidence for r in query.interpretations) <= 1


def test_an_item_that_is_deleted_is_no_longer_read():
    gazetteer = Gazetteer(SONGS)
    by = Understanding(SONGS, gazetteer, UnderstandingSettings())
    for item in MUSIC:
        gazetteer.upsert(item)
    before = understood("hello", by)
    gazetteer.delete("song:hello")
    gazetteer.delete("song:hello")
    gazetteer.delete("song:never-was")

    assert before.interpretations[0].slots[0].item_id == "song:hello"
    assert not understood("hello", by).interpretations


def test_a_renamed_item_is_read_by_its_new_name_only():
    gazetteer = Gazetteer(SONGS)
    by = Understanding(SONGS, gazetteer, UnderstandingSettings())
    gazetteer.upsert(artist("prince", 0.9))
    gazetteer.upsert(
        Item("artist:prince", "artist", {"title": (Value("Symbol"),), "popularity": (Value(0.9),)})
    )

    assert not understood("prince", by).interpretations
    assert understood("symbol", by).interpretations[0].slots[0].item_id == "artist:prince"


def test_corrections_follow_the_names_that_there_are():
    gazetteer = Gazetteer(SONGS)
    gazetteer.upsert(artist("adele", 0.9))

    def corrected(word: str) -> list[str]:
        return [c.word for c in gazetteer.corrections(word, 6)]

    assert corrected("adelle") == corrected("adelle") == ["adele"]
    assert corrected("adel") == ["adele"]
    gazetteer.upsert(artist("odelle", 0.9))
    assert corrected("adelle") == ["adele"], "the first letter may not be wrong"
    gazetteer.upsert(artist("adella", 0.1))
    assert corrected("adelle") == ["adele", "adella"]
    gazetteer.delete("artist:adele")
    assert corrected("adelle") == ["adella"]


QUERIES = ("love", "tayler love", "country", "1994", "1980s", "adele hello", "the tailor", "soul")


@given(st.permutations(range(len(MUSIC))), st.sets(st.integers(0, len(MUSIC) - 1)), st.data())
@settings(max_examples=40)
def test_a_gazetteer_is_what_its_items_make_it_whatever_came_before(order, removed, data):
    rebuilt, lived = Gazetteer(SONGS), Gazetteer(SONGS)
    kept = [item for i, item in enumerate(MUSIC) if i not in removed]
    for item in kept:
        rebuilt.upsert(item)
    for i in order:
        if data.draw(st.booleans()):
            lived.upsert(replace(MUSIC[i], attributes=dict(MUSIC[i - 1].attributes)))
        lived.upsert(MUSIC[i])
    for i in removed:
        lived.delete(MUSIC[i].item_id)

    assert len(lived) == len(rebuilt)
    assert lived.years() == rebuilt.years()
    for text in QUERIES:
        one, other = (
            Understanding(SONGS, g, UnderstandingSettings()).interpret(tokenize(text))
            for g in (lived, rebuilt)
        )
        assert one == other


WORDS = st.sampled_from(
    [w for item in (*MUSIC, *catalog.items()) for t in item.texts("title") for w in t.split()]
    + ["tayler", "lov", "the", "90s", "1994", "xyzzy", "東京", "😀", "-x", "year:>2000", "a"]
)


@given(st.lists(WORDS, max_size=9).map(" ".join))
@settings(max_examples=120)
def test_readings_are_weighted_consistent_and_the_same_every_time(text):
    query = understood(text, FILMS)

    assert understood(text, FILMS) == query
    readings = query.interpretations
    assert len(readings) <= UnderstandingSettings().interpretations
    assert sum(r.confidence for r in readings) <= 1 + 1e-9
    assert [r.confidence for r in readings] == sorted(
        (r.confidence for r in readings), reverse=True
    )
    for reading in readings:
        assert 0 < reading.confidence <= 1
        assert reading.slots
        covered = [i for s in reading.slots for i in range(s.start, s.end)]
        assert len(covered) == len(set(covered))
        assert all(0 <= i < len(query.tokens) for i in covered)
        assert all(0 < s.confidence <= 1 for s in reading.slots)
        rest = [t for i, t in enumerate(query.tokens) if i not in covered]
        assert reading.residual == " ".join(rest)


@given(st.text(max_size=200))
@settings(max_examples=150)
def test_any_text_is_understood_or_refused(text):
    field = ""
    try:
        query = understood(text, FILMS)
    except InvalidArgumentError as refused:
        field = refused.field
    assert field == "text" or query.normalized == " ".join(query.tokens)


def test_many_misspelt_words_take_no_longer_than_a_few_corrections():
    rng = random.Random(4)
    middles, ends = ("ara", "onu", "eli"), ("tor", "vin", "dex", "mun")
    names = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in middles for c in ends]
    items = [artist(name, rng.random()) for name in names]
    counted = CountingGazetteer(SONGS)
    for item in items:
        counted.upsert(item)
    by = Understanding(SONGS, counted, UnderstandingSettings())

    understood(" ".join(name[:-2] + name[-1] + name[-2] for name in names), by)

    assert counted.corrected <= 12
    assert counted.looked_up < 10_000


class CountingGazetteer(Gazetteer):
    """Counts what it is asked."""

    def __init__(self, schema):
        super().__init__(schema)
        self.corrected = 0
        self.looked_up = 0

    def corrections(self, word, limit):
        self.corrected += 1
        return super().corrections(word, limit)

    def meanings(self, words):
        self.looked_up += 1
        return super().meanings(words)

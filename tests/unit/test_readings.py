"""Readings: names, years and plurals are recognised, and are as sure as they may be."""

from __future__ import annotations

import pytest

from forage.retrieval import QueryClass
from orchestrator.understanding import Understanding, UnderstandingSettings
from tests.unit.music_world import FILMS, MUSIC, artist, reader, slots, song, understood


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

"""Query understanding: words, class and language of what was typed, whatever was typed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.errors import InvalidArgumentError
from forage.retrieval import Filter, QueryClass
from forage.testing import catalog
from orchestrator.understanding import UnderstandingSettings
from tests.unit.music_world import FILMS, MUSIC, understood


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

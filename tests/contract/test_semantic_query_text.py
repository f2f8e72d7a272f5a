import pytest

from forage.retrieval import Interpretation, Query, Slot
from generators.semantic.query_text import MAX_CHARACTERS, query_text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("a lonely astronaut", "a lonely astronaut"),
        ('"love story" -remix', "love story"),
        ("war NOT vietnam", "war"),
        ('cast:"tom hanks" AND war', "tom hanks war"),
        ("year:[1990 TO 2000] heist", "heist"),
        ("heist year:>1990", "heist"),
        ("love* OR h?te^2 lantrn~1", "love h te lantrn"),
        ("-(war crime) peace", "peace"),
        ("spider-man: far from home", "spider-man: far from home"),
        ('(()) "" AND OR', ""),
        ("", ""),
        ("東京の灯", "東京の灯"),
    ],
)
def test_the_query_language_is_left_out(typed: str, meant: str) -> None:
    assert query_text(Query(text=typed), min_confidence=0.5) == meant


def test_a_likely_reading_writes_names_as_they_were_meant() -> None:
    reading = Interpretation((Slot("cast", "Tom Hanks", 0.9, "person:tom", 0, 2),), "war", 0.8)
    query = Query(text="tom hanx war", tokens=("tom", "hanx", "war"), interpretations=(reading,))

    assert query_text(query, min_confidence=0.5) == "Tom Hanks war"
    assert query_text(query, min_confidence=0.9) == "tom hanx war"


def test_slots_that_do_not_fit_the_tokens_are_ignored() -> None:
    slots = (Slot("cast", "Tom Hanks", 0.9, "", 4, 9), Slot("cast", "Ann", 0.9, "", 0, 0))
    query = Query(
        text="tom hanx", tokens=("tom", "hanx"), interpretations=(Interpretation(slots, "", 0.9),)
    )

    assert query_text(query, min_confidence=0.5) == "tom hanx"


def test_long_texts_are_cut() -> None:
    assert len(query_text(Query(text="a " * 50_000), min_confidence=0.5)) <= MAX_CHARACTERS

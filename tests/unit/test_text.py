"""Typed text: a clause on a field that cannot be searched is refused before there is a plan."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forage.errors import InvalidArgumentError
from forage.testing.catalog import SCHEMA
from generators.lexical.layout import Layout
from generators.lexical.query_language import QueryLanguage
from orchestrator.understanding import Gazetteer, Understanding, UnderstandingSettings
from orchestrator.understanding.text import check_fields, clean, language, plain_words

LEXICAL = QueryLanguage(Layout.of(SCHEMA))
UNDERSTANDING = Understanding(SCHEMA, Gazetteer(SCHEMA), UnderstandingSettings())
PIECES = st.sampled_from(
    [
        *("mood:", "mood", ":", "title:", "cast:", "year:", '"', "(", ")", "[", "]", "dark", " "),
        *(" ", "TO", ">", "<", "-", "+", "AND ", "OR ", "NOT ", "~1", "^2", "*", "é", "x", "_"),
    ]
)
REFUSED = (
    *("mood:dark", "-mood:dark", "+mood:dark", "x mood:dark", "(mood:dark)", 'mood:"a b"'),
    *("mood:(a)", "mood:>5", "mood:[a TO b]", "mood:dark* love", "mood:title:x", '"a"mood:x'),
    "love " * 200 + "mood:dark",
)
TAKEN = (
    *("moody:dark", "amood:dark", "mood : dark", "mood: dark", '"mood:dark"', '"a mood:dark"~2'),
    *("Mood:dark", "kind:film", "title:mood", "year:>2000", "language:english", "mood", "Alien: x"),
)


def refused(text: str) -> bool:
    try:
        UNDERSTANDING.understand(text, time=0.0, request_id="r", seed=1)
    except InvalidArgumentError as error:
        return error.field == "text" and "kind, title" in error.allowed
    return False


def refused_by_lexical(text: str) -> bool:
    try:
        LEXICAL.parse(text)
    except InvalidArgumentError:
        return True
    return False


@given(st.lists(PIECES, max_size=12).map("".join))
@example('mood:"dark night"')
@example('"dark"mood:night')
@example('title:"a "mood:x" b"')
@example("(mood:(dark OR night))")
@example('"mood:dark')
@example("dark~1mood:night")
@example("dark^2.5mood:night")
@settings(max_examples=300)
def test_whatever_the_lexical_generator_would_refuse_is_refused_before_there_is_a_plan(text):
    if refused_by_lexical(clean(text)):
        assert refused(text)


@pytest.mark.parametrize("text", REFUSED)
def test_a_clause_on_an_attribute_without_a_searchable_role_is_refused(text):
    assert refused(text)


@pytest.mark.parametrize("text", TAKEN)
def test_other_colons_are_left_alone(text):
    assert not refused(text)
    assert not refused_by_lexical(text)


def test_the_refusal_names_the_field_and_what_can_be_searched():
    with pytest.raises(InvalidArgumentError) as found:
        check_fields("mood:dark", ("kind", "title"), {"mood"})

    assert found.value.field == "text"
    assert found.value.message == (
        "text: the field 'mood' cannot be searched; allowed: one of kind, title"
    )


@given(st.text(max_size=300))
@settings(max_examples=100)
def test_cleaning_twice_changes_nothing_more(text):
    try:
        once = clean(text)
    except InvalidArgumentError:
        return

    assert clean(once) == once


@given(st.text(max_size=300), st.text(max_size=20))
@settings(max_examples=100)
def test_the_language_is_always_two_small_letters(text, locale):
    found = language(text, locale)

    assert len(found) == 2
    assert found.isalpha()
    assert found.islower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a title:b c", ["a", "c"]),
        ('a title:"b c" d', ["a", "d"]),
        ("a -title:(b c) d", ["a", "d"]),
        ("subtitle:b", ["subtitle:b"]),
        ("a NOT b c", ["a", "c"]),
        ("a OR b AND c", ["a", "b", "c"]),
        ("ANDES NOTHING ORB", ["ANDES", "NOTHING", "ORB"]),
    ],
)
def test_clauses_and_negations_are_taken_out(text, words):
    assert plain_words(text, frozenset({"title"})).split() == words

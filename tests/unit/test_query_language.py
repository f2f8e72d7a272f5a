from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forage.errors import InvalidArgumentError
from forage.testing.catalog import SCHEMA
from generators.lexical.layout import Layout
from generators.lexical.query_language import QueryLanguage
from generators.lexical.tree import Exactly, Fuzzy, Group, Phrase, Prefix, Range, Words

LANGUAGE = QueryLanguage(Layout.of(SCHEMA))


def plain(text: str) -> Words:
    return Words(text, unfinished=not text[-1].isspace())


@pytest.mark.parametrize("text", ["", " ", "\t\n "])
def test_a_blank_text_means_nothing_at_all(text: str) -> None:
    assert LANGUAGE.parse(text) is None


@pytest.mark.parametrize(
    "text", ["love story", "spider-man", "R&B / soul!", "and or not", "Who's there?", "東京の灯"]
)
def test_text_without_syntax_is_words(text: str) -> None:
    assert LANGUAGE.parse(text) == plain(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Alien: Covenant", "Alien: Covenant"),
        ("mission:impossible", "mission:impossible"),
        ("title: moon", "title: moon"),
        ('"copper moon', '"copper moon'),
        (">2000", ">2000"),
        ("year:soon", "year soon"),
        ("foo:>2000", "foo: 2000"),
        ("[rec to rec]", "rec rec"),
    ],
)
def test_what_makes_no_sense_as_syntax_is_read_as_words(text: str, words: str) -> None:
    assert LANGUAGE.parse(text) == Words(words)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("cast:ellwood", Words("ellwood", "cast")),
        ('cast:"mara ellwood"', Phrase("mara ellwood", "cast")),
        ('"copper moon"', Phrase("copper moon")),
        ("language:French", Exactly("language", "French")),
        ("kind:film", Exactly("kind", "film")),
        ("year:1994", Range("year", 1994.0, 1994.0)),
        ("year:1990..1999", Range("year", 1990.0, 1999.0)),
        ("year:1990..", Range("year", 1990.0, None)),
        ("year:[1990 TO 1999]", Range("year", 1990.0, 1999.0)),
        ("year:{1990 TO 1999}", Range("year", 1990.0, 1999.0, False, False)),
        ("year:[1990 TO]", Range("year", 1990.0, None)),
        ("year:>2000", Range("year", 2000.0, None, low_included=False)),
        ("year:<=2000", Range("year", None, 2000.0)),
        ("popularity:>=0.5", Range("popularity", 0.5, None)),
    ],
)
def test_a_field_is_a_demand(text: str, node: object) -> None:
    assert LANGUAGE.parse(text) == Group(required=(node,))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("lan*", Prefix("lan")),
        ("lantren~2", Fuzzy("lantren", 2)),
        ("lantren~9", Fuzzy("lantren", 2)),
        ("moon^2", Words("moon", boost=2.0)),
        ("(copper moon)^2", Words("copper moon", boost=2.0)),
        ("moon OR rain", Group(optional=(Words("moon"), Words("rain")))),
        ("-moon", Group(excluded=(Words("moon"),))),
        ("NOT moon", Group(excluded=(Words("moon"),))),
        ("rain -moon", Group(optional=(Words("rain"),), excluded=(Words("moon"),))),
        (
            "copper +moon rain",
            Group(
                required=(Group(required=(Words("moon"),)),),
                optional=(Words("copper rain"),),
            ),
        ),
        (
            'cast:ellwood year:>2000 "love story" -remix',
            Group(
                required=(
                    Words("ellwood", "cast"),
                    Range("year", 2000.0, None, low_included=False),
                    Phrase("love story"),
                ),
                excluded=(Words("remix"),),
            ),
        ),
    ],
)
def test_operators_say_what_is_wanted(text: str, node: object) -> None:
    assert LANGUAGE.parse(text) == node


def test_operators_nest() -> None:
    wanted = Group(
        required=(
            Group(
                required=(Words("copper"), Group(optional=(Words("moon"), Words("rain")))),
                excluded=(Words("city"),),
            ),
        )
    )

    assert LANGUAGE.parse("copper AND (moon OR rain) AND NOT city") == wanted


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2001", (2001, 1, 1), (2002, 1, 1)),
        ("2001-12", (2001, 12, 1), (2002, 1, 1)),
        ("2001-02", (2001, 2, 1), (2001, 3, 1)),
        ("2001-02-28", (2001, 2, 28), (2001, 3, 1)),
    ],
)
def test_a_date_is_a_stretch_of_time(
    text: str, first: tuple[int, int, int], last: tuple[int, int, int]
) -> None:
    parsed = LANGUAGE.parse(f"released:{text}")

    assert isinstance(parsed, Group)
    (wanted,) = parsed.required
    assert isinstance(wanted, Range)
    assert wanted.low == datetime(*first, tzinfo=UTC).timestamp()
    assert wanted.high == pytest.approx(datetime(*last, tzinfo=UTC).timestamp(), abs=1e-5)


@pytest.mark.parametrize("text", ["released:2001-13", "released:0", "released:99999", "year:1e999"])
def test_an_impossible_date_or_number_is_words(text: str) -> None:
    assert LANGUAGE.parse(text) == Words(text.replace(":", " "))


def test_an_attribute_that_cannot_be_searched_is_named_with_what_can() -> None:
    with pytest.raises(InvalidArgumentError, match="'mood' cannot be searched") as caught:
        LANGUAGE.parse("mood:dark lantern")

    assert caught.value.field == "query.text"
    assert "title" in caught.value.allowed


@pytest.mark.parametrize("text", ["(" * 500 + "moon", '"moon" ' * 500, "(" * 21 + "moon"])
def test_very_long_or_deep_texts_are_words(text: str) -> None:
    assert LANGUAGE.parse(text) == plain(text)


SYNTAX = st.sampled_from(
    ["moon", '"', "(", ")", "[", "]", "{", "}", ":", "year:", "cast:", "released:", "x:", ">", "<=",
     "^", "^2", "~", "~1", "~9", "*", "-", "+", " AND ", " OR ", "NOT ", " ", " TO ", "..", "2000",
     "'", "\\", "kind:", "mood:", "é", "東", "_", "\n", "/", "0/0", "&", "|", "?"]
)  # fmt: skip


@given(st.lists(SYNTAX, max_size=24).map("".join) | st.text(max_size=60))
@example("cast:-")
@example('""')
@example("-(")
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parsed = LANGUAGE.parse(text)
    except InvalidArgumentError:
        return

    assert (parsed is None) == (not text.strip())

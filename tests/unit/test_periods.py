"""Stretches of words that name years, and those that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.understanding.periods import Period, period


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        ("1994", 1994, 1994),
        ("1990s", 1990, 1999),
        ("1990 s", 1990, 1999),
        ("90s", 1990, 1999),
        ("90 s", 1990, 1999),
        ("00s", 2000, 2009),
        ("10s", 2010, 2019),
        ("20s", 1920, 1929),
        ("nineties", 1990, 1999),
        ("before 1980", None, 1979),
        ("pre 1980", None, 1979),
        ("before the 80s", None, 1979),
        ("until 1980", None, 1980),
        ("till the eighties", None, 1989),
        ("after 2000", 2001, None),
        ("after the 1990s", 2000, None),
        ("post 2000", 2001, None),
        ("since 2000", 2000, None),
        ("between 1990 and 1995", 1990, 1995),
        ("from 1990 to 1995", 1990, 1995),
        ("from the 80s until the 90s", 1980, 1999),
        ("1990 to 1995", 1990, 1995),
        ("1990 1995", 1990, 1995),
    ],
)
def test_years_are_understood(words: str, first: int | None, last: int | None) -> None:
    found = period(words.split())

    assert found is not None
    assert (found.first, found.last) == (first, last)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "90",
        "994",
        "3000",
        "s",
        "before",
        "before noon",
        "the 1990s",
        "1995 1990",
        "1990 1990",
        "between 1995 and 1990",
        "between 1990",
        "1990 and 1995",
        "from 1990",
        "95s",
        "1995s",
        "films 1990",
        "1990 films",
        "１９９０",
    ],
)
def test_other_words_name_no_years(words: str) -> None:
    assert period(words.split()) is None


def test_a_decade_said_as_a_word_is_less_sure_for_it_may_be_an_age() -> None:
    said, written = period(["thirties"]), period(["30s"])

    assert said is not None
    assert written is not None
    assert (said.first, said.last) == (written.first, written.last)
    assert said.confidence < written.confidence


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_years_or_not(words: list[str]) -> None:
    found = period(words)

    assert found is None or 0 < found.confidence <= 1


YEARS = st.none() | st.integers(1000, 2999)


@given(YEARS, YEARS, st.integers(1000, 2999), st.integers(0, 500))
def test_a_period_is_bounded_by_what_there_is_only_where_it_is_open(
    first: int | None, last: int | None, low: int, more: int
) -> None:
    high = low + more
    found = Period(first, last, 1.0).within(low, high)

    some = any(
        (first is None or first <= year) and (last is None or year <= last)
        for year in range(low, high + 1)
    )
    assert (found is not None) == some
    if found is not None:
        assert found == (low if first is None else first, high if last is None else last)

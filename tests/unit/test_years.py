"""Years as people name them: queries and indexes agree on the values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.catalog import Item, Schema, Value, years
from forage.catalog.view import CatalogView
from forage.retrieval import Interpretation, Slot

SCHEMA = Schema.model_validate(
    {
        "name": "test",
        "title": "title",
        "kinds": ["film"],
        "attributes": {
            "title": {"roles": ["text"]},
            "edition": {"roles": ["keyword"]},
            "year": {"roles": ["number"]},
            "founded": {"roles": ["number"]},
        },
    }
)


@given(st.integers(1000, 2999))
def test_a_year_is_asked_for_by_itself_and_by_its_decade(year: int) -> None:
    itself, decade = years.spoken(float(year))

    assert years.span(itself) == (year, year)
    first, last = years.span(decade) or (0, 0)
    assert first <= year <= last
    assert last - first == 9
    assert first % 10 == 0
    assert years.decade(year) == decade


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_other_numbers_are_asked_for_by_nothing(number: float) -> None:
    named = years.spoken(number)

    assert bool(named) == years.is_year(number) == (number in range(1000, 3000))


@given(st.text())
def test_text_is_asked_for_by_itself(text: str) -> None:
    assert years.spoken(text) == (text,)


@given(st.integers(1000, 2999), st.integers(0, 300))
def test_a_time_is_made_of_years_and_decades_that_do_not_overlap(first: int, more: int) -> None:
    last = min(first + more, 2999)
    parts = years.parts(years.value(first, last))

    for year in range(max(1000, first - 11), min(2999, last + 11) + 1):
        held = [part for part in parts if part in years.spoken(float(year))]
        assert len(held) == (first <= year <= last)
    assert len(parts) <= 18 + (last - first) // 10


@given(st.text().filter(lambda text: years.span(text) is None))
def test_other_values_are_whole(text: str) -> None:
    assert years.parts(text) == (text,)


@pytest.mark.parametrize(
    "value", ["", "994", "3000", "1990s", "1990..", "..1999", "1999..1990", "1990..199", "１９９０"]
)
def test_other_texts_name_no_years(value: str) -> None:
    assert years.span(value) is None


def view() -> CatalogView:
    made = CatalogView(SCHEMA)
    made.apply(
        [
            Item("film:a", "film", {"year": (Value(1994.0),)}),
            Item("film:b", "film", {"year": (Value(1995.0), Value(2003.0))}),
            Item("film:c", "film", {"edition": (Value("1994"),), "founded": (Value(1994.0),)}),
        ]
    )
    return made


def agreement(*readings: Interpretation) -> list[float] | None:
    found = view().agreement(readings)
    return None if found is None else found.tolist()


def reading(*slots: tuple[str, str, float], confidence: float = 1.0) -> Interpretation:
    return Interpretation(tuple(Slot(*slot) for slot in slots), "", confidence)


@pytest.mark.parametrize(
    "named", [(), (("edition", "1994", 1.0),), (("year", "soon", 1.0),), (("title", "1994", 1.0),)]
)
def test_a_query_without_years_agrees_with_everything(named: tuple) -> None:
    assert agreement(reading(*named)) is None


def test_items_of_other_years_keep_the_doubt() -> None:
    assert agreement(reading(("year", "1994", 0.9), confidence=0.5)) == pytest.approx(
        [1, 0.55, 0.55]
    )
    assert agreement(reading(("year", "2000..2009", 1.0))) == [0, 1, 0]


def test_readings_that_name_the_same_year_add_up() -> None:
    once = reading(("year", "1994", 1.0), confidence=0.3)
    again = reading(("edition", "x", 1.0), ("year", "1994", 1.0), confidence=0.2)

    assert agreement(once, again) == pytest.approx([1, 0.5, 0.5])


def test_any_of_several_years_will_do() -> None:
    either = reading(("year", "1994", 0.5), ("year", "1995", 0.5))

    assert agreement(either) == pytest.approx([1, 1, 0.25])


def test_a_year_of_another_attribute_does_not_count() -> None:
    assert agreement(reading(("founded", "1994", 1.0))) == [0, 0, 1]

"""The demo catalogue: what is in it, and that it is the same every time."""

import hashlib
import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.catalog import Item, Schema
from forage.catalog.demo import demo_items
from forage.catalog.demo_entities import Credits, EntityTable, names, slug
from forage.catalog.embedding_text import embed_text
from forage.catalog.item import Value
from forage.catalog.popularity import film_popularity, relative_popularity
from forage.catalog.rows import validate_item
from forage.errors import StartupError

SCHEMA = Schema.load(Path(__file__).parents[2] / "config" / "films.schema.yaml")


@pytest.fixture(scope="module")
def items() -> dict[str, Item]:
    return {item.item_id: item for item in demo_items()}


def test_every_film_and_entity_is_an_item_of_its_own(items: dict[str, Item]) -> None:
    kinds = Counter(item.kind for item in items.values())

    assert kinds["film"] == 17_472
    assert kinds["person"] > 10_000
    assert kinds["genre"] == 21
    assert kinds["country"] > 100
    assert kinds["studio"] > 500


def test_every_item_is_valid_and_every_reference_has_a_target(items: dict[str, Item]) -> None:
    for item in items.values():
        validate_item(item, SCHEMA)
        for attribute, value in item.references():
            assert items[value.item_id].kind == SCHEMA.attributes[attribute].kind
            assert items[value.item_id].texts("title") == (value.value,)


def test_a_generational_suffix_belongs_to_the_name_before_it(items: dict[str, Item]) -> None:
    people = {item.texts("title")[0] for item in items.values() if item.kind == "person"}

    assert "Ed Begley Jr." in people
    assert not people & {"Jr.", "Sr.", "III", "PhD", "40"}


def test_popularity_orders_what_everybody_knows(items: dict[str, Item]) -> None:
    inception, star = items["film:tt1375666"], items["person:leonardo-dicaprio"]
    popularities = [item.number("popularity") or 0 for item in items.values()]

    assert min(popularities) > 0
    assert max(popularities) <= 1
    assert (inception.number("popularity") or 0) > 0.8
    assert (star.number("popularity") or 0) > 0.7
    assert inception.values("cast")[0].value in ("Michael Caine", "Leonardo DiCaprio")


def test_the_catalogue_is_the_same_in_every_run(items: dict[str, Item]) -> None:
    digest = hashlib.sha256()
    for item in demo_items():
        digest.update(repr(item).encode())

    again = hashlib.sha256()
    for item in items.values():
        again.update(repr(item).encode())
    assert digest.digest() == again.digest()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(StartupError, match="pip install 'bokeh-sampledata"):
        next(demo_items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clifton Collins, Jr., Bob Hope", ("Clifton Collins Jr.", "Bob Hope")),
        ("Jr., Ann Lee, PhD, III", ("Ann Lee III",)),
        ("list of Harry Potter cast members, 40, ,  A   B ", ("A B",)),
        ("Ann, Ann", ("Ann",)),
        (None, ()),
    ],
)
def test_names_are_split_and_junk_is_dropped(text: str | None, expected: tuple[str, ...]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Tom Hanks", "tom-hanks"), ("Robert Downey Jr.", "robert-downey-jr"), ("Zoë Øst", "zoe-ost")],
)
def test_a_slug_is_plain_ascii(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.lists(st.text("aAé ", min_size=1).filter(str.strip), unique=True, max_size=8))
def test_ids_are_unique_whatever_order_films_come_in(found: list[str]) -> None:
    films = [Credits({"genre": (n,)}, 0.1 * (i + 1)) for i, n in enumerate(found)]

    forward, backward = EntityTable("genre", films), EntityTable("genre", films[::-1])

    ids = {forward.item_id(n) for n in found}
    assert len(ids) == len(found)
    assert all(forward.item_id(n) == backward.item_id(n) for n in found)


@given(
    st.integers(0, 1000) | st.none(),
    st.floats(0, 1e10) | st.none(),
    st.integers(0, 20) | st.none(),
    st.integers(1, 100),
)
def test_more_reviews_never_make_a_film_less_popular(
    reviews: int | None, box_office: float | None, oscars: int | None, more: int
) -> None:
    fewer = film_popularity(reviews=reviews, box_office=box_office, oscars=oscars)
    greater = film_popularity(reviews=(reviews or 0) + more, box_office=box_office, oscars=oscars)

    assert 0.01 <= fewer <= greater <= 1


def test_popularity_of_hand_worked_films() -> None:
    assert film_popularity(reviews=None, box_office=None, oscars=None) == 0.01
    assert film_popularity(reviews=400, box_office=None, oscars=0) == 0.75
    assert film_popularity(reviews=400, box_office=10**9.5, oscars=11) == pytest.approx(0.9038)
    assert relative_popularity(3.0, 3.0) == 1.0


def test_the_embedded_text_leads_with_the_title_and_leaves_predictions_out() -> None:
    item = Item(
        "film:1",
        "film",
        {
            "genre": (Value("Drama", 0.2), Value("War", 0.9), Value("Sport", 0.8, predicted=True)),
            "title": (Value("Big"),),
            "language": (Value("English"),),
            "director": tuple(Value(n) for n in "ABCDEF"),
        },
    )

    assert embed_text(item, SCHEMA) == "Big. A, B, C, D. War, Drama"
    assert embed_text(item, SCHEMA, without={"genre"}) == "Big. A, B, C, D"
    assert embed_text(Item("film:2", "film"), SCHEMA) == ""

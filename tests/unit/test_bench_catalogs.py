"""The catalogues that scaling is measured with: what they promise at every size."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.catalogs import CHUNK, Catalog, Zipf, name, uniform, word
from forage.catalog.row_values import parse_item
from forage.catalog.schema import Schema
from forage.catalog.validation import validate_item

SMALL = Catalog(1_500, seed=3)


@pytest.fixture(scope="module")
def rows():
    return list(SMALL.rows())


def test_a_catalog_has_as_many_items_as_asked_for_and_no_id_twice(rows):
    assert len(rows) == 1_500
    assert len({row["item_id"] for row in rows}) == 1_500


def test_the_same_seed_gives_the_same_catalog_and_another_seed_another(rows):
    assert list(Catalog(1_500, seed=3).rows()) == rows
    assert list(Catalog(1_500, seed=4).rows()) != rows


def test_a_part_is_the_same_whether_or_not_the_parts_before_it_were_made():
    catalog = Catalog(8_500)
    last = catalog.films_of(catalog.chunks - 1)
    assert len(last) == catalog.films - (catalog.chunks - 1) * CHUNK
    assert last[0]["item_id"] == f"film:{(catalog.chunks - 1) * CHUNK:07d}"
    assert catalog.films_of(catalog.chunks - 1) == last


def test_every_row_is_an_item_of_the_films_schema(rows, pytestconfig):
    schema = Schema.load(pytestconfig.rootpath / "config/films.schema.yaml")
    items = [parse_item(row, schema) for row in json.loads(json.dumps(rows))]
    for item in items:
        validate_item(item, schema)
    assert [item.item_id for item in items] == [row["item_id"] for row in rows]
    assert {item.kind for item in items} == {"film", "person", "studio", "country", "genre"}
    films = [item for item in items if item.kind == "film"]
    assert all(film.values("year") and film.values("director") for film in films)


def test_every_reference_names_an_item_with_that_name(rows):
    titles = {row["item_id"]: row["title"] for row in rows}
    for row in rows:
        for values in row.values():
            for value in values if isinstance(values, list) else []:
                if isinstance(value, dict) and "item_id" in value:
                    assert titles[value["item_id"]] == value["value"]


def test_kinds_and_values_have_the_demos_proportions():
    rows = list(Catalog(4_000).rows())
    kinds = Counter(row["kind"] for row in rows)
    films = [row for row in rows if row["kind"] == "film"]
    cast = [person for film in films for person in film.get("cast", [])]
    assert kinds["film"] / len(rows) == pytest.approx(0.54, abs=0.05)
    assert kinds["person"] / len(rows) == pytest.approx(0.42, abs=0.01)
    assert len(cast) / len(films) == pytest.approx(11, rel=0.1)
    assert sum("item_id" in person for person in cast) / len(cast) == pytest.approx(0.6, abs=0.1)


def test_a_catalog_too_small_for_its_kinds_is_refused():
    with pytest.raises(ValueError, match="at least 100"):
        Catalog(99)


def test_users_want_items_of_the_catalog_in_the_demos_mix(rows):
    known = {row["item_id"] for row in rows}
    found = SMALL.intents(400, seed=5)
    assert found == SMALL.intents(400, seed=5)
    assert all(intent.wanted <= known for intent in found)
    shares = Counter(intent.kind for intent in found)
    assert shares["title"] / 400 == pytest.approx(0.33, abs=0.08)
    assert all(intent.text for intent in found if intent.kind != "browse")


@given(
    exponent=st.floats(0.3, 3.0).filter(lambda e: abs(e - 1) > 0.01),
    offset=st.floats(0.5, 100.0),
    size=st.integers(1, 10**7),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=20),
)
@settings(max_examples=100)
def test_ranks_lie_in_the_range_and_grow_with_the_draw(exponent, offset, size, draws):
    ranks = Zipf(exponent, offset, size).ranks(np.sort(np.array(draws)))
    assert ((ranks >= 0) & (ranks < size)).all()
    assert all(a <= b for a, b in pairwise(ranks.tolist()))


def test_ranks_follow_the_law():
    law = Zipf(1.5, 1.0, 1e6)
    ranks = law.ranks((np.arange(100_000) + 0.5) / 100_000)
    # The share of rank 0 is 1 - 2^-0.5 but for the cut at a million.
    assert (ranks == 0).mean() == pytest.approx((1 - 2**-0.5) / (1 - 1e6**-0.5), abs=1e-3)


def test_words_of_different_ranks_differ_unless_an_invented_one_is_english():
    assert 60_000 - len({word(rank) for rank in range(60_000)}) <= 3


def test_names_are_two_words_and_seldom_shared():
    names = [name(person, 1) for person in range(2_000)]
    assert all(len(n.split()) == 2 for n in names)
    assert len(set(names)) > 1_900


@given(st.integers(0, 2**63), st.integers(0, 100))
def test_hashed_numbers_lie_in_the_unit_interval(number, salt):
    assert 0 <= uniform(number, salt) < 1

"""The ranker's features that compare an item with the words and slots of a query."""

from __future__ import annotations

import math

import pytest

from forage.text import tokenize
from forage.v1 import query_pb2
from tests.unit.ranker_parts import (
    FESTIVAL,
    KEEPER,
    MOON,
    Ranker,
    query,
    request,
)


def test_words_are_matched_field_by_field(ranker: Ranker) -> None:
    keeper, festival, moon = ranker.rows(request(query("lantern ship"), KEEPER, FESTIVAL, MOON))

    assert keeper["match.title.coverage"] == 0.5
    assert keeper["match.synopsis.coverage"] == 1.0
    assert keeper["match.coverage"] == 1.0
    assert festival["match.title.coverage"] == 0.5
    assert festival["match.synopsis.coverage"] == 0.0
    assert moon["match.coverage"] == 0.0


def test_a_typed_title_is_recognised(ranker: Ranker) -> None:
    exact, other = ranker.rows(request(query("Lantern Festival"), FESTIVAL, KEEPER))

    assert exact["match.title.exact"] == 1
    assert exact["title.coverage"] == 1
    assert exact["title.length_ratio"] == 1
    assert exact["title.prefix"] == 1
    assert exact["title.similarity"] == 1
    assert other["match.title.exact"] == 0
    assert other["title.coverage"] == pytest.approx(1 / 3)
    assert other["title.prefix"] == 0
    assert 0 < other["title.similarity"] < 1


def test_the_weight_of_a_value_is_the_strength_of_its_match(ranker: Ranker) -> None:
    drama, romance = (
        ranker.rows(request(query(genre), FESTIVAL))[0] for genre in ("drama", "romance")
    )

    assert drama["match.genre.exact"] == 1
    assert romance["match.genre.exact"] == pytest.approx(0.6)
    assert romance["match.genre.coverage"] == pytest.approx(0.6)


def test_slots_are_matched_by_attribute_and_value(ranker: Ranker) -> None:
    slots = [
        query_pb2.Slot(attribute="cast", value="Mara Ellwood", confidence=0.9, end=2),
        query_pb2.Slot(attribute="genre", value="horror", confidence=0.3, start=2, end=3),
    ]
    asked = query("mara ellwood horror lantern", *slots)

    keeper, moon = ranker.rows(request(asked, KEEPER, MOON))

    assert keeper["slots.matched"] == pytest.approx(0.75)
    assert keeper["slots.top"] == pytest.approx(0.75)
    assert keeper["slots.residual"] == 1
    assert moon["slots.top"] == pytest.approx(0.25)
    assert moon["slots.residual"] == 0


def test_an_item_named_by_a_slot_has_its_confidence(ranker: Ranker) -> None:
    slot = query_pb2.Slot(
        attribute="title", value="Lantern Festival", item_id=FESTIVAL, confidence=0.8, end=2
    )

    rows = ranker.rows(request(query("lantern festival", slot), FESTIVAL, KEEPER))

    assert [row["slots.named"] for row in rows] == pytest.approx([0.4, 0.0])


def test_an_empty_query_has_no_match_features(ranker: Ranker) -> None:
    (row,) = ranker.rows(request(query(), KEEPER))

    assert math.isnan(row["match.coverage"])
    assert math.isnan(row["title.prefix"])
    assert row["query.words"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café Nocturne", ("cafe", "nocturne")),
        ("Don't_look", ("dont", "look")),
        ("東京の灯", ("東京の灯",)),
        ("", ()),
    ],
)
def test_words_are_cut_like_those_of_queries(text: str, words: tuple[str, ...]) -> None:
    assert tokenize(text) == words


def test_words_are_matched_by_their_stem_and_weighed_by_their_rarity(ranker: Ranker) -> None:
    plural, other = ranker.rows(request(query("lanterns keepers"), KEEPER, FESTIVAL))

    assert plural["match.coverage"] == 0
    assert plural["match.idf"] == pytest.approx(1)
    assert 0 < other["match.idf"] < 1
    assert plural["match.rarest"] == 1
    assert other["match.rarest"] == 0
    assert plural["title.idf"] > other["title.idf"]
    assert plural["match.bm25"] > other["match.bm25"] > 0


def test_the_best_stretch_of_a_long_query_is_compared_with_the_title(ranker: Ranker) -> None:
    asked = request(query("i would love to see the lantren keeper once again tonight"), KEEPER)

    (row,) = ranker.rows(asked)

    assert row["title.part_similarity"] > 0.8
    assert row["title.similarity"] < 0.6


@pytest.mark.parametrize(
    ("years", "matched"),
    [
        ("1994", [1, 0]),
        ("1980..1989", [0, 1]),
        ("1985..1994", [1, 1]),
        ("1888..1979", [0, 0]),
    ],
)
def test_years_decades_and_longer_times_are_slots_too(
    ranker: Ranker, years: str, matched: list[float]
) -> None:
    slot = query_pb2.Slot(attribute="year", value=years, confidence=0.9, end=1)

    rows = ranker.rows(request(query("films", slot), KEEPER, MOON))

    assert [row["slots.matched"] for row in rows] == pytest.approx(matched)

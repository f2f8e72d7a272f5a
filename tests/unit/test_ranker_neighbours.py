"""What the other candidates say of an item: against pairs computed one by one, and its laws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import snowballstemmer
from hypothesis import given
from hypothesis import strategies as st

from forage.catalog.schema import Role
from forage.testing import catalog
from forage.text import tokenize
from ranker.catalog import JoinedPostings
from ranker.neighbours import Neighbours
from tests.unit.ranker_parts import FESTIVAL, GENERATORS, KEEPER, MOON, Ranker, query, request

ITEMS = {item.item_id: item for item in catalog.items()}
IDS = sorted(ITEMS)
STEM = snowballstemmer.stemmer("english").stemWord
RISING = "film:copper-moon-rising"


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranker]:
    ranker = Ranker(tmp_path_factory.mktemp("neighbours"))
    yield ranker
    ranker.log.close()


def neighbours(ranker: Ranker, item_ids: Sequence[str]) -> Neighbours:
    found = ranker.cards.find(item_ids)
    return Neighbours.of(ranker.cards, found, JoinedPostings(found))


def stems(item_id: str) -> Counter[str]:
    item = ITEMS[item_id]
    texts = [v.value for name in catalog.SCHEMA.with_role(Role.TEXT) for v in item.values(name)]
    return Counter(STEM(word) for text in texts for word in tokenize(str(text)))


def likeness(one: str, other: str) -> float:
    """Return the likeness of two items by the definition: the cosine of BM25 weights."""
    every = {item_id: stems(item_id) for item_id in IDS}
    mean_length = sum(c.total() for c in every.values()) / len(every)

    def weights(item_id: str) -> dict[str, float]:
        counts, found = every[item_id], {}
        norm = 1.2 * (0.25 + 0.75 * counts.total() / mean_length)
        for stem, often in counts.items():
            held = sum(stem in other for other in every.values())
            idf = math.log1p((len(every) - held + 0.5) / (held + 0.5))
            found[stem] = idf * often / (often + norm)
        return found

    a, b = weights(one), weights(other)
    length = math.hypot(*a.values()) * math.hypot(*b.values())
    return sum(a[stem] * b[stem] for stem in a.keys() & b.keys()) / length


def test_a_sum_is_what_all_pairs_one_by_one_give(ranker: Ranker) -> None:
    item_ids = [i for i in IDS if i.startswith("film:")]
    values = np.linspace(0.1, 1.0, len(item_ids))
    expected = [
        sum(
            likeness(one, other) * v
            for other, v in zip(item_ids, values, strict=True)
            if one != other
        )
        for one in item_ids
    ]

    assert neighbours(ranker, item_ids).sum(values) == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0.1


@given(st.permutations(IDS), st.integers(0, len(IDS)))
def test_the_order_of_the_candidates_does_not_matter(
    ranker: Ranker, shuffled: list[str], candidates: int
) -> None:
    item_ids = sorted(shuffled[:candidates])
    values = {item_id: float(place) for place, item_id in enumerate(item_ids)}

    def told(order: Sequence[str]) -> dict[str, float]:
        found = neighbours(ranker, order)
        means = found.mean(np.array([values[i] for i in order], float))
        return dict(zip(order, means.tolist(), strict=True))

    assert told(shuffled[:candidates]) == pytest.approx(told(item_ids), nan_ok=True)


@given(st.lists(st.tuples(st.sampled_from(IDS), st.floats(0, 1)), unique_by=lambda pair: pair[0]))
def test_a_mean_is_between_the_others_values(
    ranker: Ranker, pairs: list[tuple[str, float]]
) -> None:
    values = np.array([value for _, value in pairs], float)
    found = neighbours(ranker, [item_id for item_id, _ in pairs]).mean(values)

    for place in np.flatnonzero(~np.isnan(found)):
        others = np.delete(values, place)
        assert others.min() - 1e-6 <= found[place] <= others.max() + 1e-6


def test_an_item_alone_or_unknown_has_no_neighbours(ranker: Ranker) -> None:
    alone = neighbours(ranker, [KEEPER])
    strange = neighbours(ranker, [MOON, "film:unheard-of", RISING])

    assert np.isnan(alone.mean(np.ones(1))).all()
    assert alone.density().tolist() == [0.0]
    assert np.isnan(strange.mean(np.ones(3))).tolist() == [False, True, False]
    assert strange.sum(np.ones(3))[0] == pytest.approx(likeness(MOON, RISING))


@given(st.permutations(IDS), st.integers(0, len(IDS)))
def test_some_of_the_candidates_are_compared_as_if_they_were_all(
    ranker: Ranker, shuffled: list[str], kept: int
) -> None:
    places = np.array([IDS.index(item_id) for item_id in shuffled[:kept]], int)
    values = np.arange(kept) / max(kept, 1)

    among = neighbours(ranker, IDS).among(places).mean(values)

    alone = neighbours(ranker, shuffled[:kept]).mean(values)
    assert among == pytest.approx(alone, nan_ok=True)


def test_no_candidates_have_no_neighbours(ranker: Ranker) -> None:
    assert len(neighbours(ranker, []).mean(np.zeros(0))) == 0


def test_an_item_is_told_what_the_generators_think_of_those_like_it(ranker: Ranker) -> None:
    asked = request(query("moon"), MOON, FESTIVAL, RISING)
    moon, festival, rising = ranker.rows(asked)

    # The copper moons are like each other, and nothing is like the festival.
    assert rising["neighbours.lexical"] == pytest.approx(moon["lexical.share"], abs=0.05)
    assert math.isnan(festival["neighbours.fusion"])
    assert rising["neighbours.fusion"] == pytest.approx(moon["fusion.share"], abs=0.05)
    assert rising["neighbours.best"] > festival["neighbours.best"]
    assert rising["neighbours.best_5_z"] > 0 > festival["neighbours.best_5_z"]
    assert rising["neighbours.likeness"] > festival["neighbours.likeness"]
    assert rising["neighbours.bm25"] > 0
    assert math.isnan(moon["neighbours.semantic"]), "it was not called"


def test_likeness_in_words_is_missing_for_a_query_without_words(ranker: Ranker) -> None:
    rows = ranker.rows(request(query(""), MOON, FESTIVAL, RISING))

    told = [row[name] for row in rows for name in row if name.startswith("neighbours.")]
    assert len(told) == 3 * (7 + len(GENERATORS))
    assert np.isnan(told).all()

"""The context: named numbers, always finite, in the order that their names say."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.retrieval import Filter, Interpretation, Query, QueryClass, Slot, UserContext
from orchestrator import context
from orchestrator.context import ACTION_FEATURES, FEATURES, QUERY_FEATURES, GeneratorHistory

NAMES = ("lexical", "graph")


class Past:
    """A history that says the same of everything."""

    def __init__(
        self, *, engagements=0.0, hit_rate=0.3, query_hit_rate=0.3, returned=0.5, latency_s=0.01
    ):
        self._engagements = engagements
        self._history = GeneratorHistory(hit_rate, query_hit_rate, returned, latency_s)

    def engagements(self, normalized_query: str) -> float:
        return self._engagements

    def generator(
        self, name: str, query_class: QueryClass, normalized_query: str
    ) -> GeneratorHistory:
        return self._history


def features(query: Query, past: Past | None = None) -> np.ndarray:
    return context.features(query, NAMES, past or Past(), title="title")


def named(query: Query, past: Past | None = None) -> dict[str, float]:
    return dict(zip(FEATURES, features(query, past)[0].tolist(), strict=True))


SLOTS = st.builds(
    Slot,
    attribute=st.sampled_from(["title", "cast", "genre"]),
    value=st.text(max_size=3),
    confidence=st.floats(0.001, 1),
    item_id=st.sampled_from(["", "a"]),
)
READINGS = st.builds(
    Interpretation,
    slots=st.lists(SLOTS, max_size=3).map(tuple),
    residual=st.sampled_from(["", "word", "two words"]),
    confidence=st.floats(0.001, 1),
)
QUERIES = st.builds(
    Query,
    tokens=st.lists(st.sampled_from(["a", "b"]), max_size=400).map(tuple),
    query_class=st.sampled_from(QueryClass),
    interpretations=st.lists(READINGS, max_size=3).map(tuple),
    filters=st.sampled_from([(), (Filter("kind", ("film",)),)]),
    user=st.builds(UserContext, recent_item_ids=st.lists(st.just("a"), max_size=300).map(tuple)),
    like_item_ids=st.sampled_from([(), ("a",)]),
    language=st.sampled_from(["en", "fr"]),
    device=st.sampled_from(["", "Phone", "mobile", "tv"]),
    time=st.floats(0, 4e9),
)


@given(
    QUERIES,
    st.floats(0, 1e12),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.floats(0, 3),
    st.floats(0, 1e6),
)
@settings(max_examples=200)
def test_every_number_is_finite_and_small(query, engagements, hit_rates, returned, latency_s):
    of_class, of_query = hit_rates
    past = Past(
        engagements=engagements,
        hit_rate=of_class,
        query_hit_rate=of_query,
        returned=returned,
        latency_s=latency_s,
    )
    found = features(query, past)

    assert found.shape == (len(NAMES), len(FEATURES))
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 3.5).all()
    assert (found[:, 0] == 1).all()


def test_the_columns_are_in_the_order_of_their_names():
    assert tuple(n for n, _ in (*QUERY_FEATURES, *ACTION_FEATURES)) == FEATURES
    assert len(set(FEATURES)) == len(FEATURES)

    query = Query(
        tokens=("tom", "hanks", "sad"),
        query_class=QueryClass.TOPICAL,
        interpretations=(
            Interpretation((Slot("cast", "Tom Hanks", 0.8, "person:1"),), "sad", 0.6),
        ),
        filters=(Filter("kind", ("film",)),),
        user=UserContext("u", ("a", "b")),
        language="de",
        device="Phone",
        time=1_700_938_800.0,  # Saturday 25 November 2023, 19:00 UTC
    )
    past = Past(engagements=9.0, hit_rate=0.5, query_hit_rate=0.75, returned=0.25, latency_s=0.009)

    assert named(query, past) == pytest.approx(
        {
            "bias": 1,
            "navigational": 0,
            "browse": 0,
            "empty": 0,
            "length": math.log(4) / math.log(33),
            "slot_confidence": 0.8,
            "entity_slots": 1 / 3,
            "title_slot": 0,
            "ambiguity": 0.4,
            "residual": 1 / 3,
            "filtered": 1,
            "like": 0,
            "history": math.log(3) / math.log(51),
            "remembered": math.log(10) / math.log(101),
            "other_language": 1,
            "phone": 1,
            "weekend": 1,
            "evening": 1,
            "holiday_season": 1,
            "past_hit_rate": 0,
            "query_hit_rate": math.log(3) / 4,
            "past_returned": 0.25,
            "past_latency": math.log(10) / math.log(1001),
        }
    )


def test_a_query_without_readings_is_all_residual_and_ambiguous():
    found = named(Query(tokens=("a", "b"), query_class=QueryClass.TOPICAL))

    assert (found["ambiguity"], found["residual"], found["slot_confidence"]) == (1, 1, 0)


def test_nothing_at_all_is_a_context_too():
    found = named(Query())

    assert found["empty"] == 1
    assert found["residual"] == found["length"] == 0


@pytest.mark.parametrize(
    ("month_day", "season"),
    [((11, 19), 0), ((11, 20), 1), ((12, 31), 1), ((1, 2), 1), ((1, 3), 0), ((7, 1), 0)],
)
def test_the_holiday_season_goes_over_the_end_of_the_year(month_day, season):
    time = datetime(2026, *month_day, 12, tzinfo=UTC).timestamp()

    assert named(Query(time=time))["holiday_season"] == season


def test_the_version_is_another_when_the_definition_is():
    before = context.definition_version(QUERY_FEATURES, ACTION_FEATURES)

    assert before == context.FEATURE_VERSION
    reworded = (("bias", "something else"), *QUERY_FEATURES[1:])
    swapped = (*ACTION_FEATURES[1:], ACTION_FEATURES[0])
    assert context.definition_version(reworded, ACTION_FEATURES) != before
    assert context.definition_version(QUERY_FEATURES, swapped) != before

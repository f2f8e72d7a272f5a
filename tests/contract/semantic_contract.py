"""What the semantic generator owes its callers wherever its vectors are kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.catalog.embedding_text import embed_text
from forage.catalog.filters import matches
from forage.encoder import MiniLMEncoder
from forage.retrieval import Filter, Query
from forage.testing import catalog
from forage.testing.bench import Bench
from forage.testing.projection_contract import ids
from forage.testing.retriever_contract import RetrieverContract, text_query

VALUES = ["Drama", "comedy", "ENGLISH", "french", "mara ellwood", "amélie ROUX", ""]
VALUES += ["person:sefa-morrow", "genre:horror", "Genre:Horror", '") or (1 == 1']
FILTERS = st.lists(
    st.one_of(
        st.builds(
            Filter,
            st.sampled_from(["genre", "cast", "director", "language"]),
            st.lists(
                st.sampled_from(VALUES),
                min_size=1,
                max_size=4,
            ).map(tuple),
            exclude=st.booleans(),
        ),
        st.builds(
            Filter,
            st.just("kind"),
            st.lists(st.sampled_from(["film", "person", "genre", "Film"]), min_size=1).map(tuple),
            exclude=st.booleans(),
        ),
        st.builds(
            Filter,
            st.sampled_from(["year", "popularity"]),
            minimum=st.none() | st.sampled_from([-1e300, 0.3, 0.35, 1991.0, 2003.0]),
            maximum=st.none() | st.sampled_from([0.41, 0.95, 1999.0, 2003.0, 1e300]),
            exclude=st.booleans(),
        ),
    ),
    max_size=3,
).map(tuple)


@cache
def shared_encoder() -> MiniLMEncoder:
    return MiniLMEncoder(threads=2)


def assert_cosines(bench: Bench, query: Query) -> None:
    encoder = shared_encoder()
    items = list(bench.items.values())
    vectors = encoder.encode([embed_text(i, catalog.SCHEMA) for i in items])
    cosines = vectors @ encoder.encode([query.text])[0]
    expected = {i.item_id: float(c) for i, c in zip(items, cosines, strict=True)}

    hits = bench.retrieve(query, limit=100).hits

    assert {h.item_id: h.score for h in hits} == pytest.approx(expected, abs=2e-3)


class SemanticContract(RetrieverContract):
    """The retriever's contract, asked by meaning."""

    heeds_years = False  # A vector of a query says hardly anything of years.

    @pytest.fixture
    def query(self) -> Query:
        return text_query("a lonely astronaut in space")


class ExactContract(SemanticContract):
    """What an index without approximation owes besides: all that brute force finds."""

    @settings(
        max_examples=60,
        suppress_health_check=[
            HealthCheck.differing_executors,
            HealthCheck.function_scoped_fixture,
        ],
    )
    @given(filters=FILTERS)
    def test_milvus_finds_what_brute_force_finds(
        self, shared_bench: Bench, query: Query, filters: tuple[Filter, ...]
    ) -> None:
        items = [i for i in shared_bench.items.values() if matches(i, filters)]

        hits = shared_bench.retrieve(replace(query, filters=filters), limit=100).hits

        assert set(ids(hits)) == {i.item_id for i in items}

    def test_scores_are_the_cosines_of_brute_force(self, shared_bench: Bench, query: Query) -> None:
        assert_cosines(shared_bench, query)

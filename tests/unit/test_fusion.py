"""Fusion: the laws that one list out of many must keep."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.v1 import candidate_pb2
from forage.v1.generator_service_pb2 import Hit
from orchestrator.fusion import Candidate, fuse, unique_finds

ITEMS = [f"item:{i}" for i in range(12)]
NAMES = ("lexical", "semantic", "graph", "memory")
LISTS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(ITEMS), unique=True, max_size=10)
)
WEIGHTS = st.fixed_dictionaries({n: st.floats(0.01, 5) for n in NAMES})


def hits(lists: dict[str, list[str]]) -> dict[str, list[Hit]]:
    return {
        name: [Hit(item_id=i, score=1 / rank) for rank, i in enumerate(found, 1)]
        for name, found in lists.items()
    }


def order(candidates: list[Candidate]) -> list[str]:
    return [c.item_id for c in candidates]


def test_the_score_is_the_weighted_sum_of_reciprocal_ranks():
    found = fuse(
        hits({"lexical": ["a", "b"], "semantic": ["b", "c"]}),
        {"lexical": 0.6, "semantic": 0.3},
        k=20,
    )

    assert order(found) == ["b", "a", "c"]
    assert [c.fused_score for c in found] == pytest.approx(
        [0.6 / 22 + 0.3 / 21, 0.6 / 21, 0.3 / 22]
    )
    assert [(p.generator, p.rank) for p in found[0].provenance] == [("semantic", 1), ("lexical", 2)]


def test_equal_scores_go_to_the_better_rank_and_then_to_the_smaller_id():
    weights = {"lexical": 21.0, "semantic": 22.0}
    by_rank = fuse(hits({"lexical": ["z"], "semantic": ["y", "a"]}), weights, k=20)
    by_id = fuse(hits({"lexical": ["z"], "memory": ["a"]}), {"lexical": 1, "memory": 1}, k=20)

    assert order(by_rank) == ["y", "z", "a"]
    assert order(by_id) == ["a", "z"]


@given(LISTS, WEIGHTS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_generators_does_not_matter(lists, weights, rng):
    names = list(lists)
    rng.shuffle(names)

    assert fuse(hits(lists), weights, k=20) == fuse(
        hits({n: lists[n] for n in names}), weights, k=20
    )


@given(LISTS, WEIGHTS)
@settings(max_examples=50)
def test_the_union_keeps_every_piece_of_evidence_and_adds_none(lists, weights):
    given_ = hits(lists)
    before = {n: [h.SerializeToString() for h in found] for n, found in given_.items()}
    found = fuse(given_, weights, k=20)

    assert {n: [h.SerializeToString() for h in f] for n, f in given_.items()} == before
    evidence = {(p.generator, c.item_id, p.rank, p.score) for c in found for p in c.provenance}
    assert evidence == {
        (n, h.item_id, rank, h.score) for n, f in given_.items() for rank, h in enumerate(f, 1)
    }
    assert len(set(order(found))) == len(found)
    for candidate in found:
        ranks = [(p.rank, p.generator) for p in candidate.provenance]
        assert ranks == sorted(ranks)


@given(LISTS, WEIGHTS)
@settings(max_examples=50)
def test_the_order_is_total_and_by_score(lists, weights):
    found = fuse(hits(lists), weights, k=20)

    keys = [(-c.fused_score, c.provenance[0].rank, c.item_id) for c in found]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@given(LISTS, WEIGHTS, st.sampled_from(NAMES), st.floats(1, 4))
@settings(max_examples=50)
def test_a_heavier_generator_never_lowers_what_it_found_against_what_it_did_not(
    lists, weights, heavier, factor
):
    before = order(fuse(hits(lists), weights, k=20))
    after = order(fuse(hits(lists), {**weights, heavier: weights[heavier] * factor}, k=20))

    mine = set(lists.get(heavier, ()))
    for own in mine:
        for other in set(before) - mine:
            if before.index(own) < before.index(other):
                assert after.index(own) < after.index(other)


@given(st.lists(st.sampled_from(ITEMS), unique=True), st.floats(0.01, 5))
@settings(max_examples=50)
def test_one_list_alone_keeps_its_order(found, weight):
    assert order(fuse(hits({"lexical": found}), {"lexical": weight}, k=20)) == found


def test_no_lists_give_no_candidates():
    assert fuse({}, {}, k=20) == []
    assert fuse({"lexical": []}, {"lexical": 1.0}, k=20) == []


def test_reasons_are_kept():
    reason = candidate_pb2.Reason(kind="field", detail="title", weight=1.0)
    lists = {"lexical": [Hit(item_id="a", score=1.0, reasons=[reason])]}
    (found,) = fuse(lists, {"lexical": 1.0}, k=20)

    assert list(found.provenance[0].reasons) == [reason]


@given(LISTS, WEIGHTS)
@settings(max_examples=50)
def test_unique_finds_are_those_with_one_witness(lists, weights):
    counts = unique_finds(fuse(hits(lists), weights, k=20))

    for name in NAMES:
        others = {i for n, found in lists.items() if n != name for i in found}
        assert counts.get(name, 0) == len(set(lists.get(name, ())) - others)

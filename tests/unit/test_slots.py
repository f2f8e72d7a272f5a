"""Exploration slots: shown as often as the logged propensity says, and never more than allowed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandit import derive_rng
from orchestrator.fusion import Candidate, Evidence
from orchestrator.settings import ExplorationSlots
from orchestrator.slots import Placed, given_away, reserve

SEEDS = 2_000


def ranked(size: int, explored: dict[int, int], worth: dict[int, float] | None = None):
    """Return a list in which the items at some places were found by exploration, at some ranks."""
    scores = worth or {}
    return [
        Placed(
            Candidate(
                f"item:{place:02}",
                provenance=[
                    Evidence(place + 1, "lexical", 1.0),
                    *(
                        [Evidence(explored[place], "exploration", scores.get(place, 1.0))]
                        if place in explored
                        else []
                    ),
                ],
            ),
            score=float(-place),
        )
        for place in range(size)
    ]


def order(placed: list[Placed]) -> list[str]:
    return [p.candidate.item_id for p in placed]


def placed(size=30, explored=None, *, seed=0, allowed=9, page_size=10, **changes) -> list[Placed]:
    found = {20: 3, 25: 1, 28: 2, 29: 4} if explored is None else explored
    rng = derive_rng(1, str(seed), "slots")
    slots = ExplorationSlots(**changes)
    return reserve(ranked(size, found), slots, page_size=page_size, allowed=allowed, rng=rng)


def test_an_item_is_shown_by_a_slot_as_often_as_its_propensity_says():
    shown: Counter[str] = Counter()
    logged: set[float] = set()
    for seed in range(SEEDS):
        for entry in placed(seed=seed, positions=(5,), probability=0.3, pool=3):
            if entry.exploration_propensity:
                shown[entry.candidate.item_id] += 1
                logged.add(entry.exploration_propensity)

    assert list(logged) == [pytest.approx(0.1)]
    # The pool holds the three best by the exploration generator's own rank.
    assert set(shown) == {"item:25", "item:28", "item:20"}
    for count in shown.values():
        assert count / SEEDS == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / SEEDS))


def test_what_is_worth_more_looks_is_drawn_in_proportion():
    shown: Counter[str] = Counter()
    worth = {20: 3.0, 25: 1.0, 28: 0.0, 29: -5.0}
    slots = ExplorationSlots(positions=(5,), probability=1.0, pool=4)
    for seed in range(SEEDS):
        before = ranked(30, dict.fromkeys(worth, 1), worth)
        rng = derive_rng(1, str(seed), "slots")
        (moved,) = [
            p
            for p in reserve(before, slots, page_size=10, allowed=1, rng=rng)
            if p.exploration_propensity
        ]
        shown[moved.candidate.item_id] += 1
        expected = {"item:20": 0.75, "item:25": 0.25}
        assert moved.exploration_propensity == expected[moved.candidate.item_id]

    assert shown["item:20"] / SEEDS == pytest.approx(0.75, abs=4 * np.sqrt(0.1875 / SEEDS))


@pytest.mark.parametrize("score", [0.0, -1.0, np.inf, np.nan])
def test_scores_that_say_nothing_give_everybody_the_same_chance(score):
    worth = {20: score, 25: score}
    slots = ExplorationSlots(positions=(5,), probability=1.0, pool=5)
    before = ranked(30, {20: 1, 25: 2}, worth)
    found = reserve(before, slots, page_size=10, allowed=1, rng=derive_rng(1, "a", "slots"))

    (moved,) = [p for p in found if p.exploration_propensity]
    assert moved.exploration_propensity == 0.5


def test_it_is_known_beforehand_whether_a_slot_is_given_away():
    settings = ExplorationSlots(positions=(2, 5), probability=0.3)
    known = []
    for seed in range(400):
        rng = derive_rng(1, str(seed), "slots")
        found = reserve(ranked(30, {20: 1, 25: 2}), settings, page_size=10, allowed=9, rng=rng)
        known.append(given_away(settings, str(seed), 1))
        assert known[-1] == any(p.exploration_propensity for p in found)

    assert np.mean(known) == pytest.approx(1 - 0.7**2, abs=0.1)


def test_a_pool_smaller_than_its_limit_shares_the_probability():
    found = placed(explored={15: 1, 16: 2}, positions=(5,), probability=1.0, pool=5)

    (moved,) = [p for p in found if p.exploration_propensity]
    assert moved.exploration_propensity == 0.5
    assert order(found)[4] == moved.candidate.item_id


def test_the_others_keep_their_order():
    found = placed(positions=(5,), probability=1.0)

    moved = {p.candidate.item_id for p in found if p.exploration_propensity}
    before = order(ranked(30, {}))
    assert [i for i in order(found) if i not in moved] == [i for i in before if i not in moved]
    assert len(moved) == 1


@given(
    size=st.integers(0, 25),
    explored=st.dictionaries(st.integers(0, 24), st.integers(1, 100), max_size=8),
    seed=st.integers(0, 1_000),
    allowed=st.integers(0, 4),
    page_size=st.integers(1, 12),
    positions=st.sets(st.integers(1, 15), max_size=4),
    probability=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=150)
def test_nothing_is_lost_and_no_more_is_moved_than_allowed(
    size, explored, seed, allowed, page_size, positions, probability
):
    before = ranked(size, explored)
    found = placed(
        size,
        explored,
        seed=seed,
        allowed=allowed,
        page_size=page_size,
        positions=tuple(positions),
        probability=probability,
    )

    assert sorted(order(found)) == sorted(order(before))
    moved = [p for p in found if p.exploration_propensity]
    assert len(moved) <= min(allowed, len(positions), len(explored))
    for entry in moved:
        place = order(found).index(entry.candidate.item_id)
        assert place < page_size
        assert any(p.generator == "exploration" for p in entry.candidate.provenance)
        assert order(before).index(entry.candidate.item_id) >= page_size - len(moved)
        assert 0 < entry.exploration_propensity <= probability
    if not moved:
        assert order(found) == order(before)


def test_the_same_seed_gives_the_same_places():
    for seed in range(20):
        one = placed(seed=seed, positions=(2, 5), probability=0.5)
        other = placed(seed=seed, positions=(2, 5), probability=0.5)
        assert one == other


def test_what_is_allowed_does_not_change_what_is_drawn():
    free, bound = derive_rng(1, "a", "slots"), derive_rng(1, "a", "slots")
    slots = ExplorationSlots(positions=(2, 5), probability=1.0)
    reserve(ranked(30, {20: 1}), slots, page_size=10, allowed=9, rng=free)
    reserve(ranked(3, {}), slots, page_size=10, allowed=0, rng=bound)

    assert free.random() == bound.random()


@pytest.mark.parametrize("positions", [(0,), (3, 3), (-1, 2)])
def test_positions_start_at_one_and_do_not_repeat(positions):
    with pytest.raises(ValueError, match="positions"):
        ExplorationSlots(positions=positions)

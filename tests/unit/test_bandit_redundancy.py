"""Redundancy: how the plan values generators that find the same items."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandit import Engagement, Levels, observe
from orchestrator.bandit.knapsack import covered, solve

UTILITIES = st.lists(st.floats(0, 5), min_size=1, max_size=5).map(np.array)


@given(UTILITIES)
def test_independent_finds_miss_by_the_product_of_their_misses(utilities):
    assert covered(utilities) == pytest.approx(1 - np.prod(np.exp(-utilities)), abs=1e-12)


@given(UTILITIES, st.floats(1, 40))
def test_the_union_covers_at_least_the_best_and_at_most_what_independence_gives(
    utilities, redundancy
):
    union = covered(utilities, redundancy)

    assert union >= -np.expm1(-utilities.max()) - 1e-9
    assert union <= covered(utilities) + 1e-9


def test_two_equal_generators_by_hand():
    # u = 1 each: (1² + 1²)^(1/2) = √2.
    assert covered(np.array([1.0, 1.0]), 2.0) == pytest.approx(1 - np.exp(-np.sqrt(2)))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.5, 2.0, 4.0]), st.sampled_from([0.01, 0.05]))
def test_the_plan_is_the_best_of_all_plans_at_any_redundancy(seed, redundancy, price):
    rng = np.random.default_rng(seed)
    utility = np.cumsum(rng.exponential(0.5, (1, 3, 3)), axis=2)
    utility[:, :, 0] = 0
    cost = np.cumsum(rng.integers(1, 6, (3, 3)), axis=1)
    cost[:, 0] = 0
    rows = np.arange(3)

    def net(action):
        chosen = utility[0][rows, list(action)]
        return covered(chosen, redundancy) - price * cost[rows, list(action)].sum()

    plan = solve(utility, cost, np.ones((3, 3), bool), 20, price=price, redundancy=redundancy)[0]

    everything = itertools.product(range(3), repeat=3)
    affordable = [a for a in everything if cost[rows, list(a)].sum() <= 20]
    assert net(plan) == pytest.approx(max(map(net, affordable)), abs=1e-9)


def test_redundant_generators_are_not_both_asked():
    utility = np.array([[[0, 1.0], [0, 1.0]]])
    cost = np.array([[0, 3], [0, 3]])
    free = np.ones((2, 2), bool)

    apart = solve(utility, cost, free, 10, price=0.03, redundancy=1.0)[0]
    alike = solve(utility, cost, free, 10, price=0.03, redundancy=8.0)[0]

    assert apart.tolist() == [1, 1]
    assert alike.sum() == 1


def test_a_redundancy_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        covered(np.array([1.0]), 0.5)


def credited(precedence):
    found = [Engagement(0.8, {"a": 3, "b": 40}), Engagement(0.2, {"b": 1})]
    levels = Levels((0, 10, 50))
    executed = {"a": 10, "b": 50}
    phi = np.ones((2, 1))
    return observe(
        levels, ("a", "b"), phi, executed=executed, engagements=found, precedence=precedence
    ).credit.tolist()


def test_without_precedence_everyone_who_found_an_item_is_credited():
    assert credited(()) == [[0.8, 0.0], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("precedence", "expected"),
    [
        (("a", "b"), [[0.8, 0.0], [0.2, 0.0]]),
        (("b", "a"), [[0.0, 0.0], [0.2, 0.8]]),
    ],
)
def test_with_precedence_each_item_is_credited_once_to_the_first(precedence, expected):
    assert credited(precedence) == expected


def test_a_first_that_was_not_asked_deep_enough_leaves_the_credit_to_the_next():
    levels = Levels((0, 10, 50))
    found = [Engagement(1.0, {"a": 30, "b": 2})]

    seen = observe(
        levels,
        ("a", "b"),
        np.ones((2, 1)),
        executed={"a": 10, "b": 10},
        engagements=found,
        precedence=("a", "b"),
    )

    assert seen.credit.tolist() == [[0.0, 0.0], [1.0, 0.0]]

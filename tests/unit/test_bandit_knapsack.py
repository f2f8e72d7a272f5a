"""The knapsack is exact: it never loses to trying every plan."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandit.knapsack import MAX_CELLS, solve


@st.composite
def problems(draw):
    generators, levels = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    utility = rng.exponential(1.0, size=(3, generators, levels))
    utility[:, :, 0] = 0
    if draw(st.booleans()):
        utility = np.round(utility)  # many ties
    cost = rng.integers(0, 8, size=(generators, levels)) * draw(st.sampled_from([1, 5]))
    cost[:, 0] = 0
    feasible = rng.random((generators, levels)) < 0.7
    feasible[:, 0] = True
    budget = draw(st.integers(0, 60))
    price = draw(st.sampled_from([0.0, 0.01, 0.2]))
    return utility, cost, feasible, budget, price


def value(utility, cost, action, price):
    rows = np.arange(len(action))
    gained = 1 - math.exp(-float(utility[rows, action].sum()))
    return gained - price * int(cost[rows, action].sum())


def best_by_trying_all(utility, cost, feasible, budget, price):
    plans = itertools.product(*[np.flatnonzero(row) for row in feasible])
    affordable = [
        np.array(p) for p in plans if cost[np.arange(len(p)), np.array(p)].sum() <= budget
    ]
    return max(value(utility, cost, plan, price) for plan in affordable)


@settings(max_examples=150)
@given(problems())
def test_the_plan_is_as_good_as_the_best_of_all_plans(problem):
    utility, cost, feasible, budget, price = problem

    actions = solve(utility, cost, feasible, budget, price=price)

    rows = np.arange(cost.shape[0])
    for drawn, action in zip(utility, actions, strict=True):
        assert feasible[rows, action].all()
        assert cost[rows, action].sum() <= budget
        best = best_by_trying_all(drawn, cost, feasible, budget, price)
        assert value(drawn, cost, action, price) == pytest.approx(best, abs=1e-12)


@settings(max_examples=30)
@given(problems())
def test_solving_many_draws_at_once_equals_solving_each_alone(problem):
    utility, cost, feasible, budget, price = problem

    together = solve(utility, cost, feasible, budget, price=price)
    alone = [solve(u[None], cost, feasible, budget, price=price)[0] for u in utility]

    assert np.array_equal(together, alone)


def test_levels_that_gain_nothing_are_not_bought():
    utility = np.array([[[0.0, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    cost = np.array([[0, 10, 25, 50], [0, 10, 25, 50]])

    actions = solve(utility, cost, np.ones((2, 4), bool), 1_000)

    assert actions.tolist() == [[1, 0]]


def test_a_price_stops_spending_where_coverage_saturates():
    utility = -np.log1p(-np.array([[[0.0, 0.9, 0.99], [0.0, 0.9, 0.99]]]))
    cost = np.array([[0, 10, 50], [0, 10, 50]])
    feasible = np.ones((2, 3), bool)

    free = solve(utility, cost, feasible, 100)
    priced = solve(utility, cost, feasible, 100, price=0.005)
    dear = solve(utility, cost, feasible, 100, price=0.05)

    # Two tens cover .99 for 20; one ten covers .9 for 10; the second is worth .09 < 10 * .05.
    assert free.tolist() == [[2, 2]]
    assert priced.tolist() == [[1, 1]]
    assert dear.sum() == 1


def test_among_equals_the_cheapest_wins_and_then_the_earlier_generator():
    utility = np.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    feasible = np.ones((3, 2), bool)

    by_order = solve(utility, np.array([[0, 5], [0, 5], [0, 5]]), feasible, 5)
    by_cost = solve(utility, np.array([[0, 5], [0, 5], [0, 4]]), feasible, 5)

    assert by_order.tolist() == [[1, 0, 0]]
    assert by_cost.tolist() == [[0, 0, 1]]


def test_no_budget_or_nothing_feasible_calls_nobody():
    utility = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    cost = np.array([[0, 5], [0, 5]])
    only_zero = np.array([[True, False], [True, False]])

    assert solve(utility, cost, np.ones((2, 2), bool), 0).tolist() == [[0, 0]]
    assert solve(utility, cost, only_zero, 100).tolist() == [[0, 0]]


def test_costs_too_fine_for_a_table_are_refused():
    cost = np.array([[0, MAX_CELLS + 1], [0, MAX_CELLS + 2]])

    with pytest.raises(ValueError, match="coarser"):
        solve(np.zeros((1, 2, 2)), cost, np.ones((2, 2), bool), 10 * MAX_CELLS)


def test_a_generator_without_any_affordable_level_is_refused():
    with pytest.raises(ValueError, match="feasible level"):
        solve(np.zeros((1, 1, 2)), np.array([[0, 1]]), np.zeros((1, 2), bool), 5)

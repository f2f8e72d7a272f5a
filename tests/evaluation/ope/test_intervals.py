"""Intervals hold under dependence, look only back, and narrow as rows come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ope.intervals import (
    betting,
    forecast_weights,
    lower_bound,
    stabilised,
    studentised,
)
from forage.errors import InvalidArgumentError

VALUES = st.lists(st.floats(0, 1), min_size=3, max_size=60).map(np.array)
QUICK = settings(max_examples=40)


@QUICK
@given(VALUES)
def test_without_weights_a_betting_interval_holds_the_mean(values):
    interval = betting(np.ones(len(values)), values)

    assert 0 <= interval.low <= values.mean() <= interval.high <= 1


@QUICK
@given(VALUES)
def test_betting_treats_success_and_failure_alike(values):
    ones = np.ones(len(values))

    interval, mirrored = betting(ones, values), betting(ones, 1 - values)

    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@QUICK
@given(VALUES, st.floats(0.001, 0.1), st.floats(0.2, 0.5))
def test_a_surer_bound_is_lower(values, sure, unsure):
    assert lower_bound(values, sure) <= lower_bound(values, unsure) + 1e-9


def test_a_betting_interval_narrows_as_rows_come():
    rng = np.random.default_rng(1)
    few, many = rng.random(100) < 0.3, rng.random(10_000) < 0.3

    widths = [betting(np.ones(len(v)), v.astype(float)).width for v in (few, many)]

    assert widths[1] < widths[0] / 5
    assert widths[1] < 0.03


def test_a_betting_interval_covers_when_the_logger_follows_its_luck():
    # The logger turns away from an action after misses: the mean of the log itself is biased.
    covered, runs = 0, 200
    for run in range(runs):
        rng = np.random.default_rng([11, run])
        weight, reward = np.empty(200), np.empty(200)
        chance = 0.5
        for row in range(200):
            taken = rng.random() < chance
            reward[row] = float(rng.random() < (0.6 if taken else 0.2))
            weight[row] = 1 / chance if taken else 0.0
            chance = float(np.clip(chance + (0.1 if reward[row] == taken else -0.1), 0.1, 0.9))
        covered += betting(weight, reward).covers(0.6)

    assert covered >= 0.93 * runs


def test_clipped_weights_keep_the_interval_right():
    covered, runs = 0, 100
    for run in range(runs):
        rng = np.random.default_rng([12, run])
        taken = rng.random(300) < 0.05
        reward = (rng.random(300) < 0.5).astype(float)
        weight = np.minimum(np.where(taken, 1 / 0.05, 0.0), 5.0)
        covered += betting(weight, reward).covers(0.5)

    assert covered >= 0.93 * runs


@QUICK
@given(VALUES, st.integers(1, 2), st.floats(0, 5))
def test_stabilising_weights_look_back_only(values, row, other):
    changed = values.copy()
    changed[row:] = other

    before, after = forecast_weights(values), forecast_weights(changed)

    assert before[: row + 1].tolist() == after[: row + 1].tolist()


def test_stabilising_gives_noisy_rows_less_say():
    rng = np.random.default_rng(5)
    quiet, noisy = rng.normal(0.5, 0.1, 3_000), rng.normal(0.5, 5.0, 3_000)
    terms = np.concatenate([quiet, noisy])

    value, interval = stabilised(terms)

    assert abs(value - 0.5) < abs(terms.mean() - 0.5)
    assert interval.width < studentised(terms).width / 2


def test_a_single_row_has_no_normal_interval():
    assert studentised(np.array([0.5])).width == np.inf


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, float("nan")])
def test_a_confidence_is_between_zero_and_one(confidence):
    with pytest.raises(InvalidArgumentError, match="confidence"):
        betting(np.ones(3), np.ones(3), confidence)

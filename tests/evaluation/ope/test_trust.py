"""What must not be trusted is refused, with the reason."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation.ope import Sample, WeightDiagnostics, assess
from forage.errors import InvalidArgumentError


def log(rows: int = 1_000, **changes) -> Sample:
    rng = np.random.default_rng(2)
    columns = {
        "reward": (rng.random(rows) < 0.4).astype(float),
        "logged": np.full(rows, 0.5),
        "target": np.where(rng.random(rows) < 0.5, 0.9, 0.1),
        "features": np.ones((rows, 1)),
        "expected_features": np.ones((rows, 1)),
        **changes,
    }
    return Sample(**columns)


def test_a_good_log_is_answered():
    found = assess(log(), target="good")

    assert not found.headline.refusal
    assert found.headline.interval.covers(0.4)
    assert {e.estimator for e in found.estimates if e.refusal} == {
        "pseudo-inverse",
        "full-pull replay",
    }


def test_rewards_that_changed_while_the_log_was_written_refuse_a_single_value():
    reward = np.repeat([1.0, 0.0], [500, 4_500])

    found = assess(log(5_000, reward=reward), target="drifted")

    assert found.diagnostics.halves == (0.2, 0.0)
    assert "rewards changed" in found.headline.refusal
    assert {e.estimator for e in found.estimates if "rewards changed" in e.refusal} == {
        "IPS",
        "clipped IPS",
        "doubly robust",
    }


def test_one_enormous_weight_refuses_all_that_weigh():
    logged = np.full(1_000, 0.5)
    logged[17] = 1e-6

    found = assess(log(logged=logged), target="risky")

    assert found.diagnostics.weights.largest > 1e5
    assert all(e.value is None and e.interval is None for e in found.estimates)
    assert "one row has" in found.headline.refusal


def test_a_log_that_hardly_follows_the_target_is_refused():
    target = np.zeros(1_000)
    target[::20] = 1.0

    found = assess(log(target=target), target="rare")

    assert found.diagnostics.weights.effective == pytest.approx(50)
    assert "effective sample size is 50.0" in found.headline.refusal


def test_a_log_that_never_follows_the_target_is_refused():
    found = assess(log(target=np.zeros(1_000)), target="never")

    assert found.diagnostics.weights.effective == 0
    assert found.headline.refusal


def test_what_the_logger_could_not_do_is_refused():
    found = assess(log(unsupported=np.full(1_000, 0.3)), target="beyond")

    assert "30.0% of what the target would do was never possible" in found.headline.refusal


def test_weights_that_do_not_average_one_are_refused():
    found = assess(log(logged=np.full(1_000, 0.25)), target="wrong propensities")

    assert "instead of 1" in found.headline.refusal


def test_few_full_pulls_are_refused_and_enough_are_not():
    few = assess(log(covered=np.ones(10)), target="few").estimates[-1]
    enough = assess(log(covered=np.ones(100)), target="enough").estimates[-1]

    assert "10 full pulls" in few.refusal
    assert enough.value == 1.0


def test_a_single_row_is_refused_and_still_valid_json():
    found = assess(log(1), target="tiny")

    assert found.headline.refusal
    json.dumps(found.to_json(), allow_nan=False)


def test_effective_size_by_hand_and_without_overflow():
    assert WeightDiagnostics.of(np.array([1.0, 1.0, 2.0])).effective == pytest.approx(16 / 6)
    assert WeightDiagnostics.of(np.array([1e300, 1e300])).effective == pytest.approx(2)


@pytest.mark.parametrize(
    ("field", "values", "named"),
    [
        ("reward", [0.5, float("nan")], "reward"),
        ("reward", [0.5, 1.5], "reward"),
        ("logged", [0.5, 0.0], "propensity"),
        ("logged", [0.5, 1.5], "propensity"),
        ("logged", [0.5, float("inf")], "logged"),
        ("target", [0.5, -0.1], "target"),
        ("target", [0.5], "target"),
        ("unsupported", [0.5], "unsupported"),
    ],
)
def test_bad_columns_are_named(field, values, named):
    with pytest.raises(InvalidArgumentError, match=named):
        log(2, **{field: np.array(values)})


def test_an_empty_sample_is_refused():
    with pytest.raises(InvalidArgumentError, match="no usable row"):
        log(0)

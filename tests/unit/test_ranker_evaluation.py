"""A ranking model is compared with another on the same searches, with an interval."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.evaluation import Measured, compare


def measured(ndcg: np.ndarray, weight: np.ndarray | None = None) -> Measured:
    return Measured(ndcg, ndcg, np.ones(len(ndcg)) if weight is None else weight)


def test_the_interval_of_a_gain_is_that_of_its_mean() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random(400), rng.random(400) + 0.1

    found = compare(measured(after), measured(before), samples=4_000, rng=np.random.default_rng(0))

    gain = after - before
    error = 1.96 * gain.std() / np.sqrt(400)
    assert found.gain == pytest.approx(gain.mean())
    assert found.low == pytest.approx(gain.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(gain.mean() + error, abs=0.1 * error)


def test_searches_count_by_their_weight() -> None:
    weight = np.array([3.0, 1.0])

    found = compare(
        measured(np.array([3.0, 0.0]), weight),
        measured(np.array([0.0, 1.0]), weight),
        samples=100,
        rng=np.random.default_rng(0),
    )

    assert found.gain == pytest.approx(0.5)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_without_any_weight_there_is_no_gain() -> None:
    nothing = measured(np.zeros(3), np.zeros(3))

    found = compare(nothing, nothing, samples=10, rng=np.random.default_rng(0))

    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)

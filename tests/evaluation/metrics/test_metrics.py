import math

import numpy as np
import pytest

from evaluation.bootstrap import difference_interval, mean_interval
from evaluation.metrics import measure_lists, measure_scores
from forage.errors import InvalidArgumentError

JUDGMENTS = {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"x": 1}}


def test_ndcg_has_linear_gains_and_a_logarithmic_discount() -> None:
    found = measure_lists(JUDGMENTS, {"q1": ["b", "z", "a"]})

    ideal = 3 + 1 / math.log2(3)
    assert found.mean("ndcg@10") == pytest.approx((1 + 3 / math.log2(4)) / ideal)
    assert found.mean("mrr") == 1.0
    assert found.mean("recall@10") == 1.0


def test_a_query_for_which_nothing_was_found_counts_as_zero() -> None:
    found = measure_lists(JUDGMENTS, {"q1": [], "q2": ["x"]})

    assert found.mean("ndcg@10") == 0.5
    assert found.of(["q2"]).mean("mrr") == 1.0


def test_the_eleventh_place_is_beyond_ten() -> None:
    items = [f"n{n}" for n in range(10)]

    found = measure_lists(JUDGMENTS, {"q2": [*items, "x"]})

    assert found.mean("ndcg@10") == 0.0
    assert found.mean("recall@10") == 0.0
    assert found.mean("recall@100") == 1.0


@pytest.mark.parametrize(
    ("run", "field"),
    [
        ({}, "run"),
        ({"q1": {"a": math.nan}}, "run['q1']['a']"),
        ({"q1": {"a": math.inf}}, "run['q1']['a']"),
        ({"q9": {"a": 1.0}}, "run['q9']"),
    ],
)
def test_a_run_that_cannot_be_measured_is_refused_naming_the_field(run, field) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        measure_scores(JUDGMENTS, run)

    assert caught.value.field == field


def test_a_query_without_a_relevant_item_and_an_item_twice_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no relevant item"):
        measure_lists({"q": {"a": 0}}, {"q": ["a"]})
    with pytest.raises(InvalidArgumentError, match="occurs twice"):
        measure_lists(JUDGMENTS, {"q1": ["a", "a"]})


def test_an_item_that_the_collection_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown item id"):
        measure_lists(JUDGMENTS, {"q1": ["a", "stranger"]}, known={"a", "b", "c"})


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        interval = mean_interval(rng.beta(2, 3, 60), rng, samples=300)
        covered += interval.low <= 0.4 <= interval.high

    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.linspace(0, 1, 30)

    first = mean_interval(values, np.random.default_rng(1))

    assert first == mean_interval(values, np.random.default_rng(1))
    assert first.low < first.mean < first.high


def test_differences_are_paired() -> None:
    values = np.random.default_rng(0).random(50)

    interval = difference_interval(values + 0.1, values, np.random.default_rng(1))

    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)


def test_values_that_cannot_be_averaged_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidArgumentError, match="not finite"):
        mean_interval([0.5, math.nan], rng)
    with pytest.raises(InvalidArgumentError, match="one value per query"):
        mean_interval([], rng)
    with pytest.raises(InvalidArgumentError, match="one for the same query"):
        difference_interval([1.0], [1.0, 2.0], rng)

"""What a decision teaches: buckets seen, credit earned, and what other plans would have covered."""

import numpy as np
import pytest

from orchestrator.bandit.levels import Levels
from orchestrator.bandit.observation import Engagement, Observation, covered_reward, observe

LEVELS = Levels((0, 10, 25, 50, 100))
TWO = ("lexical", "graph")


@pytest.mark.parametrize(
    ("rank", "bucket"),
    [(1, 0), (10, 0), (11, 1), (25, 1), (26, 2), (50, 2), (100, 3), (101, None)],
)
def test_a_rank_falls_into_the_bucket_whose_upper_end_reaches_it(rank, bucket):
    assert LEVELS.bucket(rank) == bucket


@pytest.mark.parametrize("fan_outs", [(), (0,), (10, 20), (0, 10, 10), (0, 20, 10)])
def test_fan_outs_that_do_not_start_at_zero_and_grow_are_refused(fan_outs):
    with pytest.raises(ValueError, match="start at 0"):
        Levels(fan_outs)


def test_labels_say_where_the_engaged_item_was_and_only_within_what_was_executed():
    engaged = [Engagement(0.5, {"lexical": 12, "graph": 60})]

    seen = observe(
        LEVELS,
        TWO,
        np.ones((2, 1)),
        executed={"lexical": 50, "graph": 50},
        engagements=engaged,
    )

    assert seen.credit.tolist() == [[0, 0.5, 0, 0], [0, 0, 0, 0]]
    assert seen.seen.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]


def test_rewards_that_sum_to_more_than_one_are_scaled_to_one():
    engaged = [Engagement(1.0, {"lexical": 1}), Engagement(1.0, {"lexical": 30})]

    seen = observe(LEVELS, TWO, np.ones((2, 1)), executed={"lexical": 50}, engagements=engaged)

    assert seen.credit[0].tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize("level", [-1, 5])
def test_an_executed_level_that_there_is_not_is_refused(level):
    with pytest.raises(ValueError, match="executed levels"):
        Observation(("lexical",), np.ones((1, 1)), np.array([level]), np.zeros((1, 4)))


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_reward_outside_zero_to_one_is_refused(reward):
    with pytest.raises(ValueError, match="reward"):
        Engagement(reward, {})


def test_a_full_pull_tells_what_every_smaller_plan_would_have_covered():
    engaged = [Engagement(0.6, {"lexical": 12, "graph": 60}), Engagement(0.3, {"graph": 5})]

    assert covered_reward(engaged, {"lexical": 25}) == pytest.approx(0.6)
    assert covered_reward(engaged, {"graph": 10}) == pytest.approx(0.3)
    assert covered_reward(engaged, {"lexical": 10}) == 0
    assert covered_reward(engaged, {"lexical": 100, "graph": 100}) == pytest.approx(0.9)

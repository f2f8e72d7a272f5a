"""The laws of the estimators, by enumeration and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ope import reward_model
from evaluation.ope.estimators import (
    clipped_inverse_propensity,
    direct_method,
    doubly_robust_terms,
    full_pull_replay,
    inverse_propensity,
    pseudo_inverse,
    self_normalised,
)
from evaluation.ope.sample import Sample
from evaluation.ope.slates import marginal_weight, pseudo_inverse_weight
from forage.errors import InvalidArgumentError
from orchestrator.bandit import Distribution

ACTIONS = 3
SHARES = st.lists(st.floats(0.05, 1.0), min_size=ACTIONS, max_size=ACTIONS).map(
    lambda values: np.array(values) / sum(values)
)
REWARDS = st.lists(st.floats(0, 1), min_size=ACTIONS, max_size=ACTIONS).map(np.array)
NUMBERS = st.lists(st.floats(-2, 2), min_size=ACTIONS, max_size=ACTIONS).map(np.array)
QUICK = settings(max_examples=40)


def sample(reward, logged, target, **more) -> Sample:
    count = len(reward)
    ones = np.ones((count, 1))
    return Sample(
        np.asarray(reward, float),
        np.asarray(logged, float),
        np.asarray(target, float),
        more.pop("features", ones),
        more.pop("expected_features", ones),
        **{name: np.asarray(values, float) for name, values in more.items()},
    )


@st.composite
def samples(draw) -> Sample:
    count = draw(st.integers(2, 30))
    column = lambda low: st.lists(st.floats(low, 1), min_size=count, max_size=count)  # noqa: E731
    return sample(draw(column(0)), draw(column(0.05)), draw(column(0.05)))


@QUICK
@given(SHARES, SHARES, REWARDS)
def test_inverse_propensity_is_unbiased(logger, target, reward):
    values = [
        inverse_propensity(sample([reward[a]], [logger[a]], [target[a]])).value
        for a in range(ACTIONS)
    ]

    assert logger @ values == pytest.approx(target @ reward)


@QUICK
@given(SHARES, SHARES, REWARDS, NUMBERS)
def test_doubly_robust_is_unbiased_whatever_the_model_says(logger, target, reward, predicted):
    terms = [
        doubly_robust_terms(
            sample([reward[a]], [logger[a]], [target[a]]),
            predicted[a : a + 1],
            np.array([target @ predicted]),
        )[0]
        for a in range(ACTIONS)
    ]

    assert logger @ terms == pytest.approx(target @ reward)


@QUICK
@given(SHARES, SHARES, REWARDS, st.floats(0.5, 2.0))
def test_doubly_robust_is_right_with_wrong_propensities_if_the_model_is(
    logger, target, reward, factor
):
    wrong = np.minimum(1.0, logger * factor)

    terms = [
        doubly_robust_terms(
            sample([reward[a]], [wrong[a]], [target[a]]),
            reward[a : a + 1],
            np.array([target @ reward]),
        )[0]
        for a in range(ACTIONS)
    ]

    assert terms == pytest.approx([target @ reward] * ACTIONS)


@QUICK
@given(samples())
def test_doubly_robust_with_a_zero_model_is_inverse_propensity(given_sample):
    zero = np.zeros(len(given_sample.reward))

    terms = doubly_robust_terms(given_sample, zero, zero)

    assert terms.mean() == pytest.approx(inverse_propensity(given_sample).value)


@QUICK
@given(samples(), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_self_normalised_follows_any_scale_and_shift_of_rewards(given_sample, scale, shift):
    shift *= 1 - scale
    moved = sample(scale * given_sample.reward + shift, given_sample.logged, given_sample.target)

    value = self_normalised(moved).value

    assert value == pytest.approx(scale * self_normalised(given_sample).value + shift)


@QUICK
@given(samples(), st.floats(0.1, 1.0))
def test_self_normalised_needs_propensities_up_to_a_factor_only(given_sample, factor):
    scaled = sample(given_sample.reward, factor * given_sample.logged, given_sample.target)

    assert self_normalised(scaled).value == pytest.approx(self_normalised(given_sample).value)


@QUICK
@given(samples())
def test_self_normalised_stays_within_the_rewards(given_sample):
    value = self_normalised(given_sample).value

    assert given_sample.reward.min() - 1e-9 <= value <= given_sample.reward.max() + 1e-9


@QUICK
@given(samples(), st.floats(0.1, 30))
def test_clipping_only_lowers_and_a_large_clip_changes_nothing(given_sample, clip):
    plain = inverse_propensity(given_sample).value

    assert clipped_inverse_propensity(given_sample, clip=clip).value <= plain + 1e-12
    assert clipped_inverse_propensity(given_sample, clip=1e6).value == pytest.approx(plain)


def test_values_by_hand():
    log = sample([1.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.25, 0.1], [1.0, 0.0, 0.5, 1.0])

    assert log.weight == pytest.approx([2, 0, 2, 10])
    assert inverse_propensity(log).value == pytest.approx((2 + 0 + 1 + 10) / 4)
    assert clipped_inverse_propensity(log, clip=4.0).value == pytest.approx((2 + 0 + 1 + 4) / 4)
    assert self_normalised(log).value == pytest.approx(13 / 14)


def test_a_target_that_the_log_never_followed_has_no_self_normalised_value():
    estimate = self_normalised(sample([1.0, 0.0], [0.5, 0.5], [0.0, 0.0]))

    assert estimate.value is None
    assert "no row" in estimate.refusal


def test_a_clip_must_be_above_zero():
    with pytest.raises(InvalidArgumentError, match="clip"):
        clipped_inverse_propensity(sample([1.0], [1.0], [1.0]), clip=0.0)


def test_the_direct_method_is_right_where_rewards_are_linear():
    rng = np.random.default_rng(3)
    features = np.column_stack([np.ones(5_000), rng.random((5_000, 2))])
    expected = np.column_stack([np.ones(5_000), rng.random((5_000, 2))])
    weights = np.array([0.1, 0.5, 0.3])
    log = sample(
        features @ weights,
        np.ones(5_000),
        np.ones(5_000),
        features=features,
        expected_features=expected,
    )

    assert direct_method(log).value == pytest.approx((expected @ weights).mean(), rel=0.005)


def test_a_fold_is_predicted_from_earlier_rows_alone():
    rng = np.random.default_rng(3)
    features = np.column_stack([np.ones(400), rng.random((400, 2))])
    reward = rng.random(400)
    changed = np.concatenate([reward[:300], 1 - reward[300:]])

    before = reward_model.forward_folds(features, reward, features)
    after = reward_model.forward_folds(features, changed, features)

    assert before[0][:320] == pytest.approx(after[0][:320])
    assert before[0][330:] != pytest.approx(after[0][330:])


@QUICK
@given(SHARES, SHARES)
def test_with_one_generator_the_pseudo_inverse_weight_is_the_importance_weight(logger, target):
    logged = Distribution.exact([((a,), float(logger[a])) for a in range(ACTIONS)])
    wanted = Distribution.exact([((a,), float(target[a])) for a in range(ACTIONS)])

    for a in range(ACTIONS):
        importance = target[a] / logger[a]
        assert pseudo_inverse_weight(logged, wanted, (a,), ACTIONS) == pytest.approx(importance)
        assert marginal_weight(logger[None], target[None], (a,)) == pytest.approx(importance)


@QUICK
@given(SHARES, SHARES, SHARES, SHARES)
def test_with_independent_generators_marginals_are_enough(first, second, wanted, other):
    logged, target = independent(first, second), independent(wanted, other)

    for action in logged.frequencies:
        by_marginals = marginal_weight(np.array([first, second]), np.array([wanted, other]), action)
        assert pseudo_inverse_weight(logged, target, action, ACTIONS) == pytest.approx(by_marginals)


@QUICK
@given(st.lists(st.floats(0.05, 1), min_size=9, max_size=9), SHARES, SHARES, REWARDS, REWARDS)
def test_pseudo_inverse_is_unbiased_for_rewards_that_add_up(joint, wanted, other, first, second):
    # The logger couples its generators, as a budget does; marginals alone would be wrong.
    plans = list(product(range(ACTIONS), repeat=2))
    logged = Distribution.exact(
        [(a, float(share)) for a, share in zip(plans, np.array(joint) / sum(joint), strict=True)]
    )
    target = independent(wanted, other)

    mean = sum(
        share
        * pseudo_inverse_weight(logged, target, action, ACTIONS)
        * (first[action[0]] + second[action[1]])
        for action, share in logged.frequencies.items()
    )

    assert mean == pytest.approx(wanted @ first + other @ second)


def independent(first, second) -> Distribution:
    def pairs() -> Iterator[tuple[tuple[int, int], float]]:
        for a, b in product(range(ACTIONS), repeat=2):
            yield (a, b), float(first[a] * second[b])

    return Distribution.exact(list(pairs()))


def test_sampled_marginals_count_the_logged_action_as_a_draw():
    logged, target = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])

    weight = marginal_weight(logged, target, (1,), draws=99, own_share=1.0)

    assert weight == pytest.approx(0.5 / 0.01)


def test_pseudo_inverse_is_the_mean_of_weighted_rewards():
    log = sample([1.0, 0.5], [1.0, 1.0], [1.0, 1.0], additive_weight=[2.0, -1.0])

    assert pseudo_inverse(log).value == pytest.approx(0.75)
    assert pseudo_inverse(sample([1.0], [1.0], [1.0])).refusal


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_replay_of_what_was_logged_is_its_mean_reward(rewards):
    ones = np.ones(len(rewards))

    estimate = full_pull_replay(sample(rewards, ones, ones, covered=rewards))

    assert estimate.value == pytest.approx(np.mean(rewards))
    assert estimate.interval.covers(estimate.value)

"""What the bandit believes: priors, Laplace updates, censoring, forgetting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from orchestrator.bandit import hazard, linear
from orchestrator.bandit.levels import Levels
from orchestrator.bandit.observation import Engagement, Observation, observe
from orchestrator.bandit.policy import PlanContext
from orchestrator.bandit.posterior import REFRESH_EVERY, GaussianPosterior, GaussianPrior

LEVELS = Levels((0, 10, 25, 50, 100))
TWO = ("lexical", "graph")


def context(phi, generators=TWO):
    phi = np.array(phi, dtype=np.float64)
    shape = (len(generators), LEVELS.count)
    return PlanContext(
        generators=generators,
        features=("bias", *[f"f{i}" for i in range(1, phi.shape[1])]),
        phi=phi,
        levels=LEVELS,
        feasible=np.ones(shape, bool),
        cost=np.tile(np.array(LEVELS.fan_outs), (len(generators), 1)),
        budget=200,
    )


def posterior(features=3, generators=TWO, **prior):
    stated = {"hit_rates": {}, "default_hit_rate": 0.4, "buckets": 4} | prior
    return GaussianPosterior(generators, hazard.hazard_prior(features=features, **stated))


def random_observation(rng, features=3, level=4):
    phi = np.hstack([np.ones((2, 1)), rng.normal(size=(2, features - 1))])
    engaged = [Engagement(float(rng.random()), {"lexical": int(rng.integers(1, 101))})]
    executed = {"lexical": LEVELS.fan_outs[level], "graph": LEVELS.fan_outs[level]}
    return observe(LEVELS, TWO, phi, executed=executed, engagements=engaged)


def test_the_prior_mean_reproduces_the_stated_hit_rate():
    belief = posterior(hit_rates={"lexical": 0.7}, bias_precision=1e9)
    here = context([[1, 0, 0], [1, 0, 0]])

    p_hit = -np.expm1(-hazard.expected_utilities(belief, here))

    assert p_hit[0, -1] == pytest.approx(0.7, abs=1e-6)
    assert p_hit[1, -1] == pytest.approx(0.4, abs=1e-6)
    # Half of what is left of the geometric shares 8:4:2:1 lies in the first bucket.
    assert p_hit[0, 1] == pytest.approx(0.7 * 8 / 15, abs=1e-6)


@pytest.mark.parametrize("precision", [0.25, 1.0, 4.0])
def test_an_unseen_generator_explores_as_widely_as_its_prior(precision):
    belief = posterior(bias_precision=precision, generators=())
    here = context([[1, 0, 0], [1, 0, 0]])

    u = hazard.draw_utilities(belief, here, np.random.default_rng(7), 20_000)

    logits = np.log(np.expm1(np.diff(u[:, 0], axis=-1)))
    assert np.var(logits, axis=0) == pytest.approx(1 / precision, rel=0.05)


@pytest.mark.parametrize("ridge", [0.25, 1.0, 4.0])
def test_an_unseen_linear_arm_explores_as_widely_as_its_prior(ridge):
    prior = linear.linear_prior(
        hit_rates={}, default_hit_rate=0.3, buckets=4, features=2, ridge=ridge
    )
    belief = GaussianPosterior(TWO, prior)
    here = context([[1, 0], [1, 0]])

    draws = linear.draw_rewards(belief, here, np.random.default_rng(7), 20_000, scale=1.0)

    assert np.var(draws[:, 0, 0]) == pytest.approx(1.0 / ridge, rel=0.05)


def test_drawing_logits_has_the_distribution_of_drawing_weights():
    belief = posterior()
    rng = np.random.default_rng(3)
    for _ in range(20):
        hazard.learn(belief, random_observation(rng))
    phi = np.array([[1.0, 0.5, -1.0], [1.0, 2.0, 0.3]])

    u = hazard.draw_utilities(belief, context(phi), rng, 4_000)
    weights = rng.multivariate_normal(belief.mean[0, 1], belief.covariance[0, 1], size=4_000)

    logits = np.log(np.expm1(u[:, 0, 2] - u[:, 0, 1]))
    assert stats.ks_2samp(logits, weights @ phi[0]).pvalue > 0.01


def batch_laplace(phi, target, weight, prior_mean, prior_precision):
    """Find mode and precision of all labels at once, by a general optimiser."""

    def loss(theta):
        a = phi @ theta
        nll = (weight * (np.logaddexp(0, a) - target * a)).sum()
        return nll + 0.5 * (prior_precision * (theta - prior_mean) ** 2).sum()

    mode = optimize.minimize(loss, prior_mean, method="BFGS", options={"gtol": 1e-9}).x
    p = 1 / (1 + np.exp(-phi @ mode))
    precision = np.diag(prior_precision) + (phi.T * (weight * p * (1 - p))) @ phi
    return mode, precision


def test_one_label_moves_the_belief_to_the_exact_laplace_approximation():
    belief = posterior(generators=("lexical",))
    phi = np.array([[1.0, 0.7, -1.2]])
    prior_mean, prior_precision = belief.mean[0, 0].copy(), belief.prior.precision

    hazard.learn(
        belief,
        Observation(("lexical",), phi, np.array([1]), np.array([[0.8, 0, 0, 0]]), weight=0.5),
    )

    mode, precision = batch_laplace(
        phi, np.array([0.8]), np.array([0.5]), prior_mean, prior_precision
    )
    assert belief.mean[0, 0] == pytest.approx(mode, abs=1e-6)
    assert belief.precision[0, 0] == pytest.approx(precision, abs=1e-6)


def test_learning_one_by_one_stays_close_to_learning_all_at_once():
    rng = np.random.default_rng(11)
    belief = posterior(generators=("lexical",), weight_precision=1.0)
    phi = np.hstack([np.ones((60, 1)), rng.normal(size=(60, 2))])
    p = 1 / (1 + np.exp(-(phi @ np.array([-0.5, 1.0, -1.0]))))
    target = (rng.random(60) < p).astype(float)
    prior_mean = belief.mean[0, 0].copy()

    for row, label in zip(phi, target, strict=True):
        credit = np.array([[label, 0, 0, 0]])
        hazard.learn(belief, Observation(("lexical",), row[None], np.array([1]), credit))

    mode, precision = batch_laplace(phi, target, np.ones(60), prior_mean, belief.prior.precision)
    deviation = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert np.all(np.abs(belief.mean[0, 0] - mode) < 0.5 * deviation)
    assert np.diag(belief.covariance[0, 0]) == pytest.approx(deviation**2, rel=0.3)


def test_the_linear_model_is_exact_ridge_regression():
    rng = np.random.default_rng(5)
    prior = linear.linear_prior(
        hit_rates={}, default_hit_rate=0.3, buckets=4, features=3, ridge=2.0
    )
    belief = GaussianPosterior(TWO, prior)
    prior_mean = belief.mean[0, 3].copy()
    seen = [random_observation(rng) for _ in range(30)]

    for observation in seen:
        linear.learn(belief, observation)

    phi = np.array([o.phi[0] for o in seen])
    reward = np.array([o.credit[0].sum() for o in seen])
    precision = 2.0 * np.eye(3) + phi.T @ phi
    expected = np.linalg.solve(precision, 2.0 * prior_mean + phi.T @ reward)
    assert belief.mean[0, 3] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_covariance_stays_the_inverse_of_precision_and_symmetric(seed):
    rng = np.random.default_rng(seed)
    belief = posterior(features=6)

    for _ in range(40):
        hazard.learn(belief, random_observation(rng, features=6, level=int(rng.integers(1, 5))))

    assert belief.covariance == pytest.approx(np.linalg.inv(belief.precision), abs=1e-9)
    assert np.array_equal(belief.covariance, belief.covariance.swapaxes(-1, -2))
    assert np.array_equal(belief.precision, belief.precision.swapaxes(-1, -2))


def test_thousands_of_steps_do_not_drift():
    rng = np.random.default_rng(2)
    belief = posterior(features=4)

    for _ in range(REFRESH_EVERY // 2 + 10):
        hazard.learn(belief, random_observation(rng, features=4))

    assert belief.steps > REFRESH_EVERY
    assert belief.covariance == pytest.approx(np.linalg.inv(belief.precision), abs=1e-10)


@pytest.mark.parametrize("model", [hazard, linear])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_call_teaches_nothing_about_buckets_beyond_its_fan_out(level, model):
    belief = posterior()
    before = belief.frozen()

    model.learn(belief, random_observation(np.random.default_rng(1), level=level))

    assert np.array_equal(belief.mean[:, level:], before.mean[:, level:])
    assert np.array_equal(belief.precision[:, level:], before.precision[:, level:])
    assert (belief.mean[1, :level] != before.mean[1, :level]).any(axis=-1).all()


@pytest.mark.parametrize("executed", [{"lexical": 100}, {"lexical": 100, "graph": None}])
def test_a_generator_not_called_or_timed_out_learns_nothing(executed):
    belief = posterior()
    before = belief.frozen()
    engaged = [Engagement(1.0, {"lexical": 3})]

    hazard.learn(
        belief,
        observe(LEVELS, TWO, np.ones((2, 3)), executed=executed, engagements=engaged),
    )

    assert np.array_equal(belief.mean[1], before.mean[1])
    assert np.array_equal(belief.covariance[1], before.covariance[1])
    assert belief.labels[1].sum() == 0


def test_buckets_after_the_engaged_one_are_no_longer_at_risk():
    belief = posterior()
    before = belief.frozen()
    engaged = [Engagement(1.0, {"lexical": 12})]

    hazard.learn(
        belief,
        observe(LEVELS, TWO, np.ones((2, 3)), executed={"lexical": 100}, engagements=engaged),
    )

    up = (belief.mean[0] - before.mean[0])[:, 0]
    assert up[0] < 0 < up[1]
    assert up[2] == up[3] == 0


@settings(max_examples=100)
@given(
    mean=st.floats(-50, 50),
    variance=st.floats(0, 1e4),
    target=st.floats(0, 1),
    weight=st.floats(0, 10),
)
def test_the_laplace_step_solves_its_equation(mean, variance, target, weight):
    args = [np.array([value]) for value in (mean, variance, target, weight)]

    step = hazard.laplace_step(*args)

    expected = weight * (target - hazard.sigmoid(args[0] + step * variance))
    assert step == pytest.approx(expected, abs=1e-8)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_probability_of_a_hit_grows_with_the_level(seed):
    rng = np.random.default_rng(seed)
    belief = posterior()
    hazard.learn(belief, random_observation(rng))

    here = context(random_observation(rng).phi)
    p_hit = -np.expm1(-hazard.draw_utilities(belief, here, rng, 20))

    assert (p_hit[..., 0] == 0).all()
    assert (np.diff(p_hit, axis=-1) > 0).all()
    assert (p_hit <= 1).all()


def test_forgetting_pulls_to_the_prior_and_never_beyond():
    belief = posterior()
    prior = belief.frozen()
    rng = np.random.default_rng(9)
    for _ in range(50):
        hazard.learn(belief, random_observation(rng))
    learned = belief.frozen()

    belief.pull_to_prior(0.5)
    half = belief.frozen()
    belief.pull_to_prior(0.0)

    assert half.precision == pytest.approx(0.5 * (learned.precision + prior.precision))
    distance = [np.linalg.norm(x.mean - prior.mean) for x in (learned, half, belief)]
    assert distance[0] > distance[1] > distance[2] == pytest.approx(0, abs=1e-12)
    assert belief.precision == pytest.approx(prior.precision)
    variance = [np.diagonal(x.covariance, axis1=2, axis2=3) for x in (half, prior)]
    assert (variance[0] <= variance[1] + 1e-12).all()


def test_forgetting_in_two_steps_equals_forgetting_in_one():
    belief = posterior()
    rng = np.random.default_rng(4)
    for _ in range(20):
        hazard.learn(belief, random_observation(rng))
    once = belief.thawed()

    once.pull_to_prior(0.9**2)
    belief.pull_to_prior(0.9)
    belief.pull_to_prior(0.9)

    assert belief.mean == pytest.approx(once.mean)
    assert belief.covariance == pytest.approx(once.covariance)


def test_a_changed_generator_is_widened_and_the_others_are_left_alone():
    belief = posterior()
    rng = np.random.default_rng(4)
    for _ in range(20):
        hazard.learn(belief, random_observation(rng))
    before = belief.frozen()

    belief.pull_to_prior(0.2, "graph")
    belief.pull_to_prior(0.2, "never heard of")

    assert np.array_equal(belief.covariance[0], before.covariance[0])
    assert (belief.covariance[1, :, 0, 0] > before.covariance[1, :, 0, 0]).all()


def test_a_frozen_posterior_cannot_be_written():
    frozen = posterior().frozen()

    with pytest.raises(ValueError, match="read-only"):
        frozen.mean[0, 0, 0] = 1.0


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, float("nan")])
def test_a_prior_hit_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match="hit rate"):
        posterior(hit_rates={"lexical": rate})


def test_a_prior_without_certainty_is_refused():
    with pytest.raises(ValueError, match="precision"):
        GaussianPrior({}, np.zeros(4), np.array([1.0, 0.0]))

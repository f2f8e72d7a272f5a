"""The hazard model: in which rank bucket of a generator's list is the wanted item?

For generator g and bucket j, h_gj = P(item in bucket j | in no earlier bucket) = σ(θ_gjᵀ φ): a
discrete-time hazard with ranks as time (Cox, 1972). The item is within level k with probability
p_gk = 1 - Π_{j<k} (1 - h_gj), so u_gk = -log(1 - p_gk) is a plain sum of softplus(θ_gjᵀ φ).
Weights are learned by online Laplace approximation (Chapelle & Li, 2011).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.observation import Observation
from orchestrator.bandit.policy import PlanContext
from orchestrator.bandit.posterior import GaussianPosterior, GaussianPrior

_AT_RISK = 1e-9
"""Below this share of the reward still to be found, a bucket teaches nothing."""


def bucket_shares(buckets: int) -> FloatArray:
    """Return how a generator's finds are thought to spread over buckets: each half the last."""
    shares = 0.5 ** np.arange(1, buckets + 1)
    result: FloatArray = shares / shares.sum()
    return result


def hazard_prior(
    *,
    hit_rates: Mapping[str, float],
    default_hit_rate: float,
    buckets: int,
    features: int,
    bias_precision: float = 1.0,
    weight_precision: float = 4.0,
) -> GaussianPrior:
    """State prior beliefs as hit rates instead of weights.

    A hit rate is the probability, in (0, 1), that the wanted item is anywhere in the generator's
    list at the largest fan-out. With zero feature weights the prior mean reproduces it.
    """
    for rate in (default_hit_rate, *hit_rates.values()):
        if not 0 < rate < 1:
            raise ValueError(f"a prior hit rate is in (0, 1), got {rate}")
    precision = np.full(features, weight_precision)
    precision[0] = bias_precision
    return GaussianPrior(
        bias={name: _hazard_logits(rate, buckets) for name, rate in hit_rates.items()},
        default_bias=_hazard_logits(default_hit_rate, buckets),
        precision=precision,
    )


def _hazard_logits(hit_rate: float, buckets: int) -> FloatArray:
    found = hit_rate * bucket_shares(buckets)
    hazard = found / (1 - (np.cumsum(found) - found))
    result: FloatArray = np.log(hazard) - np.log1p(-hazard)
    return result


def learn(posterior: GaussianPosterior, observation: Observation) -> None:
    """Learn one decision's labels, in place; generators not seen before are registered.

    A reward of r in bucket j counts as found there with probability r: target r for bucket j, and
    weight 1 - r for the later buckets, where the rest would have to be found.
    """
    for name in observation.generators:
        posterior.register(name)
    credit = observation.credit
    at_risk = 1 - (np.cumsum(credit, axis=1) - credit)
    weight = observation.weight * observation.seen * np.where(at_risk > _AT_RISK, at_risk, 0.0)
    if not weight.any():
        return
    target = np.clip(credit / np.maximum(at_risk, _AT_RISK), 0.0, 1.0)
    mean, variance = posterior.moments(observation.generators, observation.phi)
    step = laplace_step(mean, variance, target, weight)
    probability = sigmoid(mean + step * variance)
    gain = weight * probability * (1 - probability)
    for g, name in enumerate(observation.generators):
        if observation.executed[g]:
            row = posterior.generators.index(name)
            posterior.learn(row, observation.phi[g], step=step[g], gain=gain[g])
            posterior.labels[row] += weight[g]


def laplace_step(
    mean: FloatArray, variance: FloatArray, target: FloatArray, weight: FloatArray
) -> FloatArray:
    """Solve `s = weight · (target - σ(mean + s · variance))`, elementwise.

    The posterior mode after one logistic label lies at `mean + s Σ φ`: one equation in one unknown,
    whatever the dimension. The root is unique and bracketed; Newton steps that would leave the
    bracket, or are not half as long as the one before, are replaced by bisection.
    """
    low, high = weight * (target - 1), weight * target
    step = np.clip(weight * (target - sigmoid(mean)), low, high)
    moved = high - low
    for _ in range(100):
        probability = sigmoid(mean + step * variance)
        error = step - weight * (target - probability)
        if np.abs(error).max(initial=0.0) < 1e-13:
            break
        low, high = np.where(error < 0, step, low), np.where(error > 0, step, high)
        newton = step - error / (1 + weight * variance * probability * (1 - probability))
        # Without the last condition Newton may leap from one end of the bracket to the other.
        good = (newton > low) & (newton < high) & (np.abs(newton - step) <= moved / 2)
        following = np.where(good, newton, (low + high) / 2)
        moved, step = np.abs(following - step), following
    return step


def draw_utilities(
    posterior: GaussianPosterior,
    context: PlanContext,
    rng: np.random.Generator,
    draws: int,
    *,
    exploration: float = 1.0,
) -> FloatArray:
    """Draw plausible utilities -log(1 - p_hit) from the posterior: [M, G, L].

    The logit of each hazard is Gaussian with mean μᵀφ and variance φᵀΣφ, so drawing it gives the
    same distribution as drawing all of θ. `exploration` scales the standard deviation.
    """
    mean, variance = posterior.moments(context.generators, context.phi)
    noise = rng.standard_normal((draws, *mean.shape))
    return _cumulative(mean + exploration * np.sqrt(variance) * noise)


def expected_utilities(posterior: GaussianPosterior, context: PlanContext) -> FloatArray:
    """Return utilities under the posterior mean of each hazard, [G, L].

    The mean of a sigmoid under a Gaussian is approximated as σ(m / √(1 + πv/8)) (MacKay, 1992).
    """
    mean, variance = posterior.moments(context.generators, context.phi)
    return _cumulative(mean / np.sqrt(1 + np.pi * variance / 8))


def _cumulative(logits: FloatArray) -> FloatArray:
    utilities = np.zeros((*logits.shape[:-1], logits.shape[-1] + 1))
    np.cumsum(np.logaddexp(0.0, logits), axis=-1, out=utilities[..., 1:])
    return utilities


def sigmoid(x: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    result: FloatArray = np.exp(-np.logaddexp(0.0, -x))
    return result


def prior_rates(hit_rate: float, buckets: int) -> FloatArray:
    """Return the prior probability that the item is within each level above 0."""
    return hit_rate * np.cumsum(bucket_shares(buckets))

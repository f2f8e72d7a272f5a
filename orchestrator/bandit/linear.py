"""The linear model: the reward found within each level is linear in the features.

Posterior N(A⁻¹b, v²A⁻¹) with A = λI + Σ φφᵀ and b = λ·prior + Σ r φ (Agrawal & Goyal, 2013), one
per generator and level. Feedback is semi-bandit (Wen, Kveton & Ashkan, 2015): a call at level k
tells the reward within every level up to k. Simpler than hazards, hence a good control.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.hazard import prior_rates
from orchestrator.bandit.observation import Observation
from orchestrator.bandit.policy import PlanContext
from orchestrator.bandit.posterior import GaussianPosterior, GaussianPrior

_LARGEST_P = 0.999
"""A drawn reward is cut to [0, this], for it is read as a probability of finding the item."""


def linear_prior(
    *,
    hit_rates: Mapping[str, float],
    default_hit_rate: float,
    buckets: int,
    features: int,
    ridge: float = 1.0,
) -> GaussianPrior:
    """State the prior as hit rates, as for the hazards; `ridge` is λ."""
    return GaussianPrior(
        bias={name: prior_rates(rate, buckets) for name, rate in hit_rates.items()},
        default_bias=prior_rates(default_hit_rate, buckets),
        precision=np.full(features, ridge),
    )


def learn(posterior: GaussianPosterior, observation: Observation) -> None:
    """Learn the reward within every executed level, in place; a Bayesian ridge regression."""
    for name in observation.generators:
        posterior.register(name)
    weight = observation.weight * observation.seen
    reward = np.cumsum(observation.credit, axis=1)
    mean, variance = posterior.moments(observation.generators, observation.phi)
    step = weight * (reward - mean) / (1 + weight * variance)
    for g, name in enumerate(observation.generators):
        if observation.executed[g]:
            row = posterior.generators.index(name)
            posterior.learn(row, observation.phi[g], step=step[g], gain=weight[g])
            posterior.labels[row] += weight[g]


def draw_rewards(
    posterior: GaussianPosterior,
    context: PlanContext,
    rng: np.random.Generator,
    draws: int,
    *,
    scale: float,
) -> FloatArray:
    """Draw plausible rewards of every level above 0, [M, G, J]; `scale` is v of the paper."""
    mean, variance = posterior.moments(context.generators, context.phi)
    noise = rng.standard_normal((draws, *mean.shape))
    result: FloatArray = mean + scale * np.sqrt(variance) * noise
    return result


def draw_utilities(
    posterior: GaussianPosterior,
    context: PlanContext,
    rng: np.random.Generator,
    draws: int,
    *,
    scale: float,
) -> FloatArray:
    """Draw plausible utilities -log(1 - reward), [M, G, L]."""
    rewards = draw_rewards(posterior, context, rng, draws, scale=scale)
    utilities = np.zeros((*rewards.shape[:2], rewards.shape[2] + 1))
    utilities[..., 1:] = -np.log1p(-np.clip(rewards, 0.0, _LARGEST_P))
    return utilities

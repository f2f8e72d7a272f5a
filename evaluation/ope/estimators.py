"""What a policy would have earned, from the log of another: seven answers to one question.

Each takes a `Sample` and returns an `Estimate`; whether it may be believed is for `trust` to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evaluation.ope import reward_model
from evaluation.ope.intervals import Interval, betting, check_confidence, stabilised, studentised
from evaluation.ope.sample import Sample
from forage.errors import InvalidArgumentError
from orchestrator.bandit.arrays import FloatArray

IPS = "IPS"
CLIPPED_IPS = "clipped IPS"
SNIPS = "SNIPS"
DIRECT = "direct method"
DOUBLY_ROBUST = "doubly robust"
PSEUDO_INVERSE = "pseudo-inverse"
REPLAY = "full-pull replay"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One estimator's answer; either a value or a reason why there is none."""

    estimator: str
    value: float | None
    interval: Interval | None = None
    """None for the direct method, whose bias no interval would know of."""
    refusal: str = ""
    """Why the value must not be trusted, and so is not given; empty if it may be."""

    def refused(self, reason: str) -> Estimate:
        """Return the estimate without its number."""
        return Estimate(self.estimator, None, None, reason)


def inverse_propensity(sample: Sample, confidence: float = 0.95) -> Estimate:
    """Return mean(w r): unbiased, with a betting interval (Horvitz & Thompson, 1952)."""
    weight = sample.weight
    value = float((weight * sample.reward).mean())
    return Estimate(IPS, value, betting(weight, sample.reward, confidence))


def default_clip(rows: int) -> float:
    """Return √n, at which the bias of clipping vanishes as fast as the variance (Ionides, 2008)."""
    return math.sqrt(rows)


def clipped_inverse_propensity(
    sample: Sample, confidence: float = 0.95, *, clip: float | None = None
) -> Estimate:
    """Return mean(min(w, clip) r): biased downwards, yet its interval covers the true value."""
    bound = default_clip(len(sample.reward)) if clip is None else clip
    if not bound > 0:
        raise InvalidArgumentError("clip", f"got {bound}", allowed="above 0")
    weight = np.minimum(sample.weight, bound)
    value = float((weight * sample.reward).mean())
    return Estimate(CLIPPED_IPS, value, betting(weight, sample.reward, confidence))


def self_normalised(sample: Sample, confidence: float = 0.95) -> Estimate:
    """Return Σ w r / Σ w, whose error does not grow with a shift of rewards.

    The interval is that of the linearised estimate, v + w (r - v) / mean(w)
    (Swaminathan & Joachims, 2015).
    """
    weight, total = sample.weight, sample.weight.sum()
    if total == 0:
        return Estimate(SNIPS, None, None, "no row of the log has an action of the target")
    value = float((weight * sample.reward).sum() / total)
    terms = value + weight * (sample.reward - value) / weight.mean()
    return Estimate(SNIPS, value, studentised(terms, confidence))


def direct_method(sample: Sample) -> Estimate:
    """Return the mean of what a reward model predicts for the target: as good as the model."""
    theta = reward_model.fit(sample.features, sample.reward)
    return Estimate(DIRECT, float((sample.expected_features @ theta).mean()))


def doubly_robust_terms(sample: Sample, taken: FloatArray, valued: FloatArray) -> FloatArray:
    """Return v̂(x) + w (r - q̂(x, a)), [n], of predictions q̂ (`taken`) and v̂ (`valued`)."""
    return valued + sample.weight * (sample.reward - taken)


def doubly_robust(sample: Sample, confidence: float = 0.95) -> Estimate:
    """Return the doubly robust estimate with a reward model cross-fitted forward in time.

    Right if propensities or model are (Dudík, Langford & Li, 2011); rows count by their forecast
    variance, and the interval holds under adaptive logging.
    """
    taken, valued = reward_model.forward_folds(
        sample.features, sample.reward, sample.expected_features
    )
    value, interval = stabilised(doubly_robust_terms(sample, taken, valued), confidence)
    return Estimate(DOUBLY_ROBUST, value, interval)


def pseudo_inverse(sample: Sample, confidence: float = 0.95) -> Estimate:
    """Return the mean of rewards by their pseudo-inverse weights (Swaminathan et al., 2017).

    Much less variance than importance weights of whole plans; unbiased if each generator adds its
    own part to the reward, whatever the others do.
    """
    if not len(sample.additive_weight):
        return Estimate(PSEUDO_INVERSE, None, None, "the log's actions have no parts to add up")
    terms = sample.additive_weight * sample.reward
    return Estimate(PSEUDO_INVERSE, float(terms.mean()), studentised(terms, confidence))


def full_pull_replay(sample: Sample, confidence: float = 0.95) -> Estimate:
    """Return the mean reward that the target would have covered, over full pulls alone.

    A full pull saw every list, so it tells for each plan whether it would have held the engaged
    item; that ranking and clicking would be the same is assumed.
    """
    check_confidence(confidence)
    covered = sample.covered
    if not len(covered):
        return Estimate(REPLAY, None, None, "the log has no full pulls")
    interval = betting(np.ones(len(covered)), covered, confidence)
    return Estimate(REPLAY, float(covered.mean()), interval)

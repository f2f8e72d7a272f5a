"""Confidence intervals that stay valid when the logger learned from the very log they read.

Under adaptive logging rows are dependent, but with unbiased terms φ_t, whose mean given the past
is the value sought, the centred sum is a martingale. `betting` holds for any number of rows;
`studentised` and `stabilised` hold as rows grow, and are narrower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from forage.errors import InvalidArgumentError
from orchestrator.bandit.arrays import FloatArray

_LARGEST_BET = 0.75
"""Share of the capital that may be lost in one row; below 1, so nobody goes broke."""
_BISECTIONS = 40
_WARM_UP = 25.0
"""Rows that the prior guess of a variance counts for."""
_MEMORY = 500.0
"""Rows over which the local variance is averaged, exponentially."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the value lies, with probability of at least `confidence`."""

    low: float
    high: float
    confidence: float
    method: str

    @property
    def width(self) -> float:
        """How uncertain the value is."""
        return self.high - self.low

    def covers(self, value: float) -> bool:
        """Whether the value is inside."""
        return self.low <= value <= self.high


def check_confidence(confidence: float) -> None:
    """Raise `InvalidArgumentError` unless `confidence` is in (0, 1)."""
    if not 0 < confidence < 1:
        raise InvalidArgumentError("confidence", f"got {confidence}", allowed="(0, 1)")


def betting(weight: FloatArray, reward: FloatArray, confidence: float = 0.95) -> Interval:
    """Return an interval of E[w r], for w ≥ 0 with mean at most 1 and r in [0, 1]; for any n.

    Two gamblers bet against candidate values, one that E[w r] is larger, one that E[w (1 - r)]
    is; neither needs a bound on the weights, and both stay honest if weights are clipped
    (Waudby-Smith & Ramdas, 2023; Waudby-Smith et al., 2024; Karampatziakis et al., 2021).
    """
    check_confidence(confidence)
    alpha = (1 - confidence) / 2
    low = lower_bound(weight * reward, alpha)
    high = 1 - lower_bound(weight * (1 - reward), alpha)
    return Interval(low, high, confidence, "betting")


def lower_bound(values: FloatArray, alpha: float) -> float:
    """Return a bound in [0, 1] that the mean of `values` ≥ 0 is below with probability ≤ `alpha`.

    The bound is the smallest mean at which a capital of Π (1 + λ_t (X_t - m)) never reached 1/α
    (Ville). Bets λ_t look at the past only, and are the best for its variance.
    """
    count = len(values)
    past = np.arange(1, count + 1)
    mean = np.minimum((0.5 + np.cumsum(values)) / (past + 1), 1.0)
    squares = np.cumsum((values - mean) ** 2)
    variance = (0.25 + np.concatenate([[0.0], squares[:-1]])) / past
    bets = np.sqrt(2 * math.log(1 / alpha) / (count * variance))
    threshold = math.log(1 / alpha)

    def refuted(m: float) -> bool:
        stake = np.minimum(bets, _LARGEST_BET / m)
        return bool(np.cumsum(np.log1p(stake * (values - m))).max() >= threshold)

    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def studentised(terms: FloatArray, confidence: float = 0.95) -> Interval:
    """Return mean ± z s/√n, by the central limit theorem for martingales."""
    check_confidence(confidence)
    half = _z(confidence) * _deviation(terms) / math.sqrt(len(terms))
    mean = float(terms.mean())
    return Interval(mean - half, mean + half, confidence, "normal")


def stabilised(terms: FloatArray, confidence: float = 0.95) -> tuple[float, Interval]:
    """Return the variance-stabilised mean of the terms, and its interval.

    Row t counts with h_t = 1/σ_t, where σ_t² is forecast from the rows before it, so that a
    logger which turns away from the target, and back, does not spoil the limit
    (Hadad, Hirshberg, Zhan, Wager & Athey, 2021).
    """
    check_confidence(confidence)
    weight = forecast_weights(terms)
    mean = float((weight * terms).sum() / weight.sum())
    error = math.sqrt(float((weight**2 * (terms - mean) ** 2).sum())) / float(weight.sum())
    half = _z(confidence) * error
    return mean, Interval(mean - half, mean + half, confidence, "stabilised")


def forecast_weights(terms: FloatArray) -> FloatArray:
    """Return 1/σ_t for every row, σ_t² being a forecast from earlier rows alone, [n]."""
    keep = 1 - 1 / _MEMORY
    square, mass, mean = _WARM_UP * 0.25, _WARM_UP, 0.5
    result = np.empty(len(terms))
    for row, term in enumerate(terms.tolist()):
        result[row] = math.sqrt(mass / square)
        square = keep * square + (term - mean) ** 2
        mass = keep * mass + 1
        mean += (term - mean) / (row + 2)
    return result


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _deviation(terms: FloatArray) -> float:
    return float(terms.std(ddof=1)) if len(terms) > 1 else math.inf

"""Percentile bootstrap over queries (Efron, 1979; Sakai, 2006): how sure a mean is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forage.errors import InvalidArgumentError

SAMPLES = 2_000
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval of 95 % (or what was asked for)."""

    mean: float
    low: float
    high: float
    queries: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    samples: int = SAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of one value per query, with the interval of resampled queries.

    Raises `InvalidArgumentError` if there are no values, or one is not finite.
    """
    given = _checked("values", values)
    means = np.concatenate(
        [
            given[rng.integers(0, len(given), (min(_BATCH, samples - start), len(given)))].mean(1)
            for start in range(0, samples, _BATCH)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(given.mean()), float(low), float(high), len(given))


def difference_interval(
    values: ArrayLike,
    others: ArrayLike,
    rng: np.random.Generator,
    *,
    samples: int = SAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Return by how much `values` exceed `others`, paired: both of the same queries in order."""
    first, second = _checked("values", values), _checked("others", others)
    if first.shape != second.shape:
        raise InvalidArgumentError(
            "others", f"{len(second)} values", allowed=f"{len(first)}, one for the same query each"
        )
    return mean_interval(first - second, rng, samples=samples, confidence=confidence)


def _checked(field: str, values: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(values, float)
    if given.ndim != 1 or not len(given):
        raise InvalidArgumentError(field, f"shape {given.shape}", allowed="one value per query")
    if not np.isfinite(given).all():
        raise InvalidArgumentError(field, "a value is not finite", allowed="finite numbers")
    return given

"""Numbers that say how the bandit is doing, for metrics and dashboards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.posterior import GaussianPosterior


def posterior_width(posterior: GaussianPosterior) -> dict[str, float]:
    """Return the mean standard deviation of each generator's bias weights.

    It falls from `1 / √bias_precision` as labels arrive, and rises again with forgetting.
    """
    width = np.sqrt(posterior.covariance[:, :, 0, 0]).mean(axis=1)
    return dict(zip(posterior.generators, width.tolist(), strict=True))


def expected_hit_rates(posterior: GaussianPosterior) -> dict[str, float]:
    """Return each generator's mean chance of a hit at the largest fan-out, by its bias alone."""
    hazard = 1 / (1 + np.exp(-posterior.mean[:, :, 0]))
    rates = 1 - np.prod(1 - hazard, axis=1)
    return dict(zip(posterior.generators, rates.tolist(), strict=True))


def arm_shares(plans: Iterable[Mapping[str, int]]) -> dict[str, dict[int, float]]:
    """Return, per generator, the share of plans that asked it for each fan-out (0: not called)."""
    counts: dict[str, Counter[int]] = {}
    total = 0
    for fan_outs in plans:
        total += 1
        for name, fan_out in fan_outs.items():
            counts.setdefault(name, Counter())[fan_out] += 1
    shares: dict[str, dict[int, float]] = {}
    for name, counter in counts.items():
        # A plan that does not name a generator did not call it.
        counter[0] += total - counter.total()
        shares[name] = {fan_out: n / total for fan_out, n in sorted(counter.items()) if n}
    return shares


def mean_fan_out(plans: Iterable[Mapping[str, int]]) -> dict[str, float]:
    """Return the mean fan-out per generator, not being called counting as 0."""
    return {
        name: sum(fan_out * share for fan_out, share in shares.items())
        for name, shares in arm_shares(plans).items()
    }


def effective_sample_size(propensities: Iterable[float]) -> float:
    """Return Kish's effective sample size of the weights 1 / propensity; 0 for none.

    Raises `ValueError` for a propensity outside (0, 1].
    """
    values: FloatArray = np.fromiter(propensities, dtype=np.float64)
    if not ((values > 0) & (values <= 1)).all():
        raise ValueError("propensities are in (0, 1]")
    if not values.size:
        return 0.0
    weights = 1 / values
    return float(weights.sum() ** 2 / (weights**2).sum())

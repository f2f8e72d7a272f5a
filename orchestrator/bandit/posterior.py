"""Gaussian beliefs about weight vectors: K independent posteriors for each generator.

Both learned models, logistic hazards and linear rewards, keep their beliefs here. Each belief is
N(mean, precision⁻¹). Precision and covariance are both kept: learning one label is a rank-one step
of each (Sherman & Morrison, 1950), reading needs the covariance, forgetting needs the precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.bandit.arrays import FloatArray

REFRESH_EVERY = 1024
"""Learning steps after which the covariance is recomputed, before rounding could add up."""


@dataclass(frozen=True, slots=True, eq=False)
class GaussianPrior:
    """What is believed of a generator before anything was observed.

    The weight of the first feature (the bias) has a stated mean, all other weights have mean 0, and
    weights are independent. Raises `ValueError` for a precision that is not above 0.
    """

    bias: Mapping[str, FloatArray]
    """Prior mean of the bias weight of known generators, each [K]."""
    default_bias: FloatArray
    """The same for a generator never heard of, [K]."""
    precision: FloatArray
    """One over the prior variance of each weight, [d]."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.precision).all() and (self.precision > 0).all()):
            raise ValueError("prior precisions must be finite and above 0")
        for bias in (self.default_bias, *self.bias.values()):
            if bias.shape != self.default_bias.shape or not np.isfinite(bias).all():
                raise ValueError("prior biases must be finite and of one length")

    def mean(self, generator: str) -> FloatArray:
        """Return the prior mean of a generator's weights, [K, d]."""
        mean = np.zeros((len(self.default_bias), len(self.precision)))
        mean[:, 0] = self.bias.get(generator, self.default_bias)
        return mean


class GaussianPosterior:
    """The beliefs about the weights of every generator: arrays [G, K, d] and [G, K, d, d].

    A generator that was never registered is believed to be as its prior says.
    """

    def __init__(self, generators: Sequence[str], prior: GaussianPrior) -> None:
        self.prior = prior
        self.generators: tuple[str, ...] = ()
        kinds, dim = len(prior.default_bias), len(prior.precision)
        self.mean: FloatArray = np.empty((0, kinds, dim))
        self.prior_mean: FloatArray = np.empty((0, kinds, dim))
        self.precision: FloatArray = np.empty((0, kinds, dim, dim))
        self.covariance: FloatArray = np.empty((0, kinds, dim, dim))
        self.labels: FloatArray = np.empty((0, kinds))
        """How much weight of labels each belief has taken in, undiscounted, [G, K]."""
        self.steps = 0
        for name in generators:
            self.register(name)

    def register(self, generator: str) -> None:
        """Start believing the prior about a generator; nothing happens if it is known."""
        if generator in self.generators:
            return
        mean = self.prior.mean(generator)[None]
        shape = (1, mean.shape[1], 1, 1)
        self.generators = (*self.generators, generator)
        self.mean = np.concatenate([self.mean, mean])
        self.prior_mean = np.concatenate([self.prior_mean, mean])
        self.precision = np.concatenate(
            [self.precision, np.tile(np.diag(self.prior.precision), shape)]
        )
        self.covariance = np.concatenate(
            [self.covariance, np.tile(np.diag(1 / self.prior.precision), shape)]
        )
        self.labels = np.concatenate([self.labels, np.zeros((1, mean.shape[1]))])

    def moments(
        self, generators: tuple[str, ...], phi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of `weights · phi`, each [G, K], for phi [G, d]."""
        if generators == self.generators:
            return _moments(self.mean, self.covariance, phi)
        mean = np.empty((len(generators), self.mean.shape[1]))
        variance = np.empty_like(mean)
        for row, name in enumerate(generators):
            if name in self.generators:
                at = self.generators.index(name)
                one = slice(at, at + 1)
                known = _moments(self.mean[one], self.covariance[one], phi[row : row + 1])
                mean[row], variance[row] = known[0][0], known[1][0]
            else:
                mean[row] = self.prior.mean(name) @ phi[row]
                variance[row] = (phi[row] ** 2 / self.prior.precision).sum()
        return mean, variance

    def learn(self, generator: int, phi: FloatArray, *, step: FloatArray, gain: FloatArray) -> None:
        """Move each belief k of a generator by `step[k] · Σ phi`; add `gain[k] · phi phiᵀ` to Λ.

        `step` is the gradient of the label's log-likelihood at the new mean, `gain` its curvature,
        both [K]; where both are 0 (a censored label) the belief stays as it is, bit for bit.
        """
        covariance = self.covariance[generator]
        direction = covariance @ phi
        self.mean[generator] += step[:, None] * direction
        self.precision[generator] += gain[:, None, None] * np.outer(phi, phi)
        shrink = gain / (1 + gain * (direction @ phi))
        # The outer product of a vector with itself is symmetric to the last bit, also when scaled.
        outer = direction[:, :, None] * direction[:, None, :]
        covariance -= shrink[:, None, None] * outer
        self.steps += 1
        if self.steps % REFRESH_EVERY == 0:
            self.covariance = _inverse(self.precision)

    def pull_to_prior(self, keep: float, generator: str | None = None) -> None:
        """Forget: keep a share of what was learned and re-inject the prior for the rest.

        Precision and precision-weighted mean both become `keep · posterior + (1 - keep) · prior`,
        so that with `keep` 0 the prior is back, and variance never grows beyond it. `generator`
        restricts this to one of them (its model changed); `keep` is in [0, 1], else `ValueError`.
        """
        if not 0 <= keep <= 1:
            raise ValueError(f"the share to keep is in [0, 1], got {keep}")
        if generator is not None and generator not in self.generators:
            return
        at = self.generators.index(generator) if generator is not None else 0
        rows = slice(at, at + 1) if generator is not None else slice(None)
        prior = self.prior.precision
        moment = keep * (self.precision[rows] @ self.mean[rows][..., None])[..., 0]
        moment += (1 - keep) * prior * self.prior_mean[rows]
        self.precision[rows] *= keep
        self.precision[rows] += (1 - keep) * np.diag(prior)
        self.covariance[rows] = _inverse(self.precision[rows])
        self.mean[rows] = (self.covariance[rows] @ moment[..., None])[..., 0]

    def frozen(self) -> GaussianPosterior:
        """Return a copy whose arrays cannot be written: what a snapshot holds."""
        copy = GaussianPosterior((), self.prior)
        copy.generators, copy.steps = self.generators, self.steps
        for name in ("mean", "prior_mean", "precision", "covariance", "labels"):
            array = getattr(self, name).copy()
            array.setflags(write=False)
            setattr(copy, name, array)
        return copy

    def thawed(self) -> GaussianPosterior:
        """Return a copy that can learn."""
        copy = self.frozen()
        for name in ("mean", "prior_mean", "precision", "covariance", "labels"):
            getattr(copy, name).setflags(write=True)
        return copy


def _moments(
    mean: FloatArray, covariance: FloatArray, phi: FloatArray
) -> tuple[FloatArray, FloatArray]:
    count, kinds, dim = mean.shape
    column = phi[:, :, None]
    # One tall matrix per generator, so that a single matrix-vector product serves all its beliefs.
    spread = (covariance.reshape(count, kinds * dim, dim) @ column).reshape(count, kinds, dim)
    variance = (spread @ column)[..., 0]
    return (mean @ column)[..., 0], np.maximum(variance, 0.0)


def _inverse(precision: FloatArray) -> FloatArray:
    inverse = np.linalg.inv(precision)
    result: FloatArray = (inverse + inverse.swapaxes(-1, -2)) / 2
    return result

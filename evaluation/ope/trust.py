"""Whether an off-policy estimate may be believed; asked before its value is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.ope.estimators import (
    CLIPPED_IPS,
    DOUBLY_ROBUST,
    IPS,
    PSEUDO_INVERSE,
    REPLAY,
    Estimate,
)
from evaluation.ope.sample import Sample
from orchestrator.bandit.arrays import FloatArray

_CONSTANT = frozenset({IPS, CLIPPED_IPS, DOUBLY_ROBUST})
"""The estimators whose intervals, or weights of rows, take the target's value as constant."""
_ERRORS = 4.0
"""Standard errors by which weights must miss a mean of 1 before that is held against them."""


@dataclass(frozen=True, slots=True)
class TrustRules:
    """The limits beyond which an estimate is refused."""

    min_effective: float = 100.0
    """Least effective sample size, rows."""
    max_share: float = 0.1
    """Most of the total weight that one row may have."""
    max_unsupported: float = 0.05
    """Most of the target's choices that the logger could not make, as a share."""
    max_imbalance: float = 0.1
    """How far the weights' mean may be from 1, if it is so beyond chance."""
    min_full_pulls: int = 50


@dataclass(frozen=True, slots=True)
class WeightDiagnostics:
    """How much of a log speaks of the target."""

    effective: float
    """(Σ|w|)² / Σw², Kish's effective sample size, rows."""
    largest: float
    largest_share: float
    """The largest |w| as a share of their sum; 0 if all are 0."""
    mean: float
    """1 if propensities are right and the target is supported."""
    mean_error: float
    """Standard error of the mean."""

    @classmethod
    def of(cls, weight: FloatArray) -> WeightDiagnostics:
        """Describe weights, [n]."""
        size = np.abs(weight)
        # Squares of sizes as a share of the largest cannot overflow.
        largest = float(size.max())
        scaled = size / largest if largest else size
        total, count = float(scaled.sum()), len(weight)
        return cls(
            effective=total**2 / float((scaled**2).sum()) if largest else 0.0,
            largest=largest,
            largest_share=1 / total if largest else 0.0,
            mean=float(weight.mean()),
            mean_error=float(weight.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf,
        )

    def objection(self, rules: TrustRules) -> str:
        """Return why estimates by these weights must not be trusted; empty if they may be."""
        if self.largest_share > rules.max_share:
            return (
                f"one row has {self.largest_share:.0%} of all weight (largest weight "
                f"{self.largest:,.1f}); at most {rules.max_share:.0%} may be trusted"
            )
        if self.effective < rules.min_effective:
            return (
                f"the effective sample size is {self.effective:,.1f}, below "
                f"{rules.min_effective:,.0f}"
            )
        miss = abs(self.mean - 1)
        if miss > rules.max_imbalance and miss > _ERRORS * self.mean_error:
            return (
                f"the weights average {self.mean:.3f} ± {self.mean_error:.3f} instead of 1: the "
                "log does not support the target, or its propensities are wrong"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What to know of a sample before looking at any estimate."""

    rows: int
    logged_reward: float
    """Mean reward of the log as it is."""
    halves: tuple[float, float]
    """The same of its earlier half and of its later one."""
    weights: WeightDiagnostics
    additive: WeightDiagnostics | None
    """The same of the pseudo-inverse weights; None if there are none."""
    unsupported: float | None
    """Share of the target's choices that the logger could not make; None: unknown."""
    unsupported_rows: int
    """Rows in which there are such choices."""
    full_pulls: int
    target_cost: float | None
    logged_cost: float | None

    @classmethod
    def of(cls, sample: Sample) -> Diagnostics:
        """Describe a sample."""
        additive = sample.additive_weight
        return cls(
            rows=len(sample.reward),
            logged_reward=float(sample.reward.mean()),
            halves=_halves(sample.reward),
            weights=WeightDiagnostics.of(sample.weight),
            additive=WeightDiagnostics.of(additive) if len(additive) else None,
            unsupported=_mean(sample.unsupported),
            unsupported_rows=int((sample.unsupported > 0).sum()),
            full_pulls=len(sample.covered),
            target_cost=_mean(sample.target_cost),
            logged_cost=_mean(sample.logged_cost),
        )


def _halves(values: FloatArray) -> tuple[float, float]:
    half = (len(values) + 1) // 2
    return float(values[:half].mean()), float(values[-half:].mean())


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None


def judge(
    estimates: Sequence[Estimate], found: Diagnostics, rules: TrustRules
) -> tuple[Estimate, ...]:
    """Return the estimates; those that must not be trusted have a reason instead of a value.

    The direct method uses no weights, but where weights speak of too few rows it extrapolates.
    An interval that ends below its beginning proves that no single value fits the whole log.
    """
    judged = []
    changed = any(e.interval is not None and e.interval.width < 0 for e in estimates)
    for estimate in estimates:
        reason = "" if estimate.refusal else _objection(estimate.estimator, found, rules)
        if changed and not reason and estimate.estimator in _CONSTANT:
            reason = (
                f"rewards changed while the log was written ({found.halves[0]:.4f} in its first"
                f" half, {found.halves[1]:.4f} in its second): no single value fits all of it"
            )
        judged.append(estimate.refused(reason) if reason else estimate)
    return tuple(judged)


def _objection(estimator: str, found: Diagnostics, rules: TrustRules) -> str:
    if estimator == REPLAY:
        if found.full_pulls < rules.min_full_pulls:
            return f"{found.full_pulls} full pulls are fewer than {rules.min_full_pulls}"
        return ""
    if (found.unsupported or 0.0) > rules.max_unsupported:
        return (
            f"{found.unsupported:.1%} of what the target would do was never possible in the log "
            f"({found.unsupported_rows:,} rows); at most {rules.max_unsupported:.0%} may be trusted"
        )
    weights = found.additive if estimator == PSEUDO_INVERSE else found.weights
    return weights.objection(rules) if weights is not None else ""

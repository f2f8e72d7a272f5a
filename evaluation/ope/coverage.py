"""Measures the estimators where the truth is known: bias, error, and how often intervals cover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.ope.adaptive_log import LoggingSettings, simulate, target_distributions
from evaluation.ope.assessment import assess
from evaluation.ope.intervals import Interval
from evaluation.ope.world import World


@dataclass(frozen=True, slots=True)
class CoverageSettings:
    """One experiment: how logs are made, and how many."""

    logging: LoggingSettings = field(default_factory=LoggingSettings)
    runs: int = 200
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class EstimatorFigures:
    """How one estimator did over all runs."""

    estimator: str
    runs: int
    refused: int
    mean: float
    bias: float
    """(mean - truth) / truth."""
    mean_error: float
    """Mean of |value - truth| / truth."""
    coverage: float
    """Share of the intervals that held the truth; NaN if there are none."""
    mean_width: float
    """Mean width of the intervals; NaN if there are none."""


@dataclass(frozen=True, slots=True)
class CoverageFigures:
    """The result of an experiment."""

    settings: CoverageSettings
    truth: float
    logged: float
    """Mean reward that the logger earned."""
    effective: float
    """Mean effective sample size, rows."""
    estimators: tuple[EstimatorFigures, ...]

    def of(self, estimator: str) -> EstimatorFigures:
        """Return the figures of one estimator."""
        return next(e for e in self.estimators if e.estimator == estimator)


def measure_coverage(
    settings: CoverageSettings, *, progress: Callable[[float], None] = lambda share: None
) -> CoverageFigures:
    """Run the experiment; the same settings give the same figures."""
    world = World()
    target = target_distributions(world, settings.logging)
    truth = world.value(target)
    results: dict[str, list[tuple[float | None, Interval | None]]] = defaultdict(list)
    logged, effective = [], []
    for run in range(settings.runs):
        rng = np.random.default_rng([settings.logging.seed, run])
        sample = simulate(world, target, settings.logging, rng)
        found = assess(sample, target=settings.logging.target, confidence=settings.confidence)
        for estimate in found.estimates:
            results[estimate.estimator].append((estimate.value, estimate.interval))
        logged.append(found.diagnostics.logged_reward)
        effective.append(found.diagnostics.weights.effective)
        progress((run + 1) / settings.runs)
    return CoverageFigures(
        settings,
        truth,
        float(np.mean(logged)),
        float(np.mean(effective)),
        tuple(_figures(name, truth, values) for name, values in results.items()),
    )


def _figures(
    estimator: str, truth: float, results: Sequence[tuple[float | None, Interval | None]]
) -> EstimatorFigures:
    values = np.array([value for value, _ in results if value is not None])
    intervals = [interval for _, interval in results if interval is not None]
    mean = float(values.mean()) if len(values) else float("nan")
    errors = np.abs(values - truth) / truth
    return EstimatorFigures(
        estimator,
        runs=len(results),
        refused=len(results) - len(values),
        mean=mean,
        bias=(mean - truth) / truth,
        mean_error=float(errors.mean()) if len(values) else float("nan"),
        coverage=float(np.mean([i.covers(truth) for i in intervals])) if intervals else np.nan,
        mean_width=float(np.mean([i.width for i in intervals])) if intervals else np.nan,
    )

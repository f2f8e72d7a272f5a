"""Typed instruments for every metric of `forage.signals`, with bounded label cardinality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from opentelemetry.metrics import Meter

from forage.signals import Kind, Metric

MAX_SERIES = 256
"""Label combinations kept per metric; later ones share the overflow series."""

_OVERFLOW: Mapping[str, str | bool | int] = {"otel.metric.overflow": True}
_Sink = Callable[[float, Mapping[str, str | bool | int]], None]


@dataclass(frozen=True, slots=True)
class Instruments:
    """Records every metric with exactly its labels; a service uses the ones it has values for."""

    sinks: Mapping[Metric, _Sink]
    series: dict[Metric, dict[tuple[str | int, ...], Mapping[str, str | bool | int]]] = field(
        default_factory=lambda: {metric: {} for metric in Metric}
    )

    @classmethod
    def create(cls, meter: Meter) -> Instruments:
        """Make all instruments on a meter; those never recorded export nothing."""
        return cls({metric: _sink(meter, metric) for metric in Metric})

    def record(self, metric: Metric, value: float, *labels: str | int) -> None:
        """Record one value, `labels` in the order of `metric.labels`."""
        known = self.series[metric]
        attributes = known.get(labels)
        if attributes is None:
            if len(known) >= MAX_SERIES:
                attributes = _OVERFLOW
            else:
                attributes = dict(zip(metric.labels, labels, strict=True))
                known[labels] = attributes
        self.sinks[metric](value, attributes)

    def call_duration(self, seconds: float, *, method: str, status_code: int) -> None:
        """Record one answered call; `method` is `package.Service/Method`."""
        self.record(Metric.CALL_DURATION, seconds, method, status_code)

    def arm_share(self, *, generator: str, fan_out: int) -> None:
        """Count one chosen call."""
        self.record(Metric.ARM_SHARE, 1, generator, fan_out)

    def fan_out(self, candidates: int, *, generator: str) -> None:
        """Record the fan-out a search gave to a generator."""
        self.record(Metric.FAN_OUT, candidates, generator)

    def reward(self, reward: float, *, policy: str) -> None:
        """Record the reward of one decision."""
        self.record(Metric.REWARD, reward, policy)

    def unique_finds(self, candidates: int, *, generator: str) -> None:
        """Record how many candidates of a search only this generator returned."""
        self.record(Metric.UNIQUE_FINDS, candidates, generator)

    def overlap(self, share: float) -> None:
        """Record the share of candidates that several generators returned."""
        self.record(Metric.OVERLAP, share)

    def posterior_width(self, width: float, *, generator: str) -> None:
        """Set the width of a generator's posterior."""
        self.record(Metric.POSTERIOR_WIDTH, width, generator)

    def propensity_ess(self, decisions: float) -> None:
        """Set the effective sample size."""
        self.record(Metric.PROPENSITY_ESS, decisions)

    def regret_proxy(self, utility: float, *, policy: str) -> None:
        """Record how far the chosen plan was from the posterior mean's best one."""
        self.record(Metric.REGRET_PROXY, utility, policy)

    def projection_lag(self, records: int, *, projection: str) -> None:
        """Set how many records a projection is behind."""
        self.record(Metric.PROJECTION_LAG, records, projection)

    def search_latency(self, seconds: float, *, stage: str) -> None:
        """Record the time of one stage; `stage` is a `Span` or `total`."""
        self.record(Metric.SEARCH_LATENCY, seconds, stage)

    def degraded(self, *, component: str, reason: str) -> None:
        """Count one search answered without a component."""
        self.record(Metric.DEGRADED, 1, component, reason)

    def breaker_state(self, state: int, *, generator: str) -> None:
        """Set a breaker's state: 0 closed, 1 half open, 2 open."""
        self.record(Metric.BREAKER_STATE, state, generator)

    def hedged(self, outcome: str, *, component: str) -> None:
        """Count one call that was made again to another replica: won, lost or failed."""
        self.record(Metric.HEDGED, 1, component, outcome)

    def decisions_recorded(self, decisions: int = 1) -> None:
        """Count decisions appended to the log."""
        self.record(Metric.DECISIONS_RECORDED, decisions)

    def feedback_events(self, *, kind: str, outcome: str) -> None:
        """Count one feedback event."""
        self.record(Metric.FEEDBACK_EVENTS, 1, kind, outcome)

    def spans_dropped(self, spans: int, *, reason: str) -> None:
        """Count spans that were lost."""
        self.record(Metric.SPANS_DROPPED, spans, reason)


def _sink(meter: Meter, metric: Metric) -> _Sink:
    if metric.kind is Kind.COUNTER:
        return meter.create_counter(metric.value, metric.unit, metric.description).add
    if metric.kind is Kind.GAUGE:
        return meter.create_gauge(metric.value, metric.unit, metric.description).set
    return meter.create_histogram(
        metric.value,
        metric.unit,
        metric.description,
        explicit_bucket_boundaries_advisory=metric.bounds,
    ).record

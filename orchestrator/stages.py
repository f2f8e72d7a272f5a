"""Stages of one search: each is a span, a duration in the answer, and a metric."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from forage.telemetry import Instruments, Span, Tracer


class Stages:
    """Measures the stages of one search; not shared between searches."""

    def __init__(self, tracer: Tracer, instruments: Instruments) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}
        """Duration by stage, in the order the stages ran."""

    @contextmanager
    def stage(self, name: Span) -> Iterator[trace.Span]:
        """Run one stage inside a span of its name."""
        started = time.perf_counter()
        with self._tracer.start_as_current_span(name) as span:
            yield span
        self.seconds[name] = time.perf_counter() - started
        self._instruments.search_latency(self.seconds[name], stage=name)

    def finish(self) -> float:
        """Return the seconds since the search began, and record them as the total."""
        total = time.perf_counter() - self._started
        self._instruments.search_latency(total, stage="total")
        return total

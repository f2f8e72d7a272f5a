"""Sets up tracing and metrics of one service: OTLP if there is an endpoint, files if not.

Nothing is global: several services may run in one process, each with its own providers. A search
never waits for telemetry and never fails by it; what is lost is counted in
`forage.spans.dropped`.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import Meter, NoOpMeterProvider
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NoOpTracerProvider

from forage.call_tracing import ClientCallInterceptor, ServerCallInterceptor
from forage.instruments import Instruments
from forage.signals import Attribute, Kind, Metric, Span
from forage.trace_files import (
    METRICS_SUFFIX,
    TRACES_SUFFIX,
    MetricFileExporter,
    RotatingFile,
    SpanFileExporter,
)
from forage.tracer import Tracer

if TYPE_CHECKING:
    from forage.settings import TelemetrySettings

__all__ = ["Attribute", "Instruments", "Kind", "Metric", "Span", "Telemetry", "Tracer"]

_logger = logging.getLogger(__name__)

_SCOPE = "forage"
_DISTRIBUTION = "forage-mesh"
# Nearly three seconds of the busiest process at 3,000 spans a second.
_QUEUE_SPANS = 8_192
# A file batch is encoded in about a millisecond, so it hardly holds up the event loop (GIL).
_FILE_BATCH_SPANS = 128
_OTLP_BATCH_SPANS = 512
_DELAY_MS = 200
_OTLP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The tracer, meter and instruments of one service, and the interceptors that use them."""

    tracer: Tracer
    meter: Meter
    instruments: Instruments
    _providers: _Providers | None

    @classmethod
    def start(cls, service: str, settings: TelemetrySettings, directory: Path) -> Telemetry:
        """Start telemetry of `service` (a short name such as `lexical`) as configured.

        An endpoint that does not answer and a directory that cannot be written are logged; the
        service goes on without.
        """
        if not settings.enabled:
            return cls.disabled()
        span_exporter, metric_exporter, batch = (
            _otlp_exporters(settings)
            if settings.endpoint
            else _file_exporters(service, settings, directory)
        )
        reader = PeriodicExportingMetricReader(
            metric_exporter, export_interval_millis=settings.metric_interval_ms
        )
        return cls._build(
            service,
            settings.sample_ratio,
            [reader],
            lambda instruments: SpanQueue(span_exporter, instruments, batch=batch),
            [span_exporter.shutdown, metric_exporter.shutdown],
        )

    @classmethod
    def in_memory(
        cls, service: str, exporter: SpanExporter, *, readers: Sequence[MetricReader] = ()
    ) -> Telemetry:
        """Return telemetry for tests: spans reach `exporter` as they end, metrics the readers."""
        return cls._build(service, 1.0, readers, lambda _: SimpleSpanProcessor(exporter), [])

    @classmethod
    def disabled(cls) -> Telemetry:
        """Return telemetry that does nothing, has no threads and intercepts no call."""
        meter = NoOpMeterProvider().get_meter(_SCOPE)
        tracer = Tracer(NoOpTracerProvider().get_tracer(_SCOPE))
        return cls(tracer, meter, Instruments.create(meter), None)

    @classmethod
    def _build(
        cls,
        service: str,
        sample_ratio: float,
        readers: Sequence[MetricReader],
        processor: Callable[[Instruments], SpanProcessor],
        abandon: Sequence[Callable[[], None]],
    ) -> Telemetry:
        resource = _resource(service)
        meters = MeterProvider(
            readers,
            resource,
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = meters.get_meter(_SCOPE)
        instruments = Instruments.create(meter)
        tracers = TracerProvider(
            ParentBasedTraceIdRatio(sample_ratio),
            resource,
            shutdown_on_exit=False,
            meter_provider=meters,
        )
        tracers.add_span_processor(processor(instruments))
        tracer = Tracer(tracers.get_tracer(_SCOPE))
        return cls(tracer, meter, instruments, _Providers(service, tracers, meters, abandon))

    def server_interceptors(self) -> list[Any]:
        """Return the interceptors of a `grpc.aio` server, to be put before all others."""
        if self._providers is None:
            return []
        return [ServerCallInterceptor(self.tracer, self.instruments)]

    def client_interceptors(self) -> list[Any]:
        """Return the interceptors of a `grpc.aio` channel, to be put before all others."""
        return [] if self._providers is None else [ClientCallInterceptor(self.tracer)]

    def flush(self) -> None:
        """Export every ended span now; blocks, for tests and command-line tools."""
        if self._providers is not None:
            self._providers.tracers.force_flush()

    def shutdown(self, timeout_s: float = 3.0) -> None:
        """Export what is left and stop, within `timeout_s` and half a second whatever happens."""
        if self._providers is not None:
            self._providers.shutdown(timeout_s)


@dataclass(frozen=True, slots=True)
class _Providers:
    """What has to be shut down, and how to give up on it."""

    service: str
    tracers: TracerProvider
    meters: MeterProvider
    abandon: Sequence[Callable[[], None]]

    def shutdown(self, timeout_s: float) -> None:
        # The SDK waits up to 30 s for each of them, and cannot be told otherwise.
        thread = threading.Thread(target=self._drain, name="telemetry-shutdown", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            _logger.warning(
                "telemetry of %s: not exported within %.1f s, dropping the rest",
                self.service,
                timeout_s,
            )
            for give_up in self.abandon:
                give_up()
            thread.join(0.5)

    def _drain(self) -> None:
        for provider in (self.tracers, self.meters):
            try:
                provider.shutdown()
            except Exception:
                _logger.exception("telemetry of %s: shutdown failed", self.service)


class SpanQueue(BatchSpanProcessor):
    """The SDK's bounded queue, which also counts the spans that it loses.

    The SDK drops the oldest span when the queue is full. It only says how many if its own metrics
    are enabled, for all providers of the process and for every span; so they are counted here.
    """

    def __init__(self, exporter: SpanExporter, instruments: Instruments, *, batch: int) -> None:
        """Start the exporting thread; `batch` spans go to the exporter at a time."""
        self._instruments = instruments
        self._waiting = 0
        self._guard = threading.Lock()
        super().__init__(
            _CountingExporter(exporter, self._left, instruments),
            max_queue_size=_QUEUE_SPANS,
            schedule_delay_millis=_DELAY_MS,
            max_export_batch_size=batch,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, in place of the oldest if the queue is full."""
        with self._guard:
            full = self._waiting >= _QUEUE_SPANS
            self._waiting += not full
        if full:
            self._instruments.spans_dropped(1, reason="queue_full")
        super().on_end(span)

    def _left(self, spans: int) -> None:
        with self._guard:
            self._waiting -= spans


class _CountingExporter(SpanExporter):
    """Tells the queue what has left it, and counts what did not arrive."""

    def __init__(
        self, exporter: SpanExporter, left: Callable[[int], None], instruments: Instruments
    ) -> None:
        self._exporter = exporter
        self._left = left
        self._instruments = instruments

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._left(len(spans))
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._instruments.spans_dropped(len(spans), reason="export_failed")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _otlp_exporters(settings: TelemetrySettings) -> tuple[SpanExporter, MetricExporter, int]:
    # Imported here: the protobuf messages of OTLP cost memory that files do not need.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    endpoint = settings.endpoint
    if "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return (
        OTLPSpanExporter(endpoint=endpoint, timeout=_OTLP_TIMEOUT_S),
        OTLPMetricExporter(endpoint=endpoint, timeout=_OTLP_TIMEOUT_S),
        _OTLP_BATCH_SPANS,
    )


def _file_exporters(
    service: str, settings: TelemetrySettings, directory: Path
) -> tuple[SpanExporter, MetricExporter, int]:
    def file(suffix: str) -> RotatingFile:
        return RotatingFile(
            directory / f"{service}{suffix}",
            max_bytes=settings.max_file_bytes,
            max_files=settings.max_files,
        )

    spans = SpanFileExporter(file(TRACES_SUFFIX))
    return spans, MetricFileExporter(file(METRICS_SUFFIX)), _FILE_BATCH_SPANS


def _resource(service: str) -> Resource:
    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "unpackaged"
    return Resource.create(
        {
            "service.name": f"forage-{service}",
            "service.version": version,
            "service.instance.id": str(uuid.uuid4()),
        }
    )

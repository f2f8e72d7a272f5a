"""Telemetry: spans over a real `grpc.aio` call, metrics, and trouble that is survived."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from forage.instruments import MAX_SERIES
from forage.settings import TelemetrySettings
from forage.telemetry import Attribute, Kind, Metric, Span, SpanQueue, Telemetry
from forage.trace_files import encode_spans
from forage.trace_reader import edges, read_traces, traces_of

METHOD = "forage.v1.Echo/Say"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """Echo, or end in the way the request names."""
    if request == b"abort":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad query 'secret'")
    if request == b"status":
        status = status_pb2.Status(code=14, message="bad query 'secret'")
        await context.abort_with_status(rpc_status.to_status(status))
    if request == b"defect":
        raise RuntimeError("bad query 'secret'")
    if request == b"wait":
        await asyncio.sleep(30)
    return format(trace.get_current_span().get_span_context().trace_id, "032x").encode()


@asynccontextmanager
async def calling(
    server_side: Telemetry, client_side: Telemetry
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=server_side.server_interceptors())
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("forage.v1.Echo", handlers),)
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", interceptors=client_side.client_interceptors()
        ) as channel:
            yield channel
    finally:
        await server.stop(0)


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Poll until the callable is true."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "not in time"
        await asyncio.sleep(0.005)


def series(reader: InMemoryMetricReader, metric: Metric) -> dict[tuple[object, ...], object]:
    """Return each label combination's data point of a metric."""
    data = reader.get_metrics_data()
    return {
        tuple(point.attributes.values()): point
        for group in (data.resource_metrics if data else ())
        for scope in group.scope_metrics
        for found in scope.metrics
        if found.name == metric
        for point in found.data.data_points
    }


async def test_a_call_is_one_trace_from_client_through_server_to_the_handler(
    exporter: InMemorySpanExporter,
) -> None:
    client_side = Telemetry.in_memory("orchestrator", exporter)
    server_side = Telemetry.in_memory("lexical", exporter)

    async with calling(server_side, client_side) as channel:
        with client_side.tracer.start_as_current_span(Span.FAN_OUT):
            seen = await channel.unary_unary(f"/{METHOD}")(b"hello")

    (found,) = traces_of(exporter.get_finished_spans())
    assert found.trace_id == seen.decode()
    assert edges(found) == {
        ("orchestrator:fan_out", f"orchestrator:{METHOD}"),
        (f"orchestrator:{METHOD}", f"lexical:{METHOD}"),
    }
    assert found.errors == 0
    server_span = next(s for s in found.spans if s.kind == "server")
    assert server_span.attributes == {
        "rpc.system": "grpc",
        "rpc.method": METHOD,
        "rpc.grpc.status_code": 0,
    }


@pytest.mark.parametrize(
    ("request_", "code", "server_at_fault"),
    [(b"abort", 3, False), (b"status", 14, True), (b"defect", 2, True)],
)
async def test_a_failed_call_has_its_status_on_both_spans_and_no_message(
    exporter: InMemorySpanExporter,
    reader: InMemoryMetricReader,
    request_: bytes,
    code: int,
    server_at_fault: bool,
) -> None:
    telemetry = Telemetry.in_memory("lexical", exporter, readers=[reader])

    async with calling(telemetry, telemetry) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{METHOD}")(request_)
        # The client hears the status a moment before the server's span ends.
        await until(lambda: len(exporter.get_finished_spans()) == 2)

    spans = {span.kind: span for span in exporter.get_finished_spans()}
    assert {s.attributes["rpc.grpc.status_code"] for s in spans.values()} == {code}
    assert spans[SpanKind.CLIENT].status.status_code is StatusCode.ERROR
    assert (spans[SpanKind.SERVER].status.status_code is StatusCode.ERROR) is server_at_fault
    assert b"secret" not in encode_spans(spans.values())
    assert series(reader, Metric.CALL_DURATION)[(METHOD, code)].count == 1


async def test_cancelling_a_traced_call_cancels_it_on_the_server(
    exporter: InMemorySpanExporter,
) -> None:
    telemetry = Telemetry.in_memory("lexical", exporter)

    async with calling(telemetry, telemetry) as channel:
        call = channel.unary_unary(f"/{METHOD}")(b"wait", timeout=20)
        pending = asyncio.ensure_future(call)
        await asyncio.sleep(0.05)
        pending.cancel()
        await until(lambda: len(exporter.get_finished_spans()) == 2)

    spans = exporter.get_finished_spans()
    assert {s.attributes["rpc.grpc.status_code"] for s in spans} == {1}
    assert all(s.status.status_code is StatusCode.UNSET for s in spans)


async def test_a_deadline_ends_both_spans(exporter: InMemorySpanExporter) -> None:
    telemetry = Telemetry.in_memory("lexical", exporter)

    async with calling(telemetry, telemetry) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{METHOD}")(b"wait", timeout=0.05)
        await until(lambda: len(exporter.get_finished_spans()) == 2)

    client_span = next(s for s in exporter.get_finished_spans() if s.kind is SpanKind.CLIENT)
    assert client_span.attributes["rpc.grpc.status_code"] == 4


async def test_health_checks_and_unknown_methods_leave_no_spans_or_series(
    exporter: InMemorySpanExporter, reader: InMemoryMetricReader
) -> None:
    server_side = Telemetry.in_memory("lexical", exporter, readers=[reader])

    async with calling(server_side, Telemetry.disabled()) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/forage.v1.Echo/Nothing")(b"")

    assert exporter.get_finished_spans() == ()
    assert series(reader, Metric.CALL_DURATION) == {}


@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-0-0-01", "ff-" + "1" * 32 + "-" + "2" * 16 + "-01"]
)
async def test_a_malformed_traceparent_starts_a_new_trace(
    exporter: InMemorySpanExporter, header: str
) -> None:
    server_side = Telemetry.in_memory("lexical", exporter)

    async with calling(server_side, Telemetry.disabled()) as channel:
        await channel.unary_unary(f"/{METHOD}")(b"", metadata=(("traceparent", header),))

    (span,) = exporter.get_finished_spans()
    assert span.parent is None


async def test_an_unsampled_search_exports_nothing_anywhere(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    unsampled = Telemetry.start("orchestrator", TelemetrySettings(sample_ratio=0.0), tmp_path)
    server_side = Telemetry.in_memory("lexical", exporter)

    async with calling(server_side, unsampled) as channel:
        await channel.unary_unary(f"/{METHOD}")(b"")
    unsampled.shutdown()

    assert exporter.get_finished_spans() == ()
    assert list(read_traces(tmp_path)) == []


def test_an_exception_marks_its_span_with_its_class_only(exporter: InMemorySpanExporter) -> None:
    telemetry = Telemetry.in_memory("ranker", exporter)

    with pytest.raises(ValueError, match="secret"), telemetry.tracer.start_as_current_span("rank"):
        raise ValueError("secret")

    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes == {Attribute.ERROR_TYPE: "ValueError"}
    assert span.events == ()


def test_disabled_telemetry_has_no_files_and_no_interceptors(tmp_path: Path) -> None:
    telemetry = Telemetry.start("ranker", TelemetrySettings(enabled=False), tmp_path)

    with telemetry.tracer.start_as_current_span(Span.RANK) as span:
        span.set_attribute(Attribute.CANDIDATES, 3)
    telemetry.instruments.overlap(0.5)
    telemetry.shutdown()

    assert telemetry.server_interceptors() == telemetry.client_interceptors() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listening", [True, False], ids=["silent", "refusing"])
def test_an_endpoint_that_does_not_answer_slows_neither_spans_nor_shutdown(
    tmp_path: Path, listening: bool
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        telemetry = Telemetry.start("ranker", TelemetrySettings(endpoint=endpoint), tmp_path)
        started = time.monotonic()
        for _ in range(2_000):
            with telemetry.tracer.start_as_current_span(Span.RANK):
                pass
        produced = time.monotonic()
        telemetry.shutdown(timeout_s=0.3)
        stopped = time.monotonic()

    assert produced - started < 2.0
    assert stopped - produced < 2.0
    assert list(tmp_path.iterdir()) == []


class Stuck(SpanExporter):
    """Takes the first batch and holds it until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Event()
        self.exported = 0

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.release.wait(20)
        self.exported += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.release.set()


def test_spans_that_do_not_fit_the_queue_are_counted(
    reader: InMemoryMetricReader, exporter: InMemorySpanExporter
) -> None:
    telemetry = Telemetry.in_memory("ranker", exporter, readers=[reader])
    telemetry.tracer.start_span(Span.RANK).end()
    (span,) = exporter.get_finished_spans()
    stuck = Stuck()
    queue = SpanQueue(stuck, telemetry.instruments, batch=128)

    for _ in range(9_000):
        queue.on_end(span)
    stuck.release.set()
    queue.shutdown()

    dropped = series(reader, Metric.SPANS_DROPPED)[("queue_full",)].value
    assert 0 < dropped <= 9_000 - 8_192
    assert dropped + stuck.exported == 9_000


def test_every_instrument_records_under_its_name_and_labels(
    exporter: InMemorySpanExporter, reader: InMemoryMetricReader
) -> None:
    instruments = Telemetry.in_memory("learner", exporter, readers=[reader]).instruments

    instruments.call_duration(0.001, method=METHOD, status_code=0)
    instruments.arm_share(generator="lexical", fan_out=25)
    instruments.fan_out(25, generator="lexical")
    instruments.reward(0.5, policy="thompson")
    instruments.unique_finds(3, generator="lexical")
    instruments.overlap(0.2)
    instruments.posterior_width(0.4, generator="lexical")
    instruments.propensity_ess(120.0)
    instruments.regret_proxy(0.01, policy="thompson")
    instruments.projection_lag(4, projection="memory")
    instruments.search_latency(0.012, stage="total")
    instruments.degraded(component="ranker", reason="timed_out")
    instruments.breaker_state(2, generator="graph")
    instruments.hedged("won", component="graph")
    instruments.decisions_recorded()
    instruments.feedback_events(kind="click", outcome="accepted")
    instruments.spans_dropped(1, reason="queue_full")

    data = reader.get_metrics_data()
    recorded = {m.name: m for m in data.resource_metrics[0].scope_metrics[0].metrics}
    assert set(recorded) == set(Metric)
    for metric in Metric:
        (point,) = recorded[metric].data.data_points
        assert set(point.attributes) == set(metric.labels)
        assert recorded[metric].unit == metric.unit
        if metric.kind is Kind.HISTOGRAM:
            assert point.explicit_bounds == metric.bounds


def test_label_combinations_are_bounded(
    exporter: InMemorySpanExporter, reader: InMemoryMetricReader
) -> None:
    instruments = Telemetry.in_memory("learner", exporter, readers=[reader]).instruments

    for number in range(MAX_SERIES + 50):
        instruments.arm_share(generator=f"generator-{number}", fan_out=10)

    points = series(reader, Metric.ARM_SHARE)
    assert len(points) == MAX_SERIES + 1
    assert points[(True,)].value == 50

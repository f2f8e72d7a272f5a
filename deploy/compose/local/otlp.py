"""Takes OTLP as the collector or as Jaeger does: `python otlp.py collector|jaeger`.

A stand-in where their images cannot be pulled, with the real wire on every side. The collector
hands traces on to `jaeger:4317`, and shows Prometheus the latest metrics on port 8889. Jaeger keeps
the latest traces in memory and answers `GET /api/traces` and `GET /api/traces/ID` on port 16686,
with the part of its own answer that tells spans, parents, services and tags.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
from exposition import Exposition
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_OTLP_PORT = 4317
_METRICS_PORT = 8889
_QUERY_PORT = 16686
_JAEGER = "jaeger:4317"
_FORWARD_S = 5.0
_TRACES = 5_000
_Answer = Callable[[str, dict[str, str]], tuple[str, str] | None]


class Forwarder(trace_grpc.TraceServiceServicer):
    """Hands traces on, unchanged."""

    def __init__(self, target: str) -> None:
        """Connect, when the first trace comes."""
        self._next = trace_grpc.TraceServiceStub(grpc.insecure_channel(target))

    def Export(  # noqa: N802
        self, request: trace_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_pb2.ExportTraceServiceResponse:
        """Answer what the next one answers."""
        try:
            answer: trace_pb2.ExportTraceServiceResponse = self._next.Export(
                request, timeout=_FORWARD_S
            )
        except grpc.RpcError as error:
            context.abort(error.code(), f"{_JAEGER}: {error.details()}")
        return answer


class Metrics(metrics_grpc.MetricsServiceServicer):
    """Keeps the latest points of every metric."""

    def __init__(self, exposition: Exposition) -> None:
        """Keep them in `exposition`."""
        self._exposition = exposition

    def Export(  # noqa: N802
        self, request: metrics_pb2.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_pb2.ExportMetricsServiceResponse:
        """Take metrics in."""
        self._exposition.update(request.resource_metrics)
        return metrics_pb2.ExportMetricsServiceResponse()


class Traces(trace_grpc.TraceServiceServicer):
    """Keeps the latest traces."""

    def __init__(self) -> None:
        """Begin with none."""
        self._traces: OrderedDict[str, list[tuple[str, Span]]] = OrderedDict()
        self._lock = threading.Lock()

    def Export(  # noqa: N802
        self, request: trace_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_pb2.ExportTraceServiceResponse:
        """Take spans in."""
        with self._lock:
            for resource in request.resource_spans:
                service = _tags(resource.resource.attributes).get("service.name", "unknown")
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._traces.setdefault(span.trace_id.hex(), []).append((service, span))
            while len(self._traces) > _TRACES:
                self._traces.popitem(last=False)
        return trace_pb2.ExportTraceServiceResponse()

    def find(self, service: str, tags: dict[str, str], limit: int) -> list[dict[str, Any]]:
        """Return the latest traces with a span of that service that has all the tags."""
        with self._lock:
            found = [
                trace
                for trace, spans in reversed(self._traces.items())
                if any(
                    name == service and tags.items() <= _tags(span.attributes).items()
                    for name, span in spans
                )
            ]
        return [trace for key in found[:limit] for trace in self.get(key)]

    def get(self, trace: str) -> list[dict[str, Any]]:
        """Return one trace in Jaeger's form, in a list, which is empty if it is not known."""
        with self._lock:
            spans = list(self._traces.get(trace, ()))
        if not spans:
            return []
        processes = {service: f"p{i}" for i, service in enumerate({name for name, _ in spans}, 1)}
        return [
            {
                "traceID": trace,
                "spans": [_span(trace, processes[name], span) for name, span in spans],
                "processes": {key: {"serviceName": name} for name, key in processes.items()},
            }
        ]


def _span(trace: str, process: str, span: Span) -> dict[str, Any]:
    parents = [{"refType": "CHILD_OF", "traceID": trace, "spanID": span.parent_span_id.hex()}]
    return {
        "traceID": trace,
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": parents if span.parent_span_id else [],
        "startTime": span.start_time_unix_nano // 1000,
        "duration": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        "tags": [{"key": k, "value": v} for k, v in _tags(span.attributes).items()],
        "processID": process,
    }


def _tags(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {
        a.key: str(getattr(a.value, a.value.WhichOneof("value") or "string_value"))
        for a in attributes
    }


def _serve_http(port: int, answer: _Answer) -> None:
    """Serve what `answer` makes of a path and its query: (content type, text), or None for 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            found = answer(url.path, {k: v[0] for k, v in parse_qs(url.query).items()})
            kind, text = found or ("text/plain", "not found")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of every scrape."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _query(traces: Traces, path: str, query: dict[str, str]) -> tuple[str, str] | None:
    if path == "/":
        return "text/plain", "a stand-in for Jaeger: GET /api/traces?service=&tags=&limit=\n"
    if path == "/api/traces":
        tags = json.loads(query.get("tags", "{}"))
        found = traces.find(query.get("service", ""), tags, int(query.get("limit", "20")))
    elif path.startswith("/api/traces/"):
        found = traces.get(path.removeprefix("/api/traces/"))
    else:
        return None
    return "application/json", json.dumps({"data": found})


def main(role: str) -> None:
    """Serve until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    if role == "collector":
        exposition = Exposition()
        trace_grpc.add_TraceServiceServicer_to_server(Forwarder(_JAEGER), server)
        metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(exposition), server)
        _serve_http(
            _METRICS_PORT,
            lambda path, _: (
                ("text/plain; version=0.0.4", exposition.text()) if path == "/metrics" else None
            ),
        )
    else:
        traces = Traces()
        trace_grpc.add_TraceServiceServicer_to_server(traces, server)
        _serve_http(_QUERY_PORT, lambda path, query: _query(traces, path, query))
    server.add_insecure_port(f"0.0.0.0:{_OTLP_PORT}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print(f"{role}: OTLP on {_OTLP_PORT}", flush=True)
    stop.wait()
    server.stop(1).wait()


if __name__ == "__main__":
    main(sys.argv[1])

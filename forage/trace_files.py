"""OTLP-JSON files: one line per exported batch, rotated so that the folder stays bounded.

The lines are the OTLP/JSON encoding of `ExportTraceServiceRequest` and
`ExportMetricsServiceRequest` (OpenTelemetry protocol file exporter), so collectors read them.
Spans are encoded here and not by `opentelemetry-exporter-otlp-json-file`, whose dataclasses cost
several times as much; metrics are few and use its encoder.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.exporter.otlp.json.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, StatusCode

_logger = logging.getLogger(__name__)

TRACES_SUFFIX = ".traces.jsonl"
METRICS_SUFFIX = ".metrics.jsonl"

_HAS_IS_REMOTE = 0x100
_IS_REMOTE = 0x200


class RotatingFile:
    """Appends whole lines to `path`; full files become `path.1`, `path.2`, … and then vanish.

    A line is one `write` to a descriptor opened for appending, so readers and other processes
    never see two lines mixed. A line torn by a crash or a full disk is closed off before the next.
    Not thread-safe: each exporter has its own lock.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_files: int) -> None:
        """Remember the limits; nothing is opened before the first line or `open`."""
        self.path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._descriptor: int | None = None
        self._inode = 0

    def open(self) -> None:
        """Make the folder and open the file; raises `OSError` if that is not possible."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._inode = found.st_ino
        if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
            os.write(descriptor, b"\n")

    def write(self, line: bytes) -> None:
        """Append `line`, which must not hold a newline; raises `OSError` and stays usable."""
        try:
            descriptor, size = self._current()
            if size and size + len(line) >= self._max_bytes:
                self._rotate()
                descriptor, _ = self._current()
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _current(self) -> tuple[int, int]:
        # The path may have been deleted, or rotated by another process of the same service.
        try:
            found = os.stat(self.path)
            size = found.st_size if found.st_ino == self._inode else None
        except FileNotFoundError:
            size = None
        if size is None:
            self.close()
        if self._descriptor is None:
            self.open()
        descriptor = self._descriptor
        assert descriptor is not None
        return descriptor, os.fstat(descriptor).st_size if size is None else size

    def _rotate(self) -> None:
        self.close()
        for number in range(self._max_files - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(rotated(self.path, number - 1), rotated(self.path, number))
        if self._max_files == 1:
            self.path.unlink()


def rotated(path: Path, number: int) -> Path:
    """Return the name of the `number`-th older file; 0 is the one being written."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


class _LineWriter:
    """Writes lines; on trouble says so once, drops the line, and tries again with the next."""

    def __init__(self, file: RotatingFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._troubled = False
        self._closed = False
        with self._lock:
            self._attempt(None)

    def write(self, line: bytes) -> bool:
        with self._lock:
            return not self._closed and self._attempt(line)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._file.close()

    def _attempt(self, line: bytes | None) -> bool:
        try:
            if line is None:
                self._file.open()
            else:
                self._file.write(line)
        except OSError as error:
            if not self._troubled:
                _logger.warning(
                    "telemetry: cannot write %s, going on without: %s", self._file.path, error
                )
            self._troubled = True
            return False
        self._troubled = False
        return True


class SpanFileExporter(SpanExporter):
    """Appends each batch of spans as one OTLP-JSON line."""

    def __init__(self, file: RotatingFile) -> None:
        """Open the file; a file that cannot be opened is logged and tried again later."""
        self._writer = _LineWriter(file)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the batch; a full disk is FAILURE, never an exception."""
        written = self._writer.write(encode_spans(spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the file."""
        self._writer.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: every batch is written when it is exported."""
        return True


class MetricFileExporter(MetricExporter):
    """Appends each collection of metrics as one OTLP-JSON line."""

    def __init__(self, file: RotatingFile) -> None:
        """Open the file; a file that cannot be opened is logged and tried again later."""
        super().__init__()
        self._writer = _LineWriter(file)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Write the collection; a full disk is FAILURE, never an exception."""
        line = orjson.dumps(encode_metrics(metrics_data).to_dict())
        return (
            MetricExportResult.SUCCESS if self._writer.write(line) else MetricExportResult.FAILURE
        )

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Close the file."""
        self._writer.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Do nothing: every collection is written when it is exported."""
        return True


def encode_spans(spans: Iterable[ReadableSpan]) -> bytes:
    """Return the OTLP-JSON of a batch, without a newline.

    Spans are grouped by resource; the scope is always Forage, so it is written once per resource.
    """
    resources: dict[int, tuple[Resource, list[dict[str, Any]]]] = {}
    for span in spans:
        resource = span.resource
        group = resources.get(id(resource))
        if group is None:
            group = resources[id(resource)] = (resource, [])
        group[1].append(_span(span))
    return orjson.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource.attributes)},
                    "scopeSpans": [{"scope": {"name": "forage"}, "spans": encoded}],
                }
                for resource, encoded in resources.values()
            ]
        }
    )


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    parent = span.parent
    encoded: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": _flags(parent),
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
    }
    if parent is not None:
        encoded["parentSpanId"] = f"{parent.span_id:016x}"
    if span.attributes:
        encoded["attributes"] = _attributes(span.attributes)
    if span.events:
        encoded["events"] = [
            {
                "name": event.name,
                "timeUnixNano": str(event.timestamp),
                "attributes": _attributes(event.attributes or {}),
            }
            for event in span.events
        ]
    if span.links:
        encoded["links"] = [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "flags": _flags(link.context),
                "attributes": _attributes(link.attributes or {}),
            }
            for link in span.links
        ]
    status = span.status
    if status.status_code is not StatusCode.UNSET:
        encoded["status"] = {"code": status.status_code.value, "message": status.description or ""}
    return encoded


def _flags(context: SpanContext | None) -> int:
    remote = context is not None and context.is_remote
    return _HAS_IS_REMOTE | _IS_REMOTE if remote else _HAS_IS_REMOTE


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": str(key), "value": _value(value)} for key, value in attributes.items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return {"arrayValue": {"values": [_value(element) for element in value]}}
    return {"stringValue": str(value)}


# Protobuf's JSON mapping has words for what JSON has no numbers for.
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

"""Reads traces back from the OTLP-JSON files of `forage.trace_files`, as a stream.

Lines are looked at as bytes first and decoded only if they can matter, so finding one trace among
gigabytes takes about as long as reading the files.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan

from forage.errors import InvalidArgumentError, NotFoundError, StorageError
from forage.signals import Attribute
from forage.trace_files import TRACES_SUFFIX, encode_spans, rotated

_logger = logging.getLogger(__name__)

MIN_PREFIX = 8
"""Hex digits of a trace id that are enough to look for it."""

_TAIL_BYTES = 4 * 2**20
_TRACE_ID = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},32}}")
_SERVICE_PREFIX = "forage-"
_KINDS = ("", "internal", "server", "client", "producer", "consumer")
_ERROR = 2

AttributeValue = str | bool | int | float | tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A span of another trace that this one follows from."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One finished span as read from a file; times are nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    name: str
    service: str
    """The short name: `lexical` for `service.name` `forage-lexical`."""
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue]
    error: bool
    links: tuple[Link, ...]

    @property
    def duration_ns(self) -> int:
        """How long it took; never negative."""
        return max(0, self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans of one trace that were found, by start time; never empty."""

    trace_id: str
    spans: tuple[SpanRecord, ...]

    @property
    def root(self) -> SpanRecord:
        """The first span without a parent, or the first span if its root was not exported."""
        return next((span for span in self.spans if not span.parent_id), self.spans[0])

    @property
    def start_ns(self) -> int:
        """When its first span began."""
        return self.spans[0].start_ns

    @property
    def services(self) -> tuple[str, ...]:
        """The services it passed, in order of appearance."""
        return tuple(dict.fromkeys(span.service for span in self.spans))

    @property
    def errors(self) -> int:
        """How many spans ended with an error."""
        return sum(span.error for span in self.spans)

    @property
    def request_id(self) -> str:
        """The search it belongs to, or empty."""
        ids = (span.attributes.get(Attribute.REQUEST_ID) for span in self.spans)
        return str(next((found for found in ids if found), ""))


def read_traces(directory: Path) -> Iterator[Trace]:
    """Yield every trace in all files, oldest first; holds all of them in memory."""
    yield from _assemble(_spans(_lines(directory)))


def latest_traces(directory: Path, limit: int = 10) -> list[Trace]:
    """Return the traces that began last, newest first; looks at the ends of the files only."""
    traces = list(_assemble(_spans(_lines(directory, tail_bytes=_TAIL_BYTES))))
    return traces[: -limit - 1 : -1]


def find_trace(directory: Path, wanted: str) -> Trace:
    """Return the trace with this trace id, unique prefix of one, or request id.

    Of several traces with one request id (a search and its feedback) it is the oldest. Raises
    `NotFoundError` if there is none, `InvalidArgumentError` if the id is empty or ambiguous,
    `StorageError` if a file cannot be read.
    """
    wanted = wanted.strip()
    if not wanted:
        raise InvalidArgumentError(
            "id", "is empty", allowed=f"a trace id or its first {MIN_PREFIX} digits, a request id"
        )
    prefix = wanted.lower()
    if _TRACE_ID.fullmatch(prefix):
        needle = f'"traceId":"{prefix}'.encode()
        spans = [s for s in _spans(_lines(directory, needle)) if s.trace_id.startswith(prefix)]
        found = {span.trace_id for span in spans}
        if len(found) > 1:
            some = ", ".join(sorted(found)[:3])
            raise InvalidArgumentError(
                "id", f"{len(found)} traces begin with {wanted}: {some}", allowed="more digits"
            )
        if found:
            return next(_assemble(spans))
    of_request = {
        span.trace_id: span.start_ns
        for span in _spans(_lines(directory, orjson.dumps(wanted)))
        if span.attributes.get(Attribute.REQUEST_ID) == wanted
    }
    if not of_request:
        raise NotFoundError(
            f"no trace or request '{wanted}' in {directory}; `forage trace` without an id lists the"
            " latest ones. Spans are written within a second; sampled-out and rotated-away traces"
            " are gone",
            metadata={"id": wanted},
        )
    trace_id = min(of_request, key=of_request.__getitem__)
    return find_trace(directory, trace_id)


def traces_of(spans: Iterable[ReadableSpan]) -> list[Trace]:
    """Return the traces of spans from an in-memory exporter, oldest first."""
    return list(_assemble(_spans([encode_spans(spans)])))


def edges(trace: Trace) -> set[tuple[str, str]]:
    """Return every (`service:span` of a parent, `service:span` of its child) in a trace."""
    by_id = {span.span_id: span for span in trace.spans}
    return {
        (f"{parent.service}:{parent.name}", f"{child.service}:{child.name}")
        for child in trace.spans
        if (parent := by_id.get(child.parent_id)) is not None
    }


def _assemble(spans: Iterable[SpanRecord]) -> Iterator[Trace]:
    by_trace: dict[str, dict[str, SpanRecord]] = defaultdict(dict)
    for span in spans:
        by_trace[span.trace_id][span.span_id] = span
    traces = [
        Trace(trace_id, tuple(sorted(found.values(), key=lambda s: (s.start_ns, -s.end_ns))))
        for trace_id, found in by_trace.items()
    ]
    yield from sorted(traces, key=lambda trace: (trace.start_ns, trace.trace_id))


def _lines(directory: Path, needle: bytes = b"", *, tail_bytes: int = 0) -> Iterator[bytes]:
    for current, oldest in sorted(_series(directory).items()):
        left = tail_bytes
        seen: set[int] = set()
        # Newest first, and one further than there was: a rotation meanwhile then shows a file
        # twice, which its inode tells, and never hides one.
        for number in range(oldest + 2):
            try:
                file = rotated(current, number).open("rb")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"cannot read {current}: {error}") from error
            with file:
                status = os.fstat(file.fileno())
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
                if tail_bytes and status.st_size > left:
                    file.seek(status.st_size - left)
                    file.readline()
                yield from (line for line in file if needle in line)
            left -= status.st_size
            if tail_bytes and left <= 0:
                break


def _series(directory: Path) -> dict[Path, int]:
    """Return the trace file of every service, and the number of its oldest rotated one."""
    series: dict[Path, int] = {}
    for path in directory.glob(f"*{TRACES_SUFFIX}*"):
        service, _, number = path.name.partition(TRACES_SUFFIX)
        if not number or re.fullmatch(r"\.[0-9]+", number):
            current = directory / f"{service}{TRACES_SUFFIX}"
            series[current] = max(series.get(current, 0), int(number[1:] or 0))
    return series


def _spans(lines: Iterable[bytes]) -> Iterator[SpanRecord]:
    for line in lines:
        try:
            batch = orjson.loads(line)
            spans = [
                _record(span, service)
                for group in batch["resourceSpans"]
                for service in [_service(group)]
                for scope in group["scopeSpans"]
                for span in scope["spans"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            # The line being written now, or one that a crash tore.
            _logger.debug("skipping %d bytes that are not OTLP-JSON: %s", len(line), error)
            continue
        yield from spans


def _service(group: Mapping[str, Any]) -> str:
    name = _attributes(group["resource"].get("attributes", ())).get("service.name", "unknown")
    return str(name).removeprefix(_SERVICE_PREFIX)


def _record(span: Mapping[str, Any], service: str) -> SpanRecord:
    return SpanRecord(
        trace_id=span["traceId"].lower(),
        span_id=span["spanId"].lower(),
        parent_id=span.get("parentSpanId", "").lower(),
        name=str(span["name"]),
        service=service,
        kind=_KINDS[int(span.get("kind", 0))],
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        attributes=_attributes(span.get("attributes", ())),
        error=span.get("status", {}).get("code") == _ERROR,
        links=tuple(
            Link(link["traceId"].lower(), link["spanId"].lower()) for link in span.get("links", ())
        ),
    )


def _attributes(encoded: Sequence[Mapping[str, Any]]) -> dict[str, AttributeValue]:
    return {entry["key"]: _value(entry["value"]) for entry in encoded}


def _value(encoded: Mapping[str, Any]) -> AttributeValue:
    for kind, value in encoded.items():
        if kind == "intValue":
            return int(value)
        if kind == "doubleValue":
            return float(value)
        if kind == "arrayValue":
            return tuple(_value(element) for element in value.get("values", ()))
        if kind == "boolValue":
            return bool(value)
        return str(value)
    return ""

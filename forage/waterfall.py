"""Draws one trace as a waterfall for the terminal: who called whom, when, and for how long."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from forage.signals import Attribute
from forage.trace_reader import (
    SpanRecord,
    Trace,
    edges,
    find_trace,
    latest_traces,
    read_traces,
    traces_of,
)

__all__ = [
    "Row",
    "Waterfall",
    "draw",
    "edges",
    "find_trace",
    "latest_traces",
    "layout",
    "read_traces",
    "traces_of",
]

_MIN_WIDTH = 60
_DURATION_WIDTH = 10
_SERVICE_WIDTH = 12
_MAX_INDENT = 8
_ATTRIBUTE_PREFIX = "forage."
_STATUS_CODE = "rpc.grpc.status_code"
# Shown once in the header, so not again on every line.
_IN_HEADER = frozenset({Attribute.REQUEST_ID.value})
_COLOURS = {"server": "cyan", "client": "blue", "internal": "green"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the waterfall: a span, or the place of a parent that was not found."""

    depth: int
    span: SpanRecord | None
    missing_parent: str
    """The id of the parent that was not found, if this row stands for it; else empty."""
    shift_ns: int
    """Added to the span's times to undo the clock skew between its host and its parent's."""


def layout(trace: Trace) -> list[Row]:
    """Return the rows of a trace, parents before children, siblings by start time.

    Every span has exactly one row, whatever the data: spans whose parent is missing hang below a
    row that says so, and spans that are their own ancestors stand alone.
    """
    ids = {span.span_id for span in trace.spans}
    children: dict[str, list[SpanRecord]] = defaultdict(list)
    for span in trace.spans:
        children[span.parent_id].append(span)
    placed: set[str] = set()
    rows: list[Row] = []
    for span in trace.spans:
        if span.parent_id in ids or span.span_id in placed:
            continue
        if not span.parent_id:
            rows += _subtree(span, 0, children, placed)
            continue
        rows.append(Row(0, None, span.parent_id, 0))
        for orphan in children[span.parent_id]:
            rows += _subtree(orphan, 1, children, placed)
    for span in trace.spans:
        if span.span_id not in placed:
            rows += _subtree(span, 0, children, placed)
    return rows


def _subtree(
    root: SpanRecord, depth: int, children: dict[str, list[SpanRecord]], placed: set[str]
) -> Iterator[Row]:
    # A list of what is left, not recursion: a chain may be deeper than Python's stack.
    left: list[tuple[SpanRecord, int, SpanRecord | None, int]] = [(root, depth, None, 0)]
    while left:
        span, level, parent, inherited = left.pop()
        if span.span_id in placed:
            continue
        placed.add(span.span_id)
        shift = inherited if parent is None else _shift(span, parent, inherited)
        yield Row(level, span, "", shift)
        below = sorted(children[span.span_id], key=lambda s: s.start_ns, reverse=True)
        left += [(child, level + 1, span, shift) for child in below]


def _shift(span: SpanRecord, parent: SpanRecord, inherited: int) -> int:
    """Centre a span that would begin outside its parent, if another service's clock timed it.

    A span that only ends after its parent is left alone: its caller may have given up on it.
    """
    if span.service == parent.service or parent.start_ns <= span.start_ns <= parent.end_ns:
        return inherited
    slack = max(0, parent.duration_ns - span.duration_ns)
    return inherited + parent.start_ns + slack // 2 - span.start_ns


def draw(trace: Trace, width: int = 0) -> Waterfall:
    """Return the waterfall of a trace; `width` in columns, 0 for the width of the terminal."""
    return Waterfall(trace, width)


class Waterfall:
    """A trace as a rich renderable; needs no colour, and no more than ASCII if there is none."""

    def __init__(self, trace: Trace, width: int = 0) -> None:
        self.trace = trace
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a header, then a line per span, with its attributes on the next."""
        width = max(_MIN_WIDTH, self.width or options.max_width)
        rows = layout(self.trace)
        axis = _Axis.of(rows, ascii_only=options.ascii_only)
        lines = [*_header(self.trace, axis)]
        for row in rows:
            lines.append(_line(row, axis, width))
            indent = " " * (_SERVICE_WIDTH + 5 + 2 * min(row.depth, _MAX_INDENT))
            lines += [
                Text(part, style="dim")
                for part in textwrap.wrap(
                    _notes(row), width, initial_indent=indent, subsequent_indent=indent
                )
            ]
        for line in lines:
            yield _fit(line, width, ascii_only=options.ascii_only)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The time axis: nanoseconds to columns."""

    start_ns: int
    length_ns: int
    ascii_only: bool

    @classmethod
    def of(cls, rows: list[Row], *, ascii_only: bool) -> _Axis:
        timed = [(row.span, row.shift_ns) for row in rows if row.span is not None]
        start = min(span.start_ns + shift for span, shift in timed)
        end = max(span.start_ns + span.duration_ns + shift for span, shift in timed)
        return cls(start, max(1, end - start), ascii_only)

    def bar(self, row: Row, columns: int) -> str:
        """Draw a span: at least one cell, in eighths of a cell where the font has them."""
        assert row.span is not None
        begin = (row.span.start_ns + row.shift_ns - self.start_ns) / self.length_ns * columns
        end = begin + row.span.duration_ns / self.length_ns * columns
        first = min(int(begin), columns - 1)
        cells = max(1, min(columns, round(end)) - first)
        if self.ascii_only:
            return (" " * first + "#" * cells).ljust(columns)
        if end - begin < 1:
            return (" " * first + "▏▎▍▌▋▊▉█"[min(7, int((end - begin) * 8))]).ljust(columns)
        return (" " * first + "█" * cells).ljust(columns)


def _header(trace: Trace, axis: _Axis) -> Iterator[Text]:
    parts = [
        _duration(axis.length_ns),
        _count(len(trace.spans), "span"),
        _count(len(trace.services), "service"),
    ]
    if trace.errors:
        parts.append(_count(trace.errors, "error"))
    yield Text(f"trace {trace.trace_id}  {', '.join(parts)}", style="bold")
    if trace.request_id:
        yield Text(f"request {_printable(trace.request_id)}", style="bold")


def _line(row: Row, axis: _Axis, width: int) -> Text:
    indent = "  " * min(row.depth, _MAX_INDENT)
    if row.span is None:
        note = f"(parent {_printable(row.missing_parent)} is missing)"
        return Text(f"{'':{_SERVICE_WIDTH}} {indent}{note}", style="yellow")
    span = row.span
    name_width = max(20, (width - _SERVICE_WIDTH - _DURATION_WIDTH - 3) // 2)
    bar_width = width - _SERVICE_WIDTH - _DURATION_WIDTH - 3 - name_width
    colour = "red" if span.error else _COLOURS.get(span.kind, "white")
    line = Text().append_text(_cell(Text(_printable(span.service), style="dim"), _SERVICE_WIDTH))
    mark = "! " if span.error else ""
    name = f"{indent}{mark}{_printable(span.name).removeprefix('forage.v1.')}"
    line.append(" ").append_text(
        _cell(Text(name, style="bold red" if span.error else ""), name_width)
    )
    line.append(" ").append(axis.bar(row, bar_width), style=colour)
    return line.append(f" {_duration(span.duration_ns):>{_DURATION_WIDTH}}")


def _notes(row: Row) -> str:
    if row.span is None:
        return ""
    span = row.span
    notes = [
        f"{key.removeprefix(_ATTRIBUTE_PREFIX)}={_printable(value)}"
        for key, value in span.attributes.items()
        if key.startswith(_ATTRIBUTE_PREFIX) and key not in _IN_HEADER
    ]
    if span.attributes.get(_STATUS_CODE):
        notes.insert(0, f"grpc_status={span.attributes[_STATUS_CODE]}")
    if Attribute.ERROR_TYPE in span.attributes:
        notes.insert(0, f"error={_printable(span.attributes[Attribute.ERROR_TYPE])}")
    notes += [f"-> trace {_printable(link.trace_id)}" for link in span.links]
    if row.shift_ns:
        notes.append(f"clock skew corrected by {_duration(abs(row.shift_ns))}")
    return " ".join(notes)


def _printable(value: object) -> str:
    """Return text that cannot move the cursor or change colours, whatever the file holds."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _cell(text: Text, columns: int) -> Text:
    text.truncate(columns, pad=True, overflow="crop")
    return text


def _fit(text: Text, columns: int, *, ascii_only: bool) -> Text:
    if ascii_only:
        text.plain = text.plain.encode("ascii", "replace").decode()
    text.truncate(columns, overflow="crop")
    text.no_wrap = True
    text.overflow = "crop"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(nanoseconds: int) -> str:
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.0f} us"
    if nanoseconds < 10_000_000_000:
        return f"{nanoseconds / 1e6:.2f} ms"
    return f"{nanoseconds / 1e9:.1f} s"

"""Traces read back from files, found by id, and drawn."""

import io
import random
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link
from rich.console import Console

from forage.errors import InvalidArgumentError, NotFoundError
from forage.settings import TelemetrySettings
from forage.telemetry import Attribute, Span, Telemetry
from forage.trace_reader import SpanRecord, Trace
from forage.waterfall import (
    draw,
    edges,
    find_trace,
    latest_traces,
    layout,
    read_traces,
    traces_of,
)

MS = 1_000_000
BASE = 1_800_000_000_000 * MS


def span(
    span_id: str,
    parent_id: str = "",
    *,
    name: str = "plan",
    service: str = "orchestrator",
    start: float = 0,
    end: float = 10,
    error: bool = False,
) -> SpanRecord:
    """Make a span; times in milliseconds."""
    return SpanRecord(
        trace_id="ab" * 16,
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        service=service,
        kind="internal",
        start_ns=BASE + int(start * MS),
        end_ns=BASE + int(end * MS),
        attributes={},
        error=error,
        links=(),
    )


def trace(*spans: SpanRecord) -> Trace:
    return Trace("ab" * 16, tuple(sorted(spans, key=lambda s: s.start_ns)))


def drawn(found: Trace, width: int = 80, *, encoding: str = "utf-8", colour: bool = False) -> str:
    output = io.BytesIO()
    file = io.TextIOWrapper(output, encoding=encoding)
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
    )
    console.print(draw(found))
    file.flush()
    return output.getvalue().decode(encoding)


def search(telemetry: Telemetry, request_id: str) -> str:
    """Record a small search and return its trace id."""
    with telemetry.tracer.start_as_current_span(
        "forage.v1.SearchService/Search", attributes={Attribute.REQUEST_ID: request_id}
    ) as root:
        with telemetry.tracer.start_as_current_span(Span.PLAN):
            pass
        with telemetry.tracer.start_as_current_span(
            Span.RETRIEVE, attributes={Attribute.GENERATOR: "lexical", Attribute.FAN_OUT: 25}
        ):
            pass
    return format(root.get_span_context().trace_id, "032x")


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[str]]:
    """Return a folder of files that rotated often, and the ids of the searches in it."""
    settings = TelemetrySettings(max_file_bytes=2**16, max_files=20)
    telemetry = Telemetry.start("orchestrator", settings, tmp_path)
    ids = []
    for number in range(300):
        ids.append(search(telemetry, f"request-{number}"))
        if number % 20 == 0:
            telemetry.flush()
    telemetry.shutdown()
    assert len(list(tmp_path.glob("*.traces.jsonl*"))) > 2
    return tmp_path, ids


def test_every_trace_is_read_from_all_files_oldest_first(written: tuple[Path, list[str]]) -> None:
    directory, ids = written

    traces = list(read_traces(directory))

    assert [t.trace_id for t in traces] == ids
    assert all(len(t.spans) == 3 for t in traces)
    assert edges(traces[0]) == {
        ("orchestrator:forage.v1.SearchService/Search", "orchestrator:plan"),
        ("orchestrator:forage.v1.SearchService/Search", "orchestrator:retrieve"),
    }


@pytest.mark.parametrize("number", [0, 150, 299])
def test_a_trace_is_found_by_id_prefix_and_request_id(
    written: tuple[Path, list[str]], number: int
) -> None:
    directory, ids = written

    found = [
        find_trace(directory, wanted)
        for wanted in (ids[number], ids[number][:12].upper(), f"request-{number}")
    ]

    assert {t.trace_id for t in found} == {ids[number]}
    assert {len(t.spans) for t in found} == {3}
    assert found[0].request_id == f"request-{number}"


def test_the_latest_traces_come_newest_first(written: tuple[Path, list[str]]) -> None:
    directory, ids = written

    assert [t.trace_id for t in latest_traces(directory, 3)] == ids[:-4:-1]


@pytest.mark.parametrize("wanted", ["request-300", "0" * 32, "request", "abc", "\x00", '"', "日本"])
def test_an_unknown_id_is_not_found_and_says_what_to_do(
    written: tuple[Path, list[str]], wanted: str
) -> None:
    with pytest.raises(NotFoundError, match="forage trace"):
        find_trace(written[0], wanted)


def test_an_empty_id_an_ambiguous_one_and_an_empty_folder_are_clear_errors(tmp_path: Path) -> None:
    line = traces_line("0123456789" + "0" * 22) + traces_line("0123456789" + "1" * 22)
    (tmp_path / "x.traces.jsonl").write_bytes(line)

    with pytest.raises(InvalidArgumentError, match="more digits"):
        find_trace(tmp_path, "0123456789")
    with pytest.raises(InvalidArgumentError, match="empty"):
        find_trace(tmp_path, " ")
    with pytest.raises(NotFoundError):
        find_trace(tmp_path / "nowhere", "0123456789")


def traces_line(trace_id: str) -> bytes:
    encoded = {
        "traceId": trace_id,
        "spanId": "00000000000000aa",
        "name": "x",
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
    }
    group = {"resource": {}, "scopeSpans": [{"spans": [encoded]}]}
    return orjson.dumps({"resourceSpans": [group]}) + b"\n"


@given(cut=st.integers(1, 150), junk=st.binary(max_size=30))
def test_torn_and_foreign_lines_are_skipped(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    directory = tmp_path_factory.mktemp("torn")
    whole = traces_line("ab" * 16)
    foreign = b'\n[]\n{"resourceSpans":[1]}\n' + junk.replace(b"\n", b"") + b"\n"
    (directory / "x.traces.jsonl").write_bytes(foreign + whole + whole[:-cut])

    (found,) = read_traces(directory)

    assert found.trace_id == "ab" * 16


def test_rows_are_a_tree_in_time_order() -> None:
    found = trace(
        span("1", end=20, name="search"),
        span("2", "1", start=1, end=2),
        span("3", "1", start=3, end=9, name="fan_out"),
        span("5", "3", start=5, end=6, name="b"),
        span("4", "3", start=4, end=8, name="a"),
    )

    rows = [(row.depth, row.span.name if row.span else "") for row in layout(found)]

    assert rows == [(0, "search"), (1, "plan"), (1, "fan_out"), (2, "a"), (2, "b")]


def test_a_missing_parent_is_shown_as_such_with_its_children_below() -> None:
    found = trace(span("1"), span("2", "dead"), span("3", "dead"))

    rows = layout(found)

    assert [(row.depth, row.missing_parent) for row in rows if row.span is None] == [(0, "dead")]
    assert sorted(row.span.span_id for row in rows if row.span and row.depth == 1) == ["2", "3"]
    assert "(parent dead is missing)" in drawn(found)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=15),
    st.randoms(),
)
def test_every_span_has_one_row_whatever_the_parents(
    pairs: list[tuple[int, int]], shuffle: random.Random
) -> None:
    spans = {str(own): span(str(own), str(parent), start=own) for own, parent in pairs}
    found = trace(*spans.values())

    rows = layout(found)

    assert sorted(row.span.span_id for row in rows if row.span) == sorted(spans)
    assert drawn(found)


def test_a_deep_chain_does_not_exhaust_the_stack() -> None:
    found = trace(*(span(str(n), str(n - 1) if n else "", start=n / 1e3) for n in range(5_000)))

    assert layout(found)[-1].depth == 4_999


def test_a_clock_that_runs_ahead_is_corrected_for_the_whole_service() -> None:
    found = trace(
        span("1", end=10),
        span("2", "1", service="lexical", start=5_000, end=5_004),
        span("3", "2", service="lexical", start=5_001, end=5_002),
    )

    shifts = {row.span.span_id: row.shift_ns for row in layout(found) if row.span}

    assert shifts == {"1": 0, "2": -4_997 * MS, "3": -4_997 * MS}
    assert "clock skew corrected" in drawn(found)
    assert "10.00 ms, 3 spans" in drawn(found)


def test_work_that_outlives_its_caller_is_not_mistaken_for_skew() -> None:
    found = trace(span("1", end=10), span("2", "1", service="lexical", start=2, end=30))

    assert [row.shift_ns for row in layout(found)] == [0, 0]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal(width: int, encoding: str) -> None:
    found = trace(
        span("1", end=20, name="forage.v1.SearchService/Search"),
        span("2", "1", start=19.99, end=20, name="x" * 300, service="a-long-service-name"),
        replace(span("3", "2"), attributes={Attribute.OUTCOME: "日本 " * 60}),
    )

    text = drawn(found, width, encoding=encoding)

    assert max(len(line) for line in text.splitlines()) <= max(60, width)


def test_errors_are_marked_without_colour_and_red_with_it() -> None:
    found = trace(span("1"), span("2", "1", error=True, name="retrieve"))

    assert "! retrieve" in drawn(found)
    assert "1 error" in drawn(found)
    assert "\x1b[" not in drawn(found)
    assert "\x1b[1;31m" in drawn(found, colour=True)


def test_control_characters_never_reach_the_terminal() -> None:
    found = trace(span("1", name="\x1b[2Jplan\r\n", service="\x9bx"))

    text = drawn(found)

    assert not {"\x1b", "\r", "\x9b"} & set(text)


def test_a_bar_stands_where_the_span_was() -> None:
    found = trace(span("1", end=100), span("2", "1", start=50, end=100))

    (line,) = [row for row in drawn(found).splitlines() if "  plan" in row]
    (root,) = [row for row in drawn(found).splitlines() if " plan" in row and "  plan" not in row]
    assert root.count("█") == pytest.approx(2 * line.count("█"), abs=1)
    assert line.index("█") > root.index("█")
    assert "50.00 ms" in line


@pytest.mark.parametrize(("share", "bar"), [(0.05, "▏"), (0.3, "▍"), (0.55, "▋"), (0.95, "█")])
def test_a_span_shorter_than_a_cell_is_drawn_in_eighths_of_one(share: float, bar: str) -> None:
    whole = drawn(trace(span("1", end=1_000_000)))
    cells = whole.count("█")
    short = span("2", "1", start=0, end=share * 1_000_000 / cells)

    (line,) = [
        r for r in drawn(trace(span("1", end=1_000_000), short)).splitlines() if "  plan" in r
    ]

    assert [c for c in line if c in "▏▎▍▌▋▊▉█"] == [bar]


def test_a_link_names_the_trace_it_leads_to() -> None:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("orchestrator", exporter)
    with telemetry.tracer.start_as_current_span("search") as searched:
        pass
    with telemetry.tracer.start_as_current_span(
        Span.RECORD_FEEDBACK, links=[Link(searched.get_span_context())]
    ):
        pass

    search_trace, feedback_trace = traces_of(exporter.get_finished_spans())

    assert f"-> trace {search_trace.trace_id}" in drawn(feedback_trace)

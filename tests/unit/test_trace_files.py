"""Traces and metrics in files: encoded as the reference does, rotated whole, trouble survived."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.json.common.trace_encoder import (
    encode_spans as reference_encode_spans,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

from forage.settings import TelemetrySettings
from forage.telemetry import Attribute, Metric, Span, Telemetry
from forage.trace_files import RotatingFile, encode_spans
from forage.trace_reader import read_traces


def test_files_hold_every_span_after_shutdown_and_metrics_too(tmp_path: Path) -> None:
    telemetry = Telemetry.start("ranker", TelemetrySettings(), tmp_path / "telemetry")

    with telemetry.tracer.start_as_current_span(Span.RANK):
        for _ in range(500):
            with telemetry.tracer.start_as_current_span(Span.PREDICT):
                pass
    telemetry.instruments.projection_lag(7, projection="memory")
    telemetry.shutdown()

    (found,) = read_traces(tmp_path / "telemetry")
    assert len(found.spans) == 501
    metrics = (tmp_path / "telemetry" / "ranker.metrics.jsonl").read_bytes().splitlines()
    assert Metric.PROJECTION_LAG.encode() in metrics[-1]
    resource = orjson.loads(metrics[-1])["resourceMetrics"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "forage-ranker"}} in resource


def test_a_folder_that_cannot_be_written_is_said_once_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = tmp_path / "telemetry"
    occupied.write_text("a file, not a folder")

    telemetry = Telemetry.start("ranker", TelemetrySettings(), occupied)
    for _ in range(3):
        with telemetry.tracer.start_as_current_span(Span.RANK):
            pass
        telemetry.flush()
    telemetry.shutdown()

    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len([m for m in said if "ranker.traces.jsonl" in m]) == 1
    assert len([m for m in said if "ranker.metrics.jsonl" in m]) == 1


def test_a_folder_that_becomes_writable_is_written(tmp_path: Path) -> None:
    occupied = tmp_path / "telemetry"
    occupied.write_text("a file, not a folder")
    telemetry = Telemetry.start("ranker", TelemetrySettings(), occupied)
    occupied.unlink()

    with telemetry.tracer.start_as_current_span(Span.RANK):
        pass
    telemetry.shutdown()

    assert len(list(read_traces(occupied))) == 1


attribute_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers(0, 9), max_size=3),
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), attribute_values, max_size=4
    )
)
def test_spans_are_encoded_as_the_reference_encoder_does(attributes: dict[str, object]) -> None:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry.in_memory("lexical", exporter)
    with telemetry.tracer.start_as_current_span(Span.RECORD_FEEDBACK) as parent:
        link = Link(parent.get_span_context(), {Attribute.OUTCOME: "accepted"})
        child = telemetry.tracer.start_span(
            "child", kind=SpanKind.CLIENT, attributes=attributes, links=[link]
        )
        child.add_event("retried", {"attempt": 2})
        child.set_status(StatusCode.ERROR)
        child.end()

    ours = orjson.loads(encode_spans(exporter.get_finished_spans()))
    reference = reference_encode_spans(exporter.get_finished_spans()).to_dict()

    assert without_defaults(ours) == without_defaults(reference)


def without_defaults(value: object) -> object:
    """Drop what proto3 JSON may leave out: empty lists, objects and strings of span fields."""
    if isinstance(value, list):
        return [without_defaults(element) for element in value]
    if isinstance(value, dict):
        cleaned = {key: without_defaults(element) for key, element in value.items()}
        return {
            key: element
            for key, element in cleaned.items()
            if element not in ([], {}) and not (element == "" and key == "message")
        }
    return value


@given(
    st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b), max_size=40),
    st.integers(20, 100),
    st.integers(1, 4),
)
def test_rotation_keeps_the_newest_lines_whole_and_the_folder_bounded(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], max_bytes: int, max_files: int
) -> None:
    path = tmp_path_factory.mktemp("rotation") / "x.traces.jsonl"
    file = RotatingFile(path, max_bytes=max_bytes, max_files=max_files)

    for line in lines:
        file.write(line)
    file.close()

    kept = [path.with_name(f"{path.name}.{n}") for n in range(max_files, 0, -1)] + [path]
    found = [line for p in kept if p.exists() for line in p.read_bytes().split(b"\n")[:-1]]
    assert found == lines[len(lines) - len(found) :]
    assert bool(found) == bool(lines)
    assert len(list(path.parent.iterdir())) <= max_files
    assert all(p.stat().st_size <= max(max_bytes, 41) for p in path.parent.iterdir())


def test_a_torn_last_line_is_closed_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.traces.jsonl"
    path.write_bytes(b'{"whole":1}\n{"torn')
    file = RotatingFile(path, max_bytes=1_000, max_files=2)

    file.write(b'{"next":1}')
    file.close()

    assert path.read_bytes() == b'{"whole":1}\n{"torn\n{"next":1}\n'


def test_a_deleted_or_rotated_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.traces.jsonl"
    file = RotatingFile(path, max_bytes=1_000, max_files=2)
    file.write(b"1")
    path.rename(tmp_path / "x.traces.jsonl.1")

    file.write(b"2")
    path.unlink()
    file.write(b"3")
    file.close()

    assert path.read_bytes() == b"3\n"

"""`forage trace`: the latest traces, or one of them as a waterfall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forage.cli.terminal import DATA, AsJson, Data, console, print_json

if TYPE_CHECKING:
    from forage.trace_reader import Trace

_LOOKED_AT = 10_000


def trace(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Request id, trace id, or the beginning of one."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many to list.")] = 10,
    everything: Annotated[
        bool, typer.Option("--all", help="List status calls and the like, too.")
    ] = False,
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Draw one trace as a waterfall, or list the latest searches and feedback."""
    from forage.waterfall import draw, find_trace, latest_traces

    directory = data / "telemetry"
    if wanted is not None:
        found = find_trace(directory, wanted)
        if as_json:
            print_json(_summary(found) | {"spans": _spans(found)})
        else:
            console().print(draw(found))
        return
    traces = [t for t in latest_traces(directory, _LOOKED_AT) if everything or _is_of_users(t)]
    traces = traces[:limit]
    if as_json:
        print_json([_summary(t) for t in traces])
    elif not traces:
        typer.echo(f"no traces in {directory} yet; make one with: forage search TEXT")
    else:
        _print(traces)


def _is_of_users(found: Trace) -> bool:
    return bool(found.request_id) or found.root.name.endswith(("/Search", "/RecordFeedback"))


def _summary(found: Trace) -> dict[str, object]:
    end = max(span.end_ns for span in found.spans)
    return {
        "trace_id": found.trace_id,
        "request_id": found.request_id,
        "root": found.root.name,
        "start_ns": found.start_ns,
        "milliseconds": (end - found.start_ns) / 1e6,
        "services": list(found.services),
        "errors": found.errors,
    }


def _spans(found: Trace) -> list[dict[str, object]]:
    return [
        {
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "service": span.service,
            "name": span.name,
            "start_ns": span.start_ns,
            "end_ns": span.end_ns,
            "attributes": dict(span.attributes),
        }
        for span in found.spans
    ]


def _print(traces: list[Trace]) -> None:
    from rich.table import Table

    table = Table("trace", "request", "root", "ms", "spans", "services", "errors")
    for found in traces:
        row = _summary(found)
        table.add_row(
            found.trace_id[:16],
            found.request_id,
            str(row["root"]),
            f"{row['milliseconds']:.1f}",
            str(len(found.spans)),
            " ".join(found.services),
            str(found.errors or ""),
        )
    console().print(table)
    typer.echo(f"next: forage trace {traces[0].trace_id[:16]}")

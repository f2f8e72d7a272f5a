"""`forage status`: every service, how far it has followed the log, and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from forage.cli.terminal import (
    ADDRESS,
    Address,
    AsJson,
    connect,
    console,
    message_to_json,
    print_json,
)

if TYPE_CHECKING:
    from forage.client import IngestStatus

_FAILED = 1


def status(address: Address = ADDRESS, as_json: AsJson = False) -> None:
    """Show the services, whether they answer, how far they lag behind the log, and their memory.

    Exit status: 0 all serve, 1 some do not.
    """
    with connect(address) as client:
        found = client.ingest_status()
    if as_json:
        print_json(message_to_json(found.proto))
    else:
        _print(found)
    away = [s.service for s in found.services if s.error or not s.ready]
    if away:
        typer.echo(f"not serving: {', '.join(away)}", err=True)
        raise typer.Exit(_FAILED)


def _print(found: IngestStatus) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("service", "state", "projection", "applied", "lag", "entries", "memory")
    for service in found.services:
        if service.error:
            table.add_row(service.service, Text("unreachable", "red"), Text(service.error, "red"))
            continue
        state = Text("serving", "green") if service.ready else Text("catching up", "yellow")
        memory = f"{service.resident_bytes / 2**20:.0f} MiB" if service.resident_bytes else ""
        first = (service.service, state, memory)
        for p in service.projections:
            lag = p.head_sequence - p.applied_sequence
            name = Text(f"{p.name}: {p.last_error}", "red") if p.last_error else Text(p.name)
            table.add_row(
                first[0],
                first[1],
                name,
                f"{p.applied_sequence:,}",
                Text(f"{lag:,}", "yellow" if lag else ""),
                f"{p.entries:,}",
                first[2],
            )
            first = ("", Text(""), "")
        if not service.projections:
            table.add_row(first[0], first[1], "", "", "", "", first[2])
    out = console()
    out.print(table)
    total = sum(s.resident_bytes for s in found.services) / 2**20
    out.print(
        f"log: catalog {found.catalog_head:,}, interactions {found.interactions_head:,};"
        f" memory of all services {total:,.0f} MiB"
    )

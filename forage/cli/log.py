"""`forage log`: the event log itself, without any service."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forage.cli.progress import Bars
from forage.cli.terminal import AsJson, console, print_json, settings_flags

if TYPE_CHECKING:
    from forage.log.copying import CopiedTopic
    from forage.log.engines import Storage
    from forage.settings import NatsSettings

app = typer.Typer(help="Copy the event log to another engine.", no_args_is_help=True)
_Url = Annotated[str, typer.Argument(help="sqlite:FILE, nats://HOST:PORT or tls://HOST:PORT.")]
_INTERRUPTED = 130


@app.callback()
def log() -> None:
    """Work with the event log itself, while no service uses it."""


@app.command()
def copy(
    source: _Url,
    target: _Url,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a value, such as nats.replicas=3."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy log and registry from one engine to another, and verify that they are the same.

    Stop all services first: they go on where they were. With sqlite:FILE the registry is the
    folder of that name beside the file. An interrupted copy goes on when it is started again.
    Both ends use the same nats.* settings; secrets come from the environment, such as
    FORAGE_LOG__NATS__PASSWORD.
    """
    from forage.errors import InvalidArgumentError
    from forage.log.copying import copy_log, copy_registry
    from forage.settings import ServiceSettings, load

    if source == target:
        raise InvalidArgumentError("TARGET", "it is the source", allowed="another log")
    settings = load("log", ServiceSettings, flags=settings_flags(assignments or [])).settings
    with ExitStack() as opened:
        reading = _open(source, settings.nats, source=True)
        opened.callback(reading.close)
        writing = _open(target, settings.nats, source=False)
        opened.callback(writing.close)
        bars = opened.enter_context(Bars())
        try:
            copied = copy_log(reading.log, writing.log, on_progress=bars.show)
            kinds = copy_registry(reading.registry, writing.registry, on_progress=bars.show)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on from here", err=True)
            raise typer.Exit(_INTERRUPTED) from None
    _print(copied, kinds, as_json)


def _open(url: str, nats: NatsSettings, *, source: bool) -> Storage:
    from forage.errors import StartupError
    from forage.log.engines import open_storage
    from forage.settings import ServiceSettings

    scheme, _, rest = url.partition(":")
    file = Path(rest)
    if scheme == "sqlite" and rest:
        if source and not file.is_file():
            raise StartupError(f"SOURCE: there is no file {file}")
        url = f"sqlite:{file.name}"
    return open_storage(ServiceSettings(log_url=url, data_dir=file.parent, nats=nats))


def _print(copied: list[CopiedTopic], kinds: dict[str, int], as_json: bool) -> None:
    if as_json:
        topics = {
            c.topic: {
                "head": c.head,
                "resumed_at": c.resumed_at,
                "records": c.content.counts,
                "sha256": c.content.digest,
            }
            for c in copied
        }
        print_json({"log": topics, "registry": kinds})
        return
    from rich.table import Table

    table = Table("topic", "records", "last sequence", "already there")
    table.add_column("SHA-256, equal in both", no_wrap=True, min_width=16)
    for each in copied:
        records = ", ".join(f"{count:,} {name}" for name, count in each.content.counts.items())
        table.add_row(
            each.topic, records, f"{each.head:,}", f"{each.resumed_at:,}", each.content.digest[:16]
        )
    console().print(table)
    for kind, count in kinds.items():
        typer.echo(f"registry: {count} versions of {kind}")

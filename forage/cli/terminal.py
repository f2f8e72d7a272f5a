"""What all commands share: their common options, the client they call with, and their output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

    from forage.client import Client

Address = Annotated[
    str, typer.Option("--address", envvar="FORAGE_ADDRESS", help="Host and port of the server.")
]
ADDRESS = "127.0.0.1:7100"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Data = Annotated[
    Path, typer.Option("--data", envvar="FORAGE_DATA", help="Data folder of the services.")
]
DATA = Path("data")
_PLAIN_WIDTH = 120


def connect(address: str, *, timeout_s: float = 10.0) -> Client:
    """Return a client that gives a server that does not answer a second to appear."""
    from forage.client import Client, Retry

    return Client(address, timeout_s=timeout_s, retry=Retry(for_s=1.0))


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes catalogue text literally; wide when nobody's screen is."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stderr, markup=False, highlight=False, width=None if known else _PLAIN_WIDTH
    )


def print_json(data: object) -> None:
    """Print data as JSON on stdout."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


def message_to_json(message: Message) -> dict[str, Any]:
    """Return a message as JSON data, with the field names of the proto files."""
    from google.protobuf.json_format import MessageToDict

    data: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return data


def settings_flags(assignments: list[str]) -> dict[str, Any]:
    """Read `a.b=value` assignments, whose values are YAML, as `forage.settings.load` takes them."""
    import yaml

    flags = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"'{assignment}' is not NAME=VALUE", param_hint="--set")
        try:
            flags[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{name}: {error}", param_hint="--set") from error
    return flags

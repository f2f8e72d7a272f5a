"""`forage check-config`: the effective settings, and where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forage.cli.terminal import AsJson, console, print_json, settings_flags

if TYPE_CHECKING:
    from forage.settings import Loaded


def check_config(
    service: Annotated[
        str | None, typer.Argument(help="The service; by default all installed ones.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Its YAML file; by default SERVICE.yaml, if any."),
    ] = None,
    config_dir: Annotated[Path, typer.Option(help="Where the YAML files are.")] = Path("config"),
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a value.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check configuration, schema included, and show every value and where it came from."""
    from forage import services
    from forage.catalog.schema import Schema
    from forage.settings import leaves, load

    if config is not None and service is None:
        raise typer.BadParameter("name the service that the file is for", param_hint="--config")
    report: dict[str, Any] = {}
    for name in [service] if service else services.names():
        file = config or config_dir / f"{name}.yaml"
        loaded = load(
            name,
            services.find(name).settings,
            file=file if config or file.is_file() else None,
            flags=settings_flags(assignments or []),
        )
        Schema.load(loaded.settings.schema_file)
        report[name] = {
            setting: {"value": _plain(value), "source": _source(setting, loaded)}
            for setting, value in leaves(loaded.settings)
        }
    if as_json:
        print_json(report)
    else:
        _print(report)


def _plain(value: object) -> object:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _source(setting: str, loaded: Loaded[Any]) -> str:
    sources = loaded.sources
    parts = setting.split(".")
    for length in range(len(parts), 0, -1):
        if source := sources.get(".".join(parts[:length])):
            return source
    # A mapping is one value of the settings, and may be given entry by entry.
    entries = sorted({s for name, s in sources.items() if name.startswith(f"{setting}.")})
    return ", ".join(entries) or "default"


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    for name, settings in report.items():
        table = Table("setting", "value", "from", title=name, title_justify="left")
        for setting, entry in settings.items():
            default = entry["source"] == "default"
            style = "dim" if default else "bold"
            table.add_row(setting, Text(str(entry["value"])), Text(entry["source"]), style=style)
        out.print(table)

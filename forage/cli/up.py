"""`forage up`: the whole mesh on this machine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forage.cli.terminal import DATA, Data, console

if TYPE_CHECKING:
    from rich.table import Table

    from forage.supervisor import Mesh, ServiceState

_REFRESH_S = 0.5
_LAG_INTERVAL_S = 3.0
_COLOURS = {
    "starting": "cyan",
    "catching up": "yellow",
    "serving": "green",
    "not answering": "red",
    "restarting": "red",
    "failed": "bold red",
    "stopped": "dim",
}


def up(
    config_dir: Annotated[Path, typer.Option(help="Where the services' YAML files are.")] = Path(
        "config"
    ),
    data: Data = DATA,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Run this service, and no unnamed one.")
    ] = None,
    excepted: Annotated[
        list[str] | None, typer.Option("--except", help="Do not run this service.")
    ] = None,
) -> None:
    """Run all services, restart what crashes, and stop them all on Ctrl-C.

    Their output is in DATA/logs, one file per service.
    """
    from forage import services
    from forage.supervisor import Mesh

    installed = services.names()
    for name in [*(only or []), *(excepted or [])]:
        if name not in installed:
            raise typer.BadParameter(f"'{name}' is not installed; allowed: {', '.join(installed)}")
    names = [n for n in only or installed if n not in (excepted or [])]
    if not names:
        raise typer.BadParameter("no service is left to run", param_hint="--except")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Mesh(config_dir, data, names=names) as mesh:
        _watch(mesh, stop)
        typer.echo("stopping")
    typer.echo("stopped")


def _watch(mesh: Mesh, stop: threading.Event) -> None:
    out = console()
    with ExitStack() as stack:
        show: Callable[[list[ServiceState]], None]
        if out.is_terminal:
            from rich.live import Live

            live = stack.enter_context(Live(console=out, auto_refresh=False))
            lags = _Lags(mesh, stop)

            def show(states: list[ServiceState]) -> None:
                live.update(_table(states, lags.latest), refresh=True)

        else:
            show = _Lines().show
        while not stop.wait(_REFRESH_S):
            show(mesh.states())
            mesh.check()


class _Lines:
    """Prints a line whenever a service's state changes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int]] = {}

    def show(self, states: list[ServiceState]) -> None:
        """Print the changes since last time."""
        for s in states:
            if self._known.get(s.name) == (s.state, s.pid):
                continue
            self._known[s.name] = (s.state, s.pid)
            because = f" ({s.problem.splitlines()[0]})" if s.problem else ""
            typer.echo(f"{s.name:<12} {s.state:<13} pid {s.pid} at {s.target}{because}")
        if all(s.state == "serving" for s in states):
            if "" not in self._known:
                typer.echo("all services are serving; try: forage search TEXT")
            self._known[""] = ("", 0)


class _Lags:
    """Asks the orchestrator how far the services lag, on a thread of its own."""

    def __init__(self, mesh: Mesh, stop: threading.Event) -> None:
        self.latest: dict[str, int] = {}
        if any(s.name == "orchestrator" for s in mesh.states()):
            threading.Thread(
                target=self._ask, args=(mesh.address, stop), name="lags", daemon=True
            ).start()

    def _ask(self, address: str, stop: threading.Event) -> None:
        from forage.cli.terminal import connect
        from forage.errors import ForageError

        with connect(address, timeout_s=2.0) as client:
            while not stop.wait(_LAG_INTERVAL_S):
                try:
                    found = client.ingest_status().services
                except ForageError:
                    # The table shows the orchestrator's state; unknown lags are left blank.
                    self.latest = {}
                else:
                    self.latest = {s.service: s.lag for s in found if not s.error}


def _table(states: list[ServiceState], lags: dict[str, int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("service", "pid", "at", "state", "restarts", "memory", "lag")
    for s in states:
        state = Text(s.state, _COLOURS[s.state])
        if s.problem and s.state != "serving":
            state.append(f" {s.problem.splitlines()[0]}", "dim")
        table.add_row(
            s.name,
            str(s.pid or ""),
            s.target,
            state,
            str(s.restarts or ""),
            f"{s.resident_bytes / 2**20:.0f} MiB" if s.resident_bytes else "",
            f"{lags[s.name]:,}" if s.name in lags else "",
        )
    total = sum(s.resident_bytes for s in states) / 2**20
    table.caption = f"{total:,.0f} MiB in all; Ctrl-C stops"
    return table

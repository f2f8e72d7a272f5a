"""`forage serve`: run one service in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forage.cli.terminal import settings_flags

if TYPE_CHECKING:
    from forage.services import Service
    from forage.settings import ServiceSettings

_ABANDON_S = 10.0
_ABANDONED = 70


def serve(
    name: Annotated[str, typer.Argument(help="The service, such as lexical.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with its settings.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a value, such as server.port=7101."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder.")] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Run one service until SIGTERM or Ctrl-C, then let calls in progress finish."""
    parent = _Parent() if with_parent else None

    from forage import services
    from forage.settings import load

    _log_to_stderr(name)
    service = services.find(name)
    flags = settings_flags(assignments or [])
    if data is not None:
        flags["data_dir"] = str(data)
    settings = load(name, service.settings, file=config, flags=flags).settings
    asyncio.run(_run(service, settings, parent))


async def _run(service: Service, settings: ServiceSettings, parent: _Parent | None) -> None:
    from forage.serving import serve as serve_until

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:
        patience = (settings.server.drain_delay_ms + settings.server.grace_ms) / 1000
        parent.on_end(lambda: loop.call_soon_threadsafe(stop.set), patience + _ABANDON_S)
    host = settings.server.host
    await serve_until(
        service,
        settings,
        stop=stop,
        on_listening=lambda port: typer.echo(f"listening on {host}:{port}"),
    )


class _Parent:
    """Sees the parent process end, by the end of the pipe that is this one's standard input."""

    def __init__(self) -> None:
        self._stop: Callable[[], object] | None = None
        self._patience_s = 0.0
        self._gone = threading.Event()
        self._guard = threading.Lock()
        threading.Thread(target=self._wait, name="parent", daemon=True).start()

    def on_end(self, stop: Callable[[], object], patience_s: float) -> None:
        """Call `stop` when the parent ends, and abandon the process if that takes too long."""
        with self._guard:
            self._stop, self._patience_s = stop, patience_s
            if self._gone.is_set():
                stop()

    def _wait(self) -> None:
        while os.read(0, 4096):
            pass
        with self._guard:
            self._gone.set()
            if self._stop is not None:
                self._stop()
        # Loading an index or a hung call must not outlive the parent for long.
        time.sleep(self._patience_s or _ABANDON_S)
        os._exit(_ABANDONED)


def _log_to_stderr(service: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _JsonLines(logging.Formatter):
    """One JSON object per line, with the trace it belongs to."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        from opentelemetry import trace

        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)

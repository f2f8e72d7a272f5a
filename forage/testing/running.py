"""Runs a servicer in this process, for tests of clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import grpc

from forage.serving import ErrorInterceptor
from forage.telemetry import Telemetry


class Addable(Protocol):
    """One or more servicers that add themselves to a server."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the servicers."""
        ...


@contextmanager
def running(
    servicer: Addable, *, port: int = 0, telemetry: Telemetry | None = None
) -> Iterator[str]:
    """Serve on a thread of its own, and yield `host:port`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servicer", daemon=True)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        outer = telemetry.server_interceptors() if telemetry else []
        server = grpc.aio.server(
            interceptors=[*outer, ErrorInterceptor()], options=[("grpc.so_reuseport", 0)]
        )
        servicer.add_to(server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server, bound

    server, bound = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

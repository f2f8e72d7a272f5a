"""Runs real services in the test's own event loop, on free loopback ports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forage.services import Service
from forage.serving import serve
from forage.settings import ServiceSettings
from forage.telemetry import Telemetry


@asynccontextmanager
async def running(
    service: Service,
    settings: ServiceSettings,
    *,
    telemetry: Telemetry | None = None,
    ready_timeout_s: float = 20.0,
) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port once the service's health is SERVING."""
    stop = asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            service,
            settings,
            stop=stop,
            on_listening=listening.set_result,
            telemetry=telemetry or Telemetry.disabled(),
        )
    )
    try:
        started: list[asyncio.Future[Any]] = [task, listening]
        await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        port = listening.result()
        await until_serving(port, ready_timeout_s)
        yield port
    finally:
        stop.set()
        await task


async def until_serving(port: int, timeout_s: float) -> None:
    """Wait until the server's overall health is SERVING; raises `TimeoutError`."""
    serving = health_pb2.HealthCheckResponse.SERVING
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        end = time.monotonic() + timeout_s
        while True:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            if answer.status == serving:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"the service on port {port} is not SERVING")
            await asyncio.sleep(0.01)


async def eventually(
    check: Callable[[], object], *, timeout_s: float = 20.0, every_s: float = 0.02
) -> None:
    """Wait until `check` returns something true; raises `TimeoutError` with its last value."""
    end = time.monotonic() + timeout_s
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"it did not become true; last value {value!r}")
        await asyncio.sleep(every_s)

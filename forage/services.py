"""The record that describes a service, and the look-up of installed ones by entry point.

The kernel imports no service: `forage serve NAME` finds it in the entry-point group
`forage.services`, so a sixth generator is a package with one entry point.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ParamSpec, TypeVar

import grpc

from forage.catalog.schema import Schema
from forage.errors import StartupError
from forage.lease import Lease
from forage.log import EventLog
from forage.log.follower import Follower
from forage.registry import Registry
from forage.settings import ServiceSettings
from forage.telemetry import Telemetry

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the bootstrap hands to a service's `build`: opened once, closed by the bootstrap."""

    log: EventLog
    registry: Registry
    schema: Schema
    telemetry: Telemetry
    executor: Executor
    """Bounded threads for blocking engines: `server.workers` of them."""
    lease: Lease | None = None
    """Who of several replicas does what only one may do; None: files in the data folder."""

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function on the executor, inside the caller's trace."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self.executor, lambda: context.run(function, *args, **kwargs)
        )


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Assembly:
    """A built service: what to add to the server, and what to start and stop around it."""

    servicers: Callable[[grpc.aio.Server], None]
    """Adds the service's servicers to a server."""
    grpc_services: tuple[str, ...]
    """Full names of those servicers' services, for health and reflection."""
    follower: Follower
    """Keeps the service's projections up to date; readiness waits for it."""
    start: Callable[[], Awaitable[None]] = field(default=_nothing)
    """Runs before the port opens."""
    stop: Callable[[], Awaitable[None]] = field(default=_nothing)
    """Runs after the last call has ended."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that `forage serve` can run."""

    name: str
    summary: str
    settings: type[ServiceSettings]
    build: Callable[[Any, Runtime], Assembly]
    """Takes an instance of `settings`; must not block for long: indexes fill afterwards."""


def find(name: str) -> Service:
    """Return the installed service of that name, or raise `StartupError` listing all of them."""
    installed = {e.name: e for e in entry_points(group="forage.services")}
    if name not in installed:
        raise StartupError(f"there is no service '{name}'; installed: {', '.join(names())}")
    service = installed[name].load()
    if not isinstance(service, Service):
        raise StartupError(f"the entry point of '{name}' is not a forage.services.Service")
    return service


def names() -> list[str]:
    """Return the names of all installed services, sorted."""
    return sorted(e.name for e in entry_points(group="forage.services"))

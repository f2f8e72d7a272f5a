"""The local mesh: every service as a process, watched, restarted, and stopped in order."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forage import services
from forage.child import Backoff, Child, State
from forage.errors import DeadlineExceededError, InvalidArgumentError, StartupError
from forage.placement import ORCHESTRATOR, place

__all__ = ["Backoff", "Mesh", "ServiceState", "State"]

_TICK_S = 0.1
_BACKOFF = Backoff()
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How one service of the mesh is."""

    name: str
    state: State
    pid: int
    """0 while there is no process."""
    target: str
    restarts: int
    resident_bytes: int
    problem: str
    """Why it failed, or was restarted last; empty if neither happened."""
    log: Path


class Mesh:
    """Runs services of Forage on this machine, for as long as the `with` lasts.

    Every service is one `forage serve` process, whose end of a pipe tells it when this process is
    gone, so none is ever left behind. A service that crashes is started again with backoff; one
    that cannot start at all fails the mesh. The orchestrator is stopped first, so that searches
    in progress still find their generators.
    """

    def __init__(
        self,
        config_dir: Path,
        data_dir: Path,
        *,
        names: Sequence[str] | None = None,
        ports: Mapping[str, int] | None = None,
        free_ports: bool = False,
        flags: Mapping[str, Mapping[str, Any]] | None = None,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """Check settings and ports; nothing is started before `start`.

        `names` are the services to run, by default all installed ones; `ports` and `free_ports`
        are as in `forage.placement.place`; `flags` has settings by service and dotted name.
        Raises `StartupError`.
        """
        chosen = services.names() if names is None else list(names)
        placements = place(
            chosen, config_dir, data_dir, ports=ports, free_ports=free_ports, flags=flags
        )
        logs = data_dir / "logs"
        self._children = {p.name: Child(p, logs, backoff) for p in placements}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`host:port` of the orchestrator; raises `KeyError` in a mesh without one."""
        return self.target(ORCHESTRATOR)

    def target(self, name: str) -> str:
        """Return `host:port` of a service."""
        return self._children[name].placement.target

    def start(self) -> None:
        """Start every service and the thread that watches them; does not wait for them."""
        try:
            for child in self._children.values():
                child.start()
        except OSError as error:
            self.stop()
            raise StartupError(f"cannot start the services: {error}") from error
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def states(self) -> list[ServiceState]:
        """Return how every service is."""
        return [
            ServiceState(
                name=child.placement.name,
                state=child.state,
                pid=child.pid,
                target=child.placement.target,
                restarts=child.restarts,
                resident_bytes=child.resident_bytes,
                problem=child.problem,
                log=child.log,
            )
            for child in self._children.values()
        ]

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every service is serving.

        Raises `StartupError` when one cannot start, `DeadlineExceededError` naming those that are
        not serving in time.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self.check()
                waiting = [c for c in self._children.values() if c.state is not State.SERVING]
                if not waiting:
                    return
                remaining = until - time.monotonic()
                if remaining <= 0:
                    raise DeadlineExceededError(
                        f"not serving after {timeout_s:g} s: "
                        + ", ".join(f"{c.placement.name} ({c.state}; {c.log})" for c in waiting)
                    )
                self._changed.wait(remaining)

    def check(self) -> None:
        """Raise `StartupError` if a service cannot start."""
        for child in self._children.values():
            if child.state is State.FAILED:
                raise StartupError(
                    f"{child.placement.name} cannot start: {child.problem}\nits log: {child.log}"
                )

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a service's process a signal, to see what the mesh does without it."""
        self._find(name).signal(number)

    def restart(self, name: str) -> None:
        """Have a service stop in good order and start again."""
        self._find(name).restart()

    def stop(self) -> None:
        """Stop every service: SIGTERM, then SIGKILL when its patience is over. Idempotent."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        front = [c for c in self._children.values() if c.placement.name == ORCHESTRATOR]
        rest = [c for c in self._children.values() if c.placement.name != ORCHESTRATOR]
        for wave in (front, rest):
            for child in wave:
                child.signal(signal.SIGTERM)
            begun = time.monotonic()
            for child in wave:
                child.wait(begun + child.placement.patience_s)

    def __enter__(self) -> Self:
        """Start the mesh."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the mesh."""
        self.stop()

    def _find(self, name: str) -> Child:
        if name not in self._children:
            raise InvalidArgumentError(
                "name", f"'{name}' is not in this mesh", allowed=", ".join(self._children)
            )
        return self._children[name]

    def _watch(self) -> None:
        while not self._stopping.wait(_TICK_S):
            for child in self._children.values():
                before = child.state
                try:
                    child.watch(time.monotonic())
                except OSError as error:
                    # A full process table or disk; the next tick tries again.
                    child.problem = f"cannot be restarted: {error}"
                    _logger.error("%s: %s", child.placement.name, child.problem)
                if child.state is not before:
                    with self._changed:
                        self._changed.notify_all()

"""Several processes of each service, one log: what one machine can show of a mesh on many."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from forage.child import Backoff, Child, State
from forage.client import Client, Retry
from forage.log.sqlite import SqliteEventLog
from forage.placement import Placement
from forage.registry import DirectoryRegistry
from forage.testing.catalog import SCHEMA
from orchestrator.settings import OrchestratorSettings
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
DRAIN_MS = 500
PATIENCE_MS = 2_000
"""For calls on a starved machine: who is away is to be left, not given up for being slow."""


class Fleet:
    """Replicas of services, each with a port and a data folder of its own; they share the log."""

    def __init__(
        self, data: Path, counts: Mapping[str, int], flags: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.data = data
        schema = data / "schema.yaml"
        schema.write_text(yaml.safe_dump(SCHEMA.model_dump(mode="json")))
        ports = _free_ports([(name, i) for name, n in counts.items() for i in range(n)])
        self._ports = ports
        self._flags = flags
        self.children: dict[tuple[str, int], Child] = {}
        for (name, index), port in ports.items():
            own = data / f"{name}-{index}"
            given: dict[str, Any] = {
                "data_dir": str(own),
                "log_url": f"sqlite:{data / 'log.db'}",
                "schema_file": str(schema),
                "server.port": port,
                "server.drain_delay_ms": DRAIN_MS,
                **(self._wiring() if name == "orchestrator" else {}),
                **flags.get(name, {}),
            }
            file = REPOSITORY / "config" / f"{name}.yaml"
            placement = Placement(name, "127.0.0.1", port, file, given, 15.0)
            self.children[name, index] = Child(placement, own, Backoff())

    def address(self, name: str) -> str:
        """Return the address of all replicas of a service."""
        return ",".join(f"127.0.0.1:{p}" for (n, _), p in self._ports.items() if n == name)

    def client(self, index: int | None = None, *, retry_s: float = 5.0) -> Client:
        """Return a client of one orchestrator, or of all of them."""
        address = self.address("orchestrator")
        if index is not None:
            address = self.children["orchestrator", index].placement.target
        return Client(address, timeout_s=max(10.0, retry_s), retry=Retry(for_s=retry_s))

    @property
    def registry(self) -> DirectoryRegistry:
        """The registry that all share."""
        return DirectoryRegistry(self.data / "registry")

    def log(self) -> SqliteEventLog:
        """Open the log that all share."""
        return SqliteEventLog.open(self.data / "log.db")

    def wait_serving(self, *children: Child) -> None:
        """Wait until these, or all, are serving."""
        waiting = children or tuple(self.children.values())

        def serving() -> bool:
            for child in waiting:
                child.watch(time.monotonic())
                assert child.state is not State.FAILED, child.problem
            return all(child.state is State.SERVING for child in waiting)

        eventually(serving, timeout_s=120.0)

    def roll(self, child: Child) -> None:
        """Stop a process in good order and start it again."""
        before = child.restarts
        child.restart()

        def restarted() -> bool:
            child.watch(time.monotonic())
            return child.restarts > before

        eventually(restarted)
        self.wait_serving(child)

    def __enter__(self) -> Self:
        for child in self.children.values():
            child.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self.children.values():
            if child.pid:
                child.restart()
        until = time.monotonic() + 20
        for child in self.children.values():
            child.wait(until)

    def _wiring(self) -> dict[str, Any]:
        names = {name for name, _ in self._ports}
        known = yaml.safe_load((REPOSITORY / "config" / "orchestrator.yaml").read_text())
        return {
            "generators": {
                name: {**target, "target": self.address(name), "timeout_ms": PATIENCE_MS}
                for name, target in known["generators"].items()
                if name in names
            },
            "ranker.target": self.address("ranker") if "ranker" in names else "127.0.0.1:1",
            "ranker.timeout_ms": PATIENCE_MS,
            # Room to ask the others when all that were asked are late.
            "deadline_ms": 4 * PATIENCE_MS,
        }

    def settings(self) -> OrchestratorSettings:
        """Return the settings of the first orchestrator."""
        flags = self.children["orchestrator", 0].placement.flags
        content: dict[str, Any] = {}
        for name, value in flags.items():
            group = content
            *path, last = name.split(".")
            for part in path:
                group = group.setdefault(part, {})
            group[last] = value
        return OrchestratorSettings.model_validate(content)


def _free_ports(replicas: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    with ExitStack() as held:
        ports = {}
        for replica in replicas:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports[replica] = int(listener.getsockname()[1])
        return ports

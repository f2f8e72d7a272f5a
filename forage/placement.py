"""Where each service of a local mesh runs: its settings file, port, and the flags it is given."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forage import services
from forage.errors import StartupError
from forage.settings import ServiceSettings, load

ORCHESTRATOR = "orchestrator"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "[::1]"}


@dataclass(frozen=True, slots=True)
class Placement:
    """One service of the mesh, ready to be started."""

    name: str
    host: str
    """Address that it listens on."""
    port: int
    file: Path | None
    """Its settings file; None if it has none."""
    flags: Mapping[str, Any]
    """Settings by dotted name, above file and environment."""
    patience_s: float
    """How long it may take to stop: drain, grace, and a little for closing its files."""

    @property
    def target(self) -> str:
        """`host:port` at which this machine reaches it."""
        return f"{_ANY_ADDRESS.get(self.host, self.host)}:{self.port}"

    def arguments(self) -> list[str]:
        """Return the arguments of the `forage serve` that runs it."""
        arguments = ["serve", self.name]
        if self.file is not None:
            arguments += ["--config", str(self.file)]
        for name, value in self.flags.items():
            # JSON is YAML, which is how `--set` reads values.
            arguments += ["--set", f"{name}={json.dumps(value)}"]
        return arguments


def place(
    names: Iterable[str],
    config_dir: Path,
    data_dir: Path,
    *,
    ports: Mapping[str, int] | None = None,
    free_ports: bool = False,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Placement]:
    """Check the settings of all services, give each a port, and tell the orchestrator which.

    A port comes from `ports`, else from the settings; 0, or `free_ports`, means a free one.
    Raises `StartupError` for a bad setting, an unknown service, or a port that is taken.
    """
    if not config_dir.is_dir():
        raise StartupError(f"config folder {config_dir}: there is no such folder")
    names = list(names)
    for unknown in sorted({*(ports or {}), *(flags or {})} - set(names)):
        raise StartupError(f"'{unknown}' is not one of this mesh's services: {', '.join(names)}")
    files = {name: _file(config_dir, name) for name in names}
    given = {n: {**(flags or {}).get(n, {}), "data_dir": str(data_dir)} for n in names}
    settings = {
        n: load(n, services.find(n).settings, file=files[n], flags=given[n]).settings for n in names
    }
    wanted = {n: 0 if free_ports else settings[n].server.port for n in names} | dict(ports or {})
    taken = _claim({n: (settings[n].server.host, port) for n, port in wanted.items()})
    placements = {}
    for name in names:
        server = settings[name].server
        placements[name] = Placement(
            name,
            server.host,
            taken[name],
            files[name],
            {**given[name], "server.port": taken[name]},
            (server.drain_delay_ms + server.grace_ms) / 1000 + 5.0,
        )
    if ORCHESTRATOR in placements:
        placements[ORCHESTRATOR] = _wired(placements, settings[ORCHESTRATOR])
    return list(placements.values())


def _file(config_dir: Path, name: str) -> Path | None:
    file = config_dir / f"{name}.yaml"
    return file if file.is_file() else None


def _wired(placements: Mapping[str, Placement], settings: ServiceSettings) -> Placement:
    """Tell the orchestrator where the services of this mesh are; others keep their targets."""
    own = placements[ORCHESTRATOR]
    content = settings.model_dump(mode="json")
    flags = dict(own.flags)
    if "generators" in content:
        # The whole mapping: a flag for one generator would replace the default of all of them.
        flags["generators"] = {
            name: {**target, "target": placements[name].target} if name in placements else target
            for name, target in content["generators"].items()
        }
    if "ranker" in content and "ranker" in placements:
        flags["ranker.target"] = placements["ranker"].target
    return Placement(own.name, own.host, own.port, own.file, flags, own.patience_s)


def _claim(wanted: Mapping[str, tuple[str, int]]) -> dict[str, int]:
    """Return a port for each service, having seen that it can be listened on."""
    with ExitStack() as held:
        ports: dict[str, int] = {}
        # Fixed ports first, so that the system does not choose one of them.
        for name, (host, port) in sorted(wanted.items(), key=lambda entry: entry[1][1] == 0):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host.strip("[]"), port))
                listener.listen(1)
            except OSError as error:
                sharing = next((n for n, p in ports.items() if p == port), None)
                reason = f"service '{sharing}' has it too" if sharing else error.strerror
                raise StartupError(
                    f"{name}: server.port: cannot listen on {host}:{port}: {reason}; allowed: a"
                    " free port, or 0 to let the system choose"
                ) from error
            ports[name] = listener.getsockname()[1]
        return ports

"""A real Milvus server on free ports, started and stopped by its process id."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any, Self

PACKAGE = os.environ.get("FORAGE_MILVUS_SERVER", "")
"""A folder with PyPI's `milvus` in it."""
OLD_PACKAGE = os.environ.get("FORAGE_MILVUS_SERVER_OLD", "")
_READY_S = 120.0
_STOP_S = 3.0
_PORTS = (
    "etcd_port",
    "etcd_peer_port",
    "root_coord_port",
    "proxy_port",
    "proxy_internal_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)


class MilvusServer:
    """One standalone server on a folder, which it finds again when it is started again.

    The package is used for its binaries and its configuration only: its own launcher ends the
    server with SIGKILL after a second, and knows no ports of ours.
    """

    def __init__(self, folder: Path, *, package: str = PACKAGE, **settings: Any) -> None:
        """Describe the server; `settings` are names of the package's configuration template."""
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._package = package
        self._binaries = Path(package) / "unpacked"
        self._config = folder / "configs" / "milvus.yaml"
        self._settings = settings
        ports = free_ports(len(_PORTS) + 1)
        self._ports = dict(zip(_PORTS, ports, strict=False))
        self.port = self._ports["proxy_port"]
        self._metrics_port = ports[-1]
        self.uri = f"{'https' if settings.get('tls_mode') else 'http'}://localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        if not self._config.exists():
            self._configure()
        log = (self._folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [self._binaries / "bin" / "milvus", "run", "standalone"],
            cwd=self._folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                **os.environ,
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(self._metrics_port),
                "MILVUS_RUN_DIR": str(self._folder / "run"),
                "MILVUSCONF": str(self._config.parent),
                "LD_LIBRARY_PATH": str(self._binaries / "bin"),
            },
        )
        log.close()

    def _configure(self) -> None:
        package = _load(self._package)
        config = package.MilvusServerConfig(data_dir=str(self._folder))
        config.update(**self._ports)
        config.resolve()
        for name, value in {**self._ports, **self._settings}.items():
            if name in config.config_key_maps.values():
                config.set(name, value)
        config.write_config()
        self._configure_etcd()
        package._initialize_data_files(str(self._binaries))

    def _configure_etcd(self) -> None:
        """Give the embedded etcd ports of its own; two servers could not run side by side."""
        client = f"http://127.0.0.1:{self._ports['etcd_port']}"
        peer = f"http://127.0.0.1:{self._ports['etcd_peer_port']}"
        etcd = self._folder / "configs" / "etcd.json"
        etcd.write_text(
            json.dumps(
                {
                    "name": "default",
                    "listen-client-urls": client,
                    "advertise-client-urls": client,
                    "listen-peer-urls": peer,
                    "initial-advertise-peer-urls": peer,
                    "initial-cluster": f"default={peer}",
                }
            )
        )
        text = self._config.read_text()
        self._config.write_text(
            text.replace("  use:\n", f"  config:\n    path: {etcd}\n  use:\n", 1)
        )

    def wait_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _READY_S
        while not self._healthy():
            assert self._process.poll() is None, self.log_tail()
            assert time.monotonic() < end, f"Milvus is not ready: {self.log_tail()}"
            time.sleep(0.05)

    def log_tail(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace")[-3_000:]

    def kill(self) -> None:
        """SIGKILL, as a crash of the process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_S)

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def memory_bytes(self) -> int:
        """Return the resident memory of the server's process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _healthy(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self._metrics_port}/healthz"
            with urllib.request.urlopen(url, timeout=5) as response:
                return b"OK" in response.read()
        except (urllib.error.URLError, OSError):
            return False


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on; all are held open at once, so they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _load(package: str) -> ModuleType:
    """Import the package from its folder; two versions of it can be in use at once."""
    spec = importlib.util.spec_from_file_location("milvus", Path(package) / "milvus/__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""A real nats-server on a free port, started and stopped by its process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.waiting import eventually

BINARY = os.environ.get("FORAGE_NATS_SERVER", "nats-server")
OLD_BINARY = os.environ.get("FORAGE_NATS_SERVER_OLD", "")
_READY_S = 15.0


class NatsServer:
    """One server with JetStream in a folder, which it finds again when it is started again."""

    def __init__(
        self, folder: Path, extra: str = "", *, binary: str = BINARY, scheme: str = "nats"
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._binary = binary
        self._config = folder / "server.conf"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(extra)

    def configure(self, extra: str) -> None:
        """Use other settings from the next start on."""
        folder = json.dumps(str(self._config.parent / "jetstream"))
        jetstream = (
            ""
            if "jetstream" in extra
            else (f"jetstream {{ store_dir: {folder}, sync_interval: always }}")
        )
        self._config.write_text(f'listen: "127.0.0.1:{self.port}"\n{jetstream}\n{extra}\n')

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-c", str(self._config)], stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _READY_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, f"nats-server is not ready: {self._log.read_text()}"
            time.sleep(0.02)

    def reload(self) -> None:
        """Have it read its configuration again."""
        os.kill(self.pid, signal.SIGHUP)

    def kill(self) -> None:
        """SIGKILL, as a crash of the process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: it still accepts connections, and answers nothing, as across a partition."""
        os.kill(self.pid, signal.SIGSTOP)
        # On a busy machine its threads stop one after the other, and some may still answer.
        eventually(self._stopped)

    def _stopped(self) -> bool:
        """Whether every thread is; the state follows the name, which is in parentheses."""
        stats = [s.read_text() for s in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

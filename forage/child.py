"""One supervised service: its process, how it is, and when to start it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forage.placement import Placement

_CHECK_TIMEOUT_S = 0.5
_STARTUP_FAILURE = 2
_MAX_LOG_BYTES = 16 * 2**20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SERVING = health_pb2.HealthCheckResponse.SERVING


class State(StrEnum):
    """How a supervised service is."""

    STARTING = "starting"
    """Its process runs; its port is not open yet."""
    CATCHING_UP = "catching up"
    """It answers, and is still following the log."""
    SERVING = "serving"
    NOT_ANSWERING = "not answering"
    """Its process runs, and does not answer health checks although it did."""
    RESTARTING = "restarting"
    """Its process ended; another one is about to be started."""
    FAILED = "failed"
    """It cannot start, and would not if it were tried again."""
    STOPPED = "stopped"


# Seven processes share the cores: one BLAS thread each, and few malloc arenas.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a service that crashed is started again."""

    first_s: float = 0.5
    """After the first crash; each further one doubles it."""
    longest_s: float = 10.0
    stable_s: float = 30.0
    """A service that served for so long has its crashes forgotten."""

    def pause(self, crashes: int) -> float:
        """Return the pause after the latest of `crashes` in a row."""
        return float(min(self.longest_s, self.first_s * 2.0 ** min(crashes - 1, 30)))


class Child:
    """Runs one service as a process of its own, which ends when this process does."""

    def __init__(self, placement: Placement, logs: Path, backoff: Backoff) -> None:
        self.placement = placement
        self.log = logs / f"{placement.name}.log"
        self.state = State.STOPPED
        self.restarts = 0
        self.problem = ""
        """Why it failed, or why it was restarted last."""
        self._backoff = backoff
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._log_offset = 0
        self._crashes = 0
        self._served = False
        self._serving_since = 0.0
        self._start_at = 0.0
        self._check_at = 0.0
        self._wanted_restart = False

    @property
    def pid(self) -> int:
        """The process id; 0 while there is no process."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def resident_bytes(self) -> int:
        """The process's resident memory; 0 if there is none or the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0

    def start(self) -> None:
        """Start the process; its output goes to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        with self.log.open("ab") as output:
            self._log_offset = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forage.cli", *self.placement.arguments(), "--with-parent"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C is the supervisor's alone, which stops the services in order.
                start_new_session=True,
                env=_ONE_THREAD | os.environ,
            )
        self._channel = grpc.insecure_channel(
            self.placement.target, options=[("grpc.max_reconnect_backoff_ms", 200)]
        )
        self._check_at = 0.0
        self.state = State.STARTING

    def watch(self, now: float) -> None:
        """Take note of what happened, and start the process again if it is time."""
        if self.state in (State.FAILED, State.STOPPED):
            return
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._ended(code, now)
            elif now >= self._check_at:
                self._check(now)
        if self.state is State.RESTARTING and now >= self._start_at:
            self.restarts += 1
            self.start()

    def restart(self) -> None:
        """Have the process end in good order and start again at once."""
        if self.pid:
            self._wanted_restart = True
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if there is a process."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, until: float) -> None:
        """Wait for the process to end; kill it at `until` (monotonic seconds)."""
        process = self._process
        if process is not None:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._close(process)
        self.state = State.STOPPED

    def _ended(self, code: int, now: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._close(process)
        if self._wanted_restart:
            self._wanted_restart = False
            self.state, self._start_at, self.problem = State.RESTARTING, now, "restart requested"
            return
        self.problem = self._last_words() or _describe(code)
        if code == _STARTUP_FAILURE and not self._served:
            self.state = State.FAILED
            return
        if self.state is State.SERVING and now - self._serving_since >= self._backoff.stable_s:
            self._crashes = 0
        self._crashes += 1
        self._start_at = now + self._backoff.pause(self._crashes)
        self.state = State.RESTARTING

    def _check(self, now: float) -> None:
        request = health_pb2.HealthCheckRequest()
        try:
            answer = health_pb2_grpc.HealthStub(self._channel).Check(
                request, timeout=_CHECK_TIMEOUT_S
            )
        except grpc.RpcError:
            answered = self.state is not State.STARTING
            self.state = State.NOT_ANSWERING if answered else State.STARTING
        else:
            if answer.status != _SERVING:
                self.state = State.CATCHING_UP
            elif self.state is not State.SERVING:
                self.state, self._serving_since, self._served = State.SERVING, now, True
        self._check_at = now + (1.0 if self.state is State.SERVING else 0.1)

    def _last_words(self) -> str:
        """Return what the process said when it could not start or go on, if it did."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset)
            lines = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()
        first = next((i for i, line in enumerate(lines) if line.startswith("error: ")), None)
        return "" if first is None else "\n".join(lines[first:]).removeprefix("error: ")

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
        if self._channel is not None:
            self._channel.close()


def _describe(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"

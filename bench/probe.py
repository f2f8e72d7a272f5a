"""One service of the mesh by itself: what it takes to build, to start and to ask."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from bench.processes import NOTHING, Usage, disk_mb, usage
from bench.queries import percentile
from forage.supervisor import Mesh
from forage.v1 import search_service_pb2

Figures = dict[str, Any]
_MOST_S = 20.0
_CLIENTS = 8
_LONGEST_CALL_S = 20.0
_WATCH_S = 20.0
_IDLE = 0.3
"""Share of a core that a Milvus server takes for itself."""


@dataclass
class Running:
    """A service that serves, and what its start took."""

    mesh: Mesh
    name: str
    start_s: float
    at_start: Usage
    server_pid: int = 0
    """A Milvus server on this machine that it uses; 0: none."""
    server_before: Usage = NOTHING

    @property
    def pid(self) -> int:
        """Of its process."""
        return next(s.pid for s in self.mesh.states() if s.name == self.name)

    def usage(self) -> Usage:
        """Return what it has used until now."""
        return usage(self.pid)

    def server(self) -> Usage:
        """Return what the server has used since this service was started, and holds now."""
        if not self.server_pid:
            return NOTHING
        now = usage(self.server_pid)
        return replace(now, cpu_s=now.cpu_s - self.server_before.cpu_s)


@dataclass
class Calls:
    """Calls made one after the other or several at a time."""

    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0


@contextmanager
def running(
    name: str,
    config_dir: Path,
    data: Path,
    *,
    flags: dict[str, Any] | None = None,
    limit_s: float = 900.0,
    server_pid: int = 0,
) -> Iterator[Running]:
    """Run one service until the block ends; raises `DeadlineExceededError` after `limit_s`."""
    began = time.monotonic()
    before = usage(server_pid) if server_pid else NOTHING
    mesh = Mesh(config_dir, data, names=[name], free_ports=True, flags={name: flags or {}})
    with mesh:
        mesh.wait_ready(limit_s)
        taken = time.monotonic() - began
        own = usage(next(s.pid for s in mesh.states()))
        yield Running(mesh, name, taken, own, server_pid, before)


def built(found: Running, folders: Sequence[Path], items: int) -> Figures:
    """Return the figures of a start that made an index of nothing but the log."""
    cpu_s = found.at_start.cpu_s
    return {
        "index_s": found.start_s,
        "index_cpu_s": cpu_s,
        "index_cpu_us_per_item": cpu_s / items * 1e6,
        "index_peak_mb": found.at_start.peak_mb,
        "index_pss_mb": found.at_start.pss_mb,
        "disk_mb": sum(disk_mb(f) for f in folders if f.exists()),
        "load": os.getloadavg()[0],
        **_server(found, "server_index_cpu_s", found.server().cpu_s),
    }


def settled(found: Running, limit_s: float) -> Figures:
    """Wait until the server is idle: it goes on building and merging after rows can be found.

    Returns nothing if no server is measured; gives up after `limit_s`.
    """
    if not found.server_pid:
        return {}
    began, busy = time.monotonic(), 1.0
    while busy > _IDLE and time.monotonic() - began < limit_s:
        before = found.server().cpu_s
        time.sleep(_WATCH_S)
        busy = (found.server().cpu_s - before) / _WATCH_S
    return {"server_settled_cpu_s": found.server().cpu_s}


def restarted(found: Running) -> Figures:
    """Return the figures of a start with the index in place."""
    return {
        "start_s": found.start_s,
        "start_cpu_s": found.at_start.cpu_s,
        "start_peak_mb": found.at_start.peak_mb,
        "pss_mb": found.at_start.pss_mb,
    }


def measured(found: Running, stub: Callable[[Any], Any], requests: Sequence[Any]) -> Figures:
    """Return latency with one client and throughput with several, with processor time a call."""
    method = _Method(found, stub)
    method.run(requests[:100], clients=1)
    before = found.usage()
    one = method.run(requests, clients=1)
    between, served = found.usage(), found.server()
    many = method.run([*requests] * 4, clients=_CLIENTS)
    after = found.usage()
    server_ms = (found.server().cpu_s - served.cpu_s) / max(1, len(many.seconds)) * 1e3
    calls = len(one.seconds)
    return {
        "calls": calls,
        "p50_ms": percentile(one.seconds, 0.5) * 1e3 if calls else None,
        "p99_ms": percentile(one.seconds, 0.99) * 1e3 if calls else None,
        "cpu_ms": (between.cpu_s - before.cpu_s) / max(1, calls) * 1e3,
        "per_second": len(many.seconds) / many.elapsed_s,
        "loaded_cpu_ms": (after.cpu_s - between.cpu_s) / max(1, len(many.seconds)) * 1e3,
        "loaded_p99_ms": percentile(many.seconds, 0.99) * 1e3 if many.seconds else None,
        "loaded_pss_mb": after.pss_mb,
        "failures": {**one.failures, **many.failures},
        **_server(found, "server_loaded_cpu_ms", server_ms),
    }


def answers(found: Running, stub: Callable[[Any], Any], requests: Sequence[Any]) -> list[Any]:
    """Return the answers to the requests, None for one that failed."""
    return _Method(found, stub).run(requests, clients=1, keep=True).answers


def stage_times(responses: Sequence[search_service_pb2.SearchResponse]) -> Figures:
    """Return the median and the 99th percentile of each stage of searches."""
    taken: dict[str, list[float]] = {}
    for answer in responses:
        for stage, took in answer.stages.items():
            taken.setdefault(stage, []).append(took.ToNanoseconds() / 1e6)
    return {
        f"{stage}_{label}_ms": percentile(values, share)
        for stage, values in taken.items()
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }


def _server(found: Running, name: str, cpu: float) -> Figures:
    return {name: cpu, "server_pss_mb": found.server().pss_mb} if found.server_pid else {}


class _Method:
    """A method of a running service, called by asynchronous clients."""

    def __init__(self, found: Running, stub: Callable[[Any], Any]) -> None:
        self._target = found.mesh.target(found.name)
        self._stub = stub

    def run(self, requests: Sequence[Any], *, clients: int, keep: bool = False) -> Calls:
        return asyncio.run(self._run(requests, clients, keep))

    async def _run(self, requests: Sequence[Any], clients: int, keep: bool) -> Calls:
        calls = Calls()
        waiting = iter(requests)
        began = time.perf_counter()

        async def client() -> None:
            async with grpc.aio.insecure_channel(self._target) as channel:
                method = self._stub(channel)
                for request in waiting:
                    start = time.perf_counter()
                    if start - began > _MOST_S:
                        return
                    answer = None
                    try:
                        answer = await method(request, timeout=_LONGEST_CALL_S)
                        calls.seconds.append(time.perf_counter() - start)
                    except grpc.aio.AioRpcError as error:
                        code = error.code().name
                        calls.failures[code] = calls.failures.get(code, 0) + 1
                    if keep:
                        calls.answers.append(answer)

        await asyncio.gather(*(client() for _ in range(clients)))
        calls.elapsed_s = time.perf_counter() - began
        return calls

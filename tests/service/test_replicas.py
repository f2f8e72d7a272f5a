"""Replicas of one generator, all real servers: who is called, and what the loss of one costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from forage.errors import ForageError
from forage.settings import GeneratorSettings, ServerSettings
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.lists import ListGenerator
from forage.testing.serving import eventually, running
from tests.service.orchestrator_mesh import IDS, Mesh, degraded, ids, meshed

NO_HEDGES = {"most_share": 0}


class CancelledError(ForageError):
    """What gRPC answers for a server that closes while a call reaches it."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


@dataclass(slots=True)
class Stalling(ListGenerator):
    """Answers at once, but for every n-th call, which stalls."""

    every: int = 20
    stall_s: float = 0.15
    finished: int = 0

    async def Generate(self, request: Any, context: Any) -> Any:
        late = len(self.requests) % self.every == self.every - 1
        self.delay_s = self.stall_s if late else 0.0
        answer = await ListGenerator.Generate(self, request, context)
        self.finished += 1
        return answer


class Replicas:
    """Servers of one generator, each with its port, which it keeps."""

    def __init__(self, folder: Path, lists: Sequence[ListGenerator]) -> None:
        self.lists = lists
        self.ports = [0] * len(lists)
        self._folder = folder
        self._servers: dict[int, AsyncExitStack] = {}

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    async def start(self, index: int, *, drain_s: float = 0.0) -> None:
        settings = GeneratorSettings(
            data_dir=self._folder,
            schema_file=self._folder / "schema.yaml",
            server=ServerSettings(
                port=self.ports[index], grace_ms=0, drain_delay_ms=round(drain_s * 1000)
            ),
        )
        stack = self._servers[index] = AsyncExitStack()
        service = self.lists[index].service()
        self.ports[index] = await stack.enter_async_context(running(service, settings))

    async def stop(self, index: int) -> None:
        """Have a replica drain and stop."""
        await self._servers.pop(index).aclose()

    def served(self) -> list[int]:
        """Return how many requests each replica has had since the last time."""
        counts = [len(replica.requests) for replica in self.lists]
        for replica in self.lists:
            replica.requests.clear()
        return counts

    async def close(self) -> None:
        for index in list(self._servers):
            await self.stop(index)


@asynccontextmanager
async def replicated(
    folder: Path, lists: Sequence[ListGenerator], *, drain_s: float = 0.0, **changes: Any
) -> AsyncIterator[tuple[Mesh, Replicas]]:
    """Run an orchestrator over replicas of a generator called `lexical`."""
    text = yaml.safe_dump(catalog.SCHEMA.model_dump(mode="json"), sort_keys=False)
    (folder / "schema.yaml").write_text(text)
    replicas = Replicas(folder, lists)
    try:
        for index in range(len(lists)):
            await replicas.start(index, drain_s=drain_s)
        # The mesh starts a `lexical` of its own, which nobody calls.
        own = [ListGenerator("lexical", ())]
        targets = {"lexical": {"target": replicas.address, "timeout_ms": 2_000}}
        async with meshed(folder, generators=own, ranker=False, targets=targets, **changes) as mesh:
            await mesh.search("the first call connects")

            async def all_are_called() -> bool:
                await asyncio.gather(*(mesh.search("warm up") for _ in lists))
                return all(replica.requests for replica in lists)

            await eventually(all_are_called)
            replicas.served()
            yield mesh, replicas
    finally:
        await replicas.close()


def three() -> list[ListGenerator]:
    return [ListGenerator("lexical", IDS[:20]) for _ in range(3)]


async def searching(mesh: Mesh, until: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Search four at a time until something is done; return all answers."""
    done = asyncio.Event()

    async def search(worker: int) -> list[Any]:
        answers: list[Any] = []
        while not done.is_set():
            answers.append(await mesh.search(f"search {worker} {len(answers)}"))
        return answers

    tasks = [asyncio.create_task(search(n)) for n in range(4)]
    try:
        await until()
    finally:
        done.set()
        answers = await asyncio.gather(*tasks)
    return [answer for some in answers for answer in some]


async def test_calls_go_round_the_replicas(tmp_path: Path) -> None:
    async with replicated(tmp_path, three(), hedge=NO_HEDGES) as (mesh, replicas):
        for number in range(30):
            await mesh.search(f"search {number}")

        assert replicas.served() == [10, 10, 10]


async def test_the_death_of_a_replica_fails_no_search_and_its_return_is_noticed(
    tmp_path: Path,
) -> None:
    async with replicated(tmp_path, three(), hedge=NO_HEDGES) as (mesh, replicas):

        async def kill_one() -> None:
            await eventually(lambda: all(len(r.requests) > 5 for r in replicas.lists))
            await replicas.stop(0)
            replicas.served()
            await eventually(lambda: all(len(r.requests) > 20 for r in replicas.lists[1:]))

        answers = await searching(mesh, kill_one)
        without, *others = replicas.served()
        await replicas.start(0)

        async def called_again() -> bool:
            await mesh.search("is it back")
            return bool(replicas.lists[0].requests)

        await eventually(called_again)

    assert without == 0
    assert abs(others[0] - others[1]) <= 8
    assert {tuple(degraded(a)) for a in answers} == {("ranker",)}, "there is no ranker here"
    assert all(len(a.results) == 10 for a in answers)


async def test_a_call_in_flight_at_a_replica_that_closes_is_repeated_at_another(
    tmp_path: Path,
) -> None:
    async with replicated(tmp_path, three(), hedge=NO_HEDGES) as (mesh, replicas):
        replicas.lists[0].delay_s = 1.5
        searches = [asyncio.create_task(mesh.search(f"in flight {n}")) for n in range(3)]
        await eventually(lambda: bool(replicas.lists[0].requests))
        await replicas.stop(0)
        answers = await asyncio.gather(*searches)

    assert sum(len(r.requests) for r in replicas.lists) > 3, "one was asked again"
    assert {tuple(degraded(a)) for a in answers} == {("ranker",)}
    assert all(len(a.results) == 10 for a in answers)


async def test_a_call_that_a_closing_replica_cancelled_is_repeated_at_another(
    tmp_path: Path,
) -> None:
    async with replicated(tmp_path, three(), hedge=NO_HEDGES) as (mesh, replicas):
        replicas.lists[0].error = CancelledError("what a server says to calls it never began")
        answers = [await mesh.search(f"search {n}") for n in range(6)]

    cancelled = len(replicas.lists[0].requests)
    assert cancelled > 0
    assert sum(len(r.requests) for r in replicas.lists) == 6 + cancelled, "each was asked again"
    assert {tuple(degraded(a)) for a in answers} == {("ranker",)}


async def test_a_replica_that_drains_is_left_while_it_still_serves(tmp_path: Path) -> None:
    async with replicated(tmp_path, three(), drain_s=1.0, hedge=NO_HEDGES) as (mesh, replicas):
        stopping = asyncio.create_task(replicas.stop(0))
        await eventually(lambda: not stopping.done())

        async def left() -> bool:
            replicas.served()
            await asyncio.gather(*(mesh.search("is it left") for _ in range(6)))
            return not replicas.lists[0].requests

        await eventually(left)
        draining = not stopping.done()
        answers = await searching(mesh, lambda: stopping)

    assert draining, "it was left before it stopped"
    assert not replicas.lists[0].requests
    assert {tuple(degraded(a)) for a in answers} == {("ranker",)}


async def test_without_any_replica_searches_degrade_at_once(tmp_path: Path) -> None:
    lists = [ListGenerator("lexical", IDS[:20]) for _ in range(2)]
    async with replicated(tmp_path, lists) as (mesh, replicas):
        await replicas.close()
        started = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await mesh.search("nobody is there")

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 1.0


async def latencies(folder: Path, hedge: dict[str, Any]) -> tuple[list[float], Stalling]:
    """Search one after the other over two replicas, one of which stalls in 1 of 20 calls."""
    slow = Stalling("lexical", IDS[:20])
    lists = [ListGenerator("lexical", IDS[:20]), slow]
    measured = []
    async with replicated(folder, lists, hedge=hedge) as (mesh, _):
        for number in range(160):
            started = time.perf_counter()
            answer = await mesh.search(f"search {number}")
            measured.append(time.perf_counter() - started)
            assert len(set(ids(answer))) == 10
            assert len(answer.outcomes) == 1
        await asyncio.sleep(0)
    return sorted(measured), slow


async def test_hedging_cuts_the_tail_that_one_slow_replica_makes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folders = tmp_path_factory.mktemp
    alone, _ = await latencies(folders("alone"), NO_HEDGES)
    hedged, slow = await latencies(folders("hedged"), {"most_share": 0.1, "most_ms": 60})

    p99 = round(0.985 * len(alone))
    assert alone[p99] > 0.15
    assert hedged[p99] < 0.15
    assert len(slow.requests) - slow.finished >= 2, "the losers were cancelled"


async def test_a_hedge_has_no_more_time_than_its_call(tmp_path: Path) -> None:
    lists = [ListGenerator("lexical", IDS[:20]) for _ in range(2)]
    targets: dict[str, Any] = {"most_share": 1.0, "least_ms": 10, "most_ms": 10}
    async with replicated(tmp_path, lists, hedge=targets) as (mesh, replicas):
        for replica in replicas.lists:
            replica.delay_s = 5.0
        started = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await mesh.search("both are slow", timeout_s=0.5)

    assert refused.value.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    assert time.monotonic() - started < 1.0
    assert [len(r.requests) for r in replicas.lists] == [1, 1]


async def test_both_calls_of_a_hedge_are_in_the_trace_none_as_an_error_and_are_counted(
    tmp_path: Path,
) -> None:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = Telemetry.in_memory("orchestrator", spans, readers=[metrics])
    lists = [ListGenerator("lexical", IDS[:20]) for _ in range(2)]
    hedge = {"most_share": 1.0, "least_ms": 30, "most_ms": 30}
    async with replicated(tmp_path, lists, hedge=hedge, telemetry=telemetry) as (mesh, _):
        lists[0].delay_s = 5.0
        hedged = []
        while not hedged:
            answer = await mesh.search("one of two is slow")
            trace_id = int(answer.trace_id, 16)
            calls = [
                s
                for s in spans.get_finished_spans()
                if s.context.trace_id == trace_id and s.name.endswith("/Generate")
            ]
            hedged = calls if len(calls) == 2 else []

    codes = sorted(s.attributes["rpc.grpc.status_code"] for s in hedged)
    assert codes == [0, 1]
    assert len({s.parent.span_id for s in hedged}) == 1
    assert all(s.status.status_code is StatusCode.UNSET for s in hedged)
    assert '"won"' in metrics.get_metrics_data().to_json()
    telemetry.shutdown()

import asyncio
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forage.errors import StartupError
from forage.log.engines import open_log
from forage.serving import serve
from forage.telemetry import Telemetry
from forage.testing import catalog
from forage.testing.probe import GRPC_SERVICE, SECRET, SERVICE, ProbeSettings, install
from forage.testing.serving import eventually
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc
from forage.v1 import query_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SCHEMA = Path("config/films.schema.yaml").absolute()


def settings(data: Path, **values: Any) -> ProbeSettings:
    server = {"grace_ms": 5_000, **values.pop("server", {})}
    return ProbeSettings.model_validate(
        {"data_dir": data, "schema_file": SCHEMA, "server": server, **values}
    )


@asynccontextmanager
async def probe(chosen: ProbeSettings) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Task]]:
    """Serves the probe; yields its target, its stop event, and the task that serves."""
    stop = asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    telemetry = Telemetry.in_memory("probe", InMemorySpanExporter())
    task = asyncio.create_task(
        serve(SERVICE, chosen, stop=stop, on_listening=listening.set_result, telemetry=telemetry)
    )
    await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield f"127.0.0.1:{listening.result()}", stop, task
    finally:
        stop.set()
        await task


async def generate(target: str, text: str = "") -> pb.GenerateResponse:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = pb_grpc.CandidateGeneratorServiceStub(channel)
        request = pb.GenerateRequest(query=query_pb2.Query(text=text))
        return await stub.Generate(request, timeout=10)


async def health(target: str, service: str = GRPC_SERVICE) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        return int(answer.status)


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)
    found = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(found)
    return found


async def test_a_service_answers(tmp_path):
    async with probe(settings(tmp_path)) as (target, _, _):
        response = await generate(target, "echo")

    assert response.hits[0].item_id == "echo"


async def test_health_turns_serving_once_the_log_is_caught_up(tmp_path):
    log = open_log("sqlite:log.db", tmp_path)
    log.append([catalog.upsert(item) for item in catalog.items()])
    log.close()
    gate = tmp_path / "gate"

    async with probe(settings(tmp_path, gate=gate)) as (target, _, _):
        assert await health(target) == NOT_SERVING
        assert await health(target, "") == NOT_SERVING
        gate.touch()

        async def serving() -> bool:
            return await health(target) == SERVING

        await eventually(serving)
        assert await health(target, "") == SERVING


async def test_the_health_of_an_unknown_service_is_not_found(tmp_path):
    async with probe(settings(tmp_path)) as (target, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await health(target, "forage.v1.NoSuchService")

    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_every_service(tmp_path):
    async with probe(settings(tmp_path)) as (target, _, _):

        def reflected() -> set[str]:
            with grpc.insecure_channel(target) as channel:
                return set(ProtoReflectionDescriptorDatabase(channel).get_services())

        found = await asyncio.to_thread(reflected)

    assert found == {
        GRPC_SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_an_error_of_ours_carries_its_reason_and_metadata(tmp_path):
    async with probe(settings(tmp_path)) as (target, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await generate(target, "refuse")

    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.details() == "query.text: it says so; allowed: anything else"
    found = info(failed.value)
    assert (found.reason, found.domain) == ("INVALID_FIELD", "forage")
    assert dict(found.metadata) == {"field": "query.text", "allowed": "anything else"}


async def test_an_unexpected_error_is_internal_with_its_trace_and_nothing_else(tmp_path, caplog):
    async with probe(settings(tmp_path)) as (target, _, _):
        with (
            caplog.at_level(logging.ERROR, "forage.serving"),
            pytest.raises(grpc.aio.AioRpcError) as failed,
        ):
            await generate(target, "break")

    details = failed.value.details() or ""
    trace_id = details.rpartition(" ")[2]
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert details == f"internal error; trace {trace_id}"
    assert int(trace_id, 16) > 0
    assert info(failed.value).reason == "INTERNAL"
    assert trace_id in caplog.text
    assert SECRET in caplog.text


async def test_calls_beyond_the_limit_are_refused_as_exhausted(tmp_path):
    gate = tmp_path / "gate"
    chosen = settings(tmp_path, gate=gate, server={"max_concurrent": 2})
    async with probe(chosen) as (target, _, _):
        calls = [asyncio.create_task(generate(target, "wait")) for _ in range(5)]

        async def three_have_ended() -> bool:
            return sum(call.done() for call in calls) == 3

        await eventually(three_have_ended)
        refused = [call.exception() for call in calls if call.done()]
        gate.touch()
        results = await asyncio.gather(*calls, return_exceptions=True)

    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert all(isinstance(e, grpc.aio.AioRpcError) and e.code() is exhausted for e in refused)
    assert sum(isinstance(r, pb.GenerateResponse) for r in results) == 2


async def test_a_message_that_is_too_large_is_refused(tmp_path):
    async with probe(settings(tmp_path, server={"max_message_bytes": 2**16})) as (target, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await generate(target, "x" * 2**17)

    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stopping_service_says_so_and_finishes_its_calls(tmp_path):
    gate = tmp_path / "gate"
    chosen = settings(tmp_path, gate=gate, server={"drain_delay_ms": 300})
    async with probe(chosen) as (target, stop, task):
        await eventually(lambda: _is(target, SERVING))
        waiting = asyncio.create_task(generate(target, "wait"))
        await generate(target, "echo")
        stop.set()
        await eventually(lambda: _is(target, NOT_SERVING))
        assert (await generate(target, "late")).hits[0].item_id == "late"
        gate.touch()

        assert (await waiting).hits[0].item_id == "wait"
        await task
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await generate(target, "echo")

    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def _is(target: str, status: int) -> bool:
    return await health(target) == status


async def test_a_call_that_outlasts_the_grace_is_cut_off(tmp_path):
    chosen = settings(tmp_path, gate=tmp_path / "gate", server={"grace_ms": 100})
    async with probe(chosen) as (target, stop, task):
        waiting = asyncio.create_task(generate(target, "wait"))
        await eventually(lambda: _is(target, SERVING))
        await generate(target, "echo")
        stop.set()
        await task

        with pytest.raises(grpc.aio.AioRpcError):
            await waiting


async def test_a_taken_port_keeps_a_service_from_starting(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(StartupError, match=rf"server\.port: cannot listen on .*:{port}"):
            async with probe(settings(tmp_path, server={"port": port})):
                pass


async def test_a_service_that_refuses_to_start_leaves_nothing_open(tmp_path):
    with pytest.raises(StartupError, match="no model"):
        async with probe(settings(tmp_path, refuse="no model")):
            pass

    async with probe(settings(tmp_path)) as (target, _, _):
        assert (await generate(target, "echo")).hits


async def test_a_bad_schema_keeps_a_service_from_starting(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: films\n")

    with pytest.raises(StartupError, match=r"bad\.yaml"):
        async with probe(settings(tmp_path, schema_file=tmp_path / "bad.yaml")):
            pass


def newer(data: Path) -> None:
    open_log("sqlite:log.db", data).close()
    with closing(sqlite3.connect(data / "log.db")) as connection:
        connection.execute("PRAGMA user_version = 99")


def truncated(data: Path) -> None:
    log = open_log("sqlite:log.db", data)
    log.append([catalog.upsert(item) for item in catalog.items()])
    log.close()
    os.truncate(data / "log.db", 10_000)


def no_log(data: Path) -> None:
    (data / "log.db").write_text("item_id,title\n")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [(newer, "version 99"), (truncated, "malformed"), (no_log, "not a database")],
)
async def test_a_log_that_is_newer_or_damaged_keeps_a_service_from_starting_and_is_left_alone(
    tmp_path, spoil, problem
):
    spoil(tmp_path)
    before = (tmp_path / "log.db").read_bytes()

    with pytest.raises(StartupError, match=problem) as refused:
        async with probe(settings(tmp_path)):
            pass

    assert str(tmp_path / "log.db") in refused.value.message
    assert (tmp_path / "log.db").read_bytes() == before


async def test_a_data_folder_that_is_a_file_keeps_a_service_from_starting(tmp_path):
    (tmp_path / "data").write_text("no folder")

    with pytest.raises(StartupError, match="data"):
        async with probe(settings(tmp_path / "data")):
            pass


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """The command line of a probe in a process of its own."""
    install(tmp_path / "path", "probe")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"), prepend=os.pathsep)
    return [
        *(sys.executable, "-m", "forage.cli", "serve", "probe", "--data", str(tmp_path / "data")),
        *("--set", f"schema_file={SCHEMA}"),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_process(tmp_path, command, number):
    gate = tmp_path / "gate"
    process = await asyncio.create_subprocess_exec(
        *command, "--set", f"gate={gate}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    target = line.removeprefix("listening on ").strip()
    waiting = asyncio.create_task(generate(target, "wait"))
    await eventually(lambda: _is(target, SERVING))
    await generate(target, "echo")

    process.send_signal(number)
    gate.touch()
    answer = await waiting
    out, err = await asyncio.wait_for(process.communicate(), 30)

    assert answer.hits[0].item_id == "wait"
    assert process.returncode == 0, err
    assert out == b""
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--set", "refuse=no model file"], b"error: no model file\n"),
        (["--config", "absent.yaml"], b"absent.yaml"),
    ],
)
async def test_a_startup_error_is_a_message_and_status_2(command, wrong, message):
    process = await asyncio.create_subprocess_exec(
        *command, *wrong, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 2
    assert out == b""
    assert message in err
    assert b"Traceback" not in err

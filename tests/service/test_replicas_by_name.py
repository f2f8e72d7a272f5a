"""Replicas behind one name: real servers on several addresses, and a real name server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml

from forage.channel import channel_options, replicated
from forage.settings import GeneratorSettings, ServerSettings
from forage.testing import catalog
from forage.testing.lists import ListGenerator
from forage.testing.serving import eventually, running
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc
from tests.service.name_server import NameServer

NAME = "lexical.search.test"
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


class ByName:
    """One server per address, all on one port, and a channel to their name."""

    def __init__(self, folder: Path, names: NameServer, *, age_ms: int) -> None:
        self.names = names
        self.lists = {a: ListGenerator("lexical", ("film:1",)) for a in ADDRESSES}
        self.port = 0
        self._folder = folder
        self._age_ms = age_ms
        self._servers: dict[str, AsyncExitStack] = {}
        self._channel: grpc.aio.Channel | None = None

    async def start(self, address: str, *, drain_s: float = 0.0) -> None:
        server = ServerSettings(
            host=address,
            port=self.port,
            grace_ms=300,
            drain_delay_ms=round(1_000 * drain_s),
            max_connection_age_ms=self._age_ms,
        )
        settings = GeneratorSettings(
            data_dir=self._folder, schema_file=self._folder / "schema.yaml", server=server
        )
        stack = self._servers[address] = AsyncExitStack()
        service = self.lists[address].service()
        self.port = await stack.enter_async_context(running(service, settings))

    async def stop(self, address: str) -> None:
        await self._servers.pop(address).aclose()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        for address in list(self._servers):
            await self.stop(address)

    def connect(self) -> None:
        """As `forage.channel.connect`, but asking our name server and not the system's."""
        address = f"dns:///{NAME}:{self.port}"
        assert replicated(address)
        self._channel = grpc.aio.insecure_channel(
            f"dns://{self.names.address}/{NAME}:{self.port}",
            options=channel_options(address, 2**20, repeatable=True),
        )

    async def call(self, timeout_s: float = 5.0) -> None:
        assert self._channel is not None
        stub = pb_grpc.CandidateGeneratorServiceStub(self._channel)
        found = await stub.Generate(pb.GenerateRequest(limit=5), timeout=timeout_s)
        assert [hit.item_id for hit in found.hits] == ["film:1"]

    async def calls(self, count: int) -> list[int]:
        """Call one after the other; return how many calls each address has had."""
        for replica in self.lists.values():
            replica.requests.clear()
        for _ in range(count):
            await self.call()
        return [len(replica.requests) for replica in self.lists.values()]

    async def spread(self, *addresses: str) -> bool:
        """Return whether exactly these addresses have had some of a few calls."""
        counts = await self.calls(6)
        return [bool(n) for n in counts] == [a in addresses for a in ADDRESSES]


@asynccontextmanager
async def by_name(folder: Path, *meant: str, age_ms: int = 300_000) -> AsyncIterator[ByName]:
    text = yaml.safe_dump(catalog.SCHEMA.model_dump(mode="json"), sort_keys=False)
    (folder / "schema.yaml").write_text(text)
    with NameServer(NAME, list(meant)) as names:
        replicas = ByName(folder, names, age_ms=age_ms)
        try:
            for address in ADDRESSES:
                await replicas.start(address)
            replicas.connect()
            await eventually(lambda: replicas.spread(*meant))
            yield replicas
        finally:
            await replicas.close()


async def test_calls_go_round_all_addresses_of_a_name(tmp_path: Path) -> None:
    async with by_name(tmp_path, *ADDRESSES) as replicas:
        assert await replicas.calls(30) == [10, 10, 10]


async def test_an_address_whose_health_says_no_is_left_while_it_still_serves(
    tmp_path: Path,
) -> None:
    async with by_name(tmp_path, *ADDRESSES) as replicas:
        await replicas.stop("127.0.0.2")
        await replicas.start("127.0.0.2", drain_s=2.0)
        await eventually(lambda: replicas.spread(*ADDRESSES))
        stopping = asyncio.create_task(replicas.stop("127.0.0.2"))

        await eventually(lambda: replicas.spread("127.0.0.1", "127.0.0.3"))

        assert not stopping.done(), "it was left before it stopped"
        assert await replicas.calls(20) == [10, 0, 10]
        await stopping


async def test_an_address_that_drains_and_stops_fails_no_call_and_its_return_is_noticed(
    tmp_path: Path,
) -> None:
    async with by_name(tmp_path, *ADDRESSES) as replicas:
        done = asyncio.Event()

        async def calling() -> int:
            made = 0
            while not done.is_set():
                await replicas.call()
                made += 1
            return made

        await replicas.stop("127.0.0.3")
        await replicas.start("127.0.0.3", drain_s=1.0)
        await eventually(lambda: replicas.spread(*ADDRESSES))
        callers = [asyncio.create_task(calling()) for _ in range(4)]
        await replicas.stop("127.0.0.3")
        await eventually(lambda: len(replicas.lists["127.0.0.1"].requests) > 50)
        done.set()
        made = await asyncio.gather(*callers)

        assert all(made)
        assert await replicas.calls(20) == [10, 10, 0]
        await replicas.start("127.0.0.3")
        await eventually(lambda: replicas.spread(*ADDRESSES))


async def test_an_address_that_is_new_to_the_name_is_called_when_a_connection_is_renewed(
    tmp_path: Path,
) -> None:
    async with by_name(tmp_path, "127.0.0.1", "127.0.0.2", age_ms=1_000) as replicas:
        assert not await replicas.spread(*ADDRESSES), "nobody knows the new address yet"

        replicas.names.addresses = list(ADDRESSES)
        await eventually(lambda: replicas.spread(*ADDRESSES), timeout_s=10.0)
        assert replicas.lists["127.0.0.3"].requests

        replicas.names.addresses = ["127.0.0.2"]
        await eventually(lambda: replicas.spread("127.0.0.2"), timeout_s=10.0)
        assert not replicas.lists["127.0.0.1"].requests
        assert not replicas.lists["127.0.0.3"].requests


async def test_a_name_that_means_nothing_fails_at_once(tmp_path: Path) -> None:
    with NameServer("another.test", []) as names:
        replicas = ByName(tmp_path, names, age_ms=1_000)
        replicas.port = 7_101
        replicas.connect()
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await replicas.call(timeout_s=20.0)
        await replicas.close()

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert NAME in str(refused.value.details())
    assert time.monotonic() - began < 10.0

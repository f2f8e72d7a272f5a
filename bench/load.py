"""Load on a search server: one client for latency, several for throughput."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from forage.v1 import search_service_pb2 as pb
from forage.v1 import search_service_pb2_grpc as pb_grpc


@dataclass
class Measured:
    """What a run of searches took."""

    seconds: list[float] = field(default_factory=list)
    responses: list[pb.SearchResponse] = field(default_factory=list)
    failures: int = 0
    elapsed_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Searches answered per second."""
        return len(self.seconds) / self.elapsed_s


async def run(
    address: str, texts: Sequence[str], *, clients: int, keep: bool = False, most_s: float = 60.0
) -> Measured:
    """Search every text once, `clients` at a time, for at most `most_s` seconds."""
    measured = Measured()
    waiting = iter(texts)
    began = time.perf_counter()

    async def client() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = pb_grpc.SearchServiceStub(channel)
            for text in waiting:
                start = time.perf_counter()
                if start - began > most_s:
                    return
                try:
                    response = await stub.Search(pb.SearchRequest(text=text), timeout=10)
                except grpc.aio.AioRpcError:
                    measured.failures += 1
                    continue
                measured.seconds.append(time.perf_counter() - start)
                if keep:
                    measured.responses.append(response)

    await asyncio.gather(*(client() for _ in range(clients)))
    measured.elapsed_s = time.perf_counter() - began
    return measured


def searches(
    address: str, texts: Sequence[str], *, clients: int = 1, keep: bool = False
) -> Measured:
    """Run `run` to its end."""
    return asyncio.run(run(address, texts, clients=clients, keep=keep))

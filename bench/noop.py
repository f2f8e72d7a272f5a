"""The no-op mesh: the same calls with the same messages as one real search, and nothing else.

A front server takes the search, calls five servers in parallel and then a sixth, and answers;
every answer was recorded from the real mesh. What it costs is the price of gRPC and Python.
"""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

SEARCH = "/forage.v1.SearchService/Search"
GENERATE = "/forage.v1.CandidateGeneratorService/Generate"
RANK = "/forage.v1.RankerService/Rank"


def _handler(method: str, answer: Any, request_class: Any) -> grpc.GenericRpcHandler:
    service, name = method.strip("/").split("/")
    unary: Any = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request_class.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(service, {name: unary})


async def _serve(handler: grpc.GenericRpcHandler) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    # The end of standard input is the end of the benchmark.
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def leaf(recorded: dict[str, Any], method: str) -> None:
    """Serve one recorded answer."""
    request, response = recorded[method]

    async def answer(_request: Any, _context: Any) -> Any:
        return response

    await _serve(_handler(method, answer, type(request)))


async def front(recorded: dict[str, Any], ports: list[int]) -> None:
    """Serve searches by calling the leaves as a search does."""
    search_request, search_response = recorded[SEARCH]
    generate_request, generate_response = recorded[GENERATE]
    rank_request, rank_response = recorded[RANK]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{p}") for p in ports]

    def stub(channel: Any, method: str, response: Any) -> Any:
        return channel.unary_unary(
            method,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=type(response).FromString,
        )

    generators = [stub(c, GENERATE, generate_response) for c in channels[:-1]]
    ranker = stub(channels[-1], RANK, rank_response)

    async def answer(_request: Any, _context: Any) -> Any:
        await asyncio.gather(*(g(generate_request, timeout=5) for g in generators))
        await ranker(rank_request, timeout=5)
        return search_response

    await _serve(_handler(SEARCH, answer, type(search_request)))


@contextmanager
def mesh(recording: Path, generators: int) -> Iterator[str]:
    """Run the no-op mesh; yields the address of its front."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> int:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.noop", str(recording), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        return int(child.stdout.readline())

    try:
        ports = [start(GENERATE) for _ in range(generators)]
        ports.append(start(RANK))
        yield f"127.0.0.1:{start(SEARCH, *map(str, ports))}"
    finally:
        for child in children:
            child.communicate(timeout=10)


def main() -> None:
    """Serve one of the no-op servers: RECORDING METHOD [PORT...]."""
    # The recording is a file that this benchmark wrote a moment ago.
    recorded = pickle.loads(Path(sys.argv[1]).read_bytes())
    if sys.argv[2] == SEARCH:
        asyncio.run(front(recorded, [int(p) for p in sys.argv[3:]]))
    else:
        asyncio.run(leaf(recorded, sys.argv[2]))


if __name__ == "__main__":
    main()

"""A real orchestrator for the tests of its clients: on a thread of its own, at the end of a line.

What the clients are told to expect of a mesh that fails is brought about for real where that is
quick (a log that cannot be read, a generator that is gone), and on the line otherwise.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from forage import wire
from forage.catalog import Item
from forage.errors import ForageError
from forage.log import Record, Stream
from forage.serving import ErrorInterceptor
from forage.testing.lists import ListGenerator
from forage.v1 import feedback_service_pb2, item_pb2
from tests.service.orchestrator_mesh import IDS, BrittleLog, Mesh, meshed, on_log

ResultT = TypeVar("ResultT")
NIGHT, RISING = "film:night-of-the-copper-moon", "film:copper-moon-rising"
WRITTEN = "film:written-by-a-test"
"""An item that is found, and that the catalogue does not hold until a test puts it there."""
SHOWN = [NIGHT, RISING, *(i for i in IDS if i not in (NIGHT, RISING))]
"""The catalogue in the order in which every search shows it."""
_MOST = 100_000


def lists() -> list[ListGenerator]:
    """One generator that finds everything, and one that is asked if the first is switched off."""
    # The ranker of these tests reverses what it gets.
    return [ListGenerator("titles", [*reversed(SHOWN), WRITTEN]), ListGenerator("others", IDS[:5])]


class Line(grpc.GenericRpcHandler):
    """Carries calls to a server as they are, but for those that it is told to fail."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.mend()

    def mend(self) -> None:
        """Forget the past, and carry everything."""
        self.calls: list[str] = []
        """The methods called, failures included."""
        self.failures: deque[ForageError] = deque()
        """The next calls fail with these, one each, and do not arrive."""
        self.failure_after: ForageError | None = None
        """The next call arrives, and its answer is lost: it fails with this."""
        self._refused: dict[str, tuple[int, ForageError]] = {}

    def refuse(self, method: str, failure: ForageError, *, after: int = 0) -> None:
        """Fail every call of a method but the first so many."""
        self._refused[method] = (self.calls.count(method) + after, failure)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        async def carry(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            self._fail(method.rpartition("/")[2])
            lost, self.failure_after = self.failure_after, None
            try:
                answer: bytes = await self._channel.unary_unary(method)(
                    request, timeout=context.time_remaining()
                )
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(tuple(error.trailing_metadata()))
                await context.abort(error.code(), error.details() or "")
            if lost is not None:
                raise lost
            return answer

        return grpc.unary_unary_rpc_method_handler(carry)

    def _fail(self, method: str) -> None:
        self.calls.append(method)
        if self.failures:
            raise self.failures.popleft()
        passing, failure = self._refused.get(method, (_MOST, None))
        if failure is not None and self.calls.count(method) > passing:
            raise failure


class Served:
    """A mesh that runs on another thread, its addresses, and what its log says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.log = BrittleLog()
        self.mesh: Mesh
        self.line: Line
        self.address: str
        """Of the line."""
        self._start: dict[Stream, int] = {}

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run something in the mesh's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def open(self, stack: AsyncExitStack, folder: Path, **changes: Any) -> None:
        """Start everything; `stack` ends it."""
        self.mesh = await stack.enter_async_context(
            meshed(folder, service=on_log(self.log), **changes)
        )
        stack.callback(self.log.readable.set)
        channel = grpc.aio.insecure_channel(self.mesh.address)
        self.line = Line(await stack.enter_async_context(channel))
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        server.add_generic_rpc_handlers((self.line,))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        stack.push_async_callback(server.stop, 0)

    def begin(self) -> None:
        """Let a test begin: the line is whole, and what was logged before is not its business."""
        self.line.mend()
        for generator in self.mesh.generators.values():
            generator.requests.clear()
        self._start = {stream: self.log.head(stream.topic) for stream in Stream}

    def logged(self, stream: Stream) -> Sequence[Record]:
        """Return what was logged since the test began."""
        return self.log.read(stream.topic, self._start[stream], _MOST, (stream,))

    def items(self) -> dict[str, Item]:
        """Return the items written since the test began, as they are now."""
        items: dict[str, Item] = {}
        for record in self.logged(Stream.CATALOG):
            change = item_pb2.CatalogRecord.FromString(record.payload)
            if change.WhichOneof("change") == "upsert":
                items[record.key] = wire.item_from_proto(change.upsert)
            else:
                items.pop(record.key, None)
        return items

    def events(self) -> dict[str, feedback_service_pb2.FeedbackEvent]:
        """Return the feedback recorded since the test began, by event id."""
        read = feedback_service_pb2.FeedbackEvent.FromString
        return {record.key: read(record.payload) for record in self.logged(Stream.FEEDBACK)}


@contextmanager
def served(folder: Path, **changes: Any) -> Iterator[Served]:
    """Run a mesh on a thread until the block ends; `changes` are those of `meshed`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="served", daemon=True)
    thread.start()
    found, stack = Served(loop), AsyncExitStack()
    plan = {"static": {"titles": 100}, "presets": [{"titles": 100}]}
    try:
        found.run(
            found.open(
                stack,
                folder,
                **{
                    "generators": lists(),
                    "plan": plan,
                    # A learner would publish snapshots while the tests look.
                    "learner": {"enabled": False},
                    **changes,
                },
            )
        )
        found.begin()
        yield found
    finally:
        found.run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def stuck(folder: Path) -> Iterator[tuple[Served, int]]:
    """Run a mesh in which a write never arrives: a log unread, a generator gone, one not ready.

    Yields the mesh and the sequence that it does not reach.
    """
    with served(folder) as found:
        found.run(found.mesh.kill("others"))
        found.mesh.generators["titles"].ready = False
        found.log.readable.clear()
        films = [item for item in IDS if item.startswith("film:")][:7]
        sequence = found.run(found.mesh.delete(*films))
        yield found, sequence

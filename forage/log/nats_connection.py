"""One connection to NATS for a whole process, used from any thread."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from forage.errors import StartupError, StorageError
from forage.log.nats_login import login, servers_of
from forage.settings import NatsSettings

MINIMUM_VERSION = (2, 12)
"""The first server with atomic batches (2.12); direct batched reads came with 2.11."""
FULL = {10077, 10109, 10054}
"""Refusals that mean: the stream has as much as it may have."""
_RECONNECT_S = 0.2
_REVIVE_S = 1.0
_CLOSE_S = 5.0
_STUCK_S = 2.0
_ALLOWED = "the address of a NATS server that is up, such as nats://127.0.0.1:4222"
_logger = logging.getLogger(__name__)
T = TypeVar("T")
JSON: TypeAlias = dict[str, Any]


class _PlainTextError(errors.Error):
    """The server does not offer TLS."""


class _TlsClient(Client):
    """A client that never logs in without TLS; NATS's own goes on in plain text."""

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise _PlainTextError("the server does not offer TLS")
        return super()._connect_command()


class NatsConnection:
    """Runs work on an event loop of its own, and maps NATS's failures to `StorageError`.

    While the server is away every call fails at once, and the connection comes back by itself.
    Work that is under way when it is lost fails too: whether the server has done it is unknown,
    which is why every write of Forage can be repeated.
    """

    def __init__(self, servers: list[str], settings: NatsSettings) -> None:
        """Prepare to connect; use `open`."""
        self.settings = settings
        self._login = login(settings, servers)
        self.timeout_s = settings.request_timeout_ms / 1000
        self.name = ",".join(servers)
        self._servers = servers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._client = Client()
        self._problem = ""
        self._refused = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._revival: asyncio.Task[None] | None = None
        self._closing = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, url: str, settings: NatsSettings) -> NatsConnection:
        """Connect to the servers of `url`, such as `nats://a:4222,b:4222`.

        Raises `StartupError` naming the setting: an address that is none or not reachable, a
        login or certificate that is refused, or a server that is too old.
        """
        connection = cls(servers_of(url), settings)
        connection._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(connection._connect(), connection._loop).result()
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def client(self) -> Client:
        """The client, to be used on the loop only."""
        return self._client

    def run(self, work: Coroutine[Any, Any, T], doing: str, *, extra_s: float = 0.0) -> T:
        """Do some work on the loop; `doing` says what, such as `append`, in the error.

        Raises `StorageError` if the server is away, refuses, or has not answered after
        `request_timeout_ms` and `extra_s`.
        """
        if self._closed:
            work.close()
            raise StorageError(f"NATS at {self.name}: cannot {doing}: the log is closed")
        limit_s = self.timeout_s + extra_s
        guarded = self._guard(work, doing, limit_s)
        try:
            future = asyncio.run_coroutine_threadsafe(guarded, self._loop)
        except RuntimeError as error:
            guarded.close()
            work.close()
            raise self._failed(doing, "the log is closed") from error
        try:
            return future.result(limit_s + _STUCK_S)
        except TimeoutError as error:
            # The loop has ended, closed by another thread.
            raise self._failed(doing, "the log is closed") from error

    def close(self) -> None:
        """End what is under way, disconnect and end the thread. Closing twice is harmless."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(2 * _CLOSE_S)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(_CLOSE_S)
        self._loop.close()

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> JSON:
        """Return the JSON answer to a request of the JetStream API or to a publication.

        Raises `APIError` for an answer that is an error.
        """
        answer = await self._client.request(
            subject, payload, self.timeout_s, headers=dict(headers) if headers else None
        )
        parsed: JSON = json.loads(answer.data)
        if "error" in parsed:
            raise APIError.from_error(parsed["error"])
        return parsed

    async def api(self, name: str, /, **arguments: object) -> JSON:
        """Call the JetStream API, such as `STREAM.INFO.forage_catalog`."""
        payload = json.dumps(arguments).encode() if arguments else b""
        return await self.request(f"$JS.API.{name}", payload)

    async def listen(self, subject: str, hear: Callable[[Msg], Awaitable[None]], most: int) -> None:
        """Have `hear` called for the next `most` messages on a subject."""
        subscription = await self._client.subscribe(subject, cb=hear)
        await subscription.unsubscribe(limit=most)

    async def _guard(self, work: Coroutine[Any, Any, T], doing: str, limit_s: float) -> T:
        if not self._client.is_connected:
            work.close()
            raise self._failed(doing, f"not connected: {self._problem or 'connecting'}")
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except APIError as error:
            raise self._failed(doing, error.description or str(error)) from error
        except errors.NoRespondersError as error:
            raise self._failed(doing, "JetStream or the stream's leader is away") from error
        except (TimeoutError, errors.TimeoutError) as error:
            raise self._failed(doing, "no answer in time; it may have been done") from error
        except (errors.Error, OSError) as error:
            raise self._failed(doing, str(error)) from error
        except asyncio.CancelledError as error:
            because = "the log is closed" if self._closed else "the connection was lost"
            raise self._failed(doing, f"{because}; it may have been done") from error
        finally:
            if task is not None:
                self._calls.discard(task)

    def _failed(self, doing: str, because: str) -> StorageError:
        return StorageError(
            f"NATS at {self.name}: cannot {doing}: {because}", metadata={"servers": self.name}
        )

    async def _connect(self) -> None:
        self._refused.clear()
        client = _TlsClient() if self._servers[0].startswith("tls:") else Client()
        attempt = asyncio.ensure_future(
            client.connect(
                self._servers,
                name="forage",
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_S,  # type: ignore[arg-type]
                connect_timeout=2,
                # A server behind a partition is given up after three seconds without a word.
                ping_interval=1,
                max_outstanding_pings=2,
                # Nothing is kept for later: a caller was told that it failed, and may repeat it.
                pending_size=0,
                **self._login,
            )
        )
        refused = asyncio.ensure_future(self._refused.wait())
        limit_s = self.settings.connect_timeout_ms / 1000
        await asyncio.wait({attempt, refused}, timeout=limit_s, return_when="FIRST_COMPLETED")
        refused.cancel()
        connected = attempt.done() and attempt.exception() is None
        if not connected:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        try:
            if not connected:
                raise self._unreachable(attempt)
            self._check(client)
        except StartupError:
            self._client = client
            raise
        self._client, self._problem = client, ""

    def _unreachable(self, attempt: asyncio.Future[None]) -> StartupError:
        error = None if attempt.cancelled() else attempt.exception()
        why = self._problem or str(error or "") or "no answer"
        if "authorization" in why.lower() or "authentication" in why.lower():
            return StartupError(
                f"nats.user, nats.password, nats.token, nats.creds: NATS at {self.name} refuses"
                f" this login ({why.removeprefix('nats: ')}); allowed: one that the server knows"
            )
        if self._refused.is_set():
            return StartupError(
                f"nats.tls_ca_file, nats.tls_cert_file: no TLS with NATS at {self.name}: {why}"
            )
        return StartupError(
            f"log_url: cannot reach NATS at {self.name} within"
            f" {self.settings.connect_timeout_ms} ms: {why}; allowed: {_ALLOWED}"
        )

    def _check(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < MINIMUM_VERSION:
            raise StartupError(
                f"log_url: NATS at {self.name} is version"
                f" {version.major}.{version.minor}.{version.patch}; allowed:"
                f" {'.'.join(map(str, MINIMUM_VERSION))} or newer, for atomic batches",
            )

    async def _on_error(self, error: Exception) -> None:
        if self._refused.is_set():
            # What follows a refusal is only its consequence.
            return
        self._problem = str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError | _PlainTextError) or "uthorization" in self._problem:
            self._refused.set()

    async def _on_disconnected(self) -> None:
        if not self._closed:
            _logger.warning("NATS at %s is away: %s", self.name, self._problem or "disconnected")
        for task in list(self._calls):
            task.cancel()

    async def _on_reconnected(self) -> None:
        _logger.warning("NATS at %s is back", self.name)
        self._problem = ""
        self._refused.clear()

    async def _on_closed(self) -> None:
        # The client gives up for good when the server expels it, such as at an expired login.
        if not self._closed and self._client.is_closed:
            self._revival = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        while True:
            await asyncio.sleep(_REVIVE_S)
            try:
                await self._connect()
            except StartupError as error:
                _logger.warning("%s", error.message)
                self._problem = error.message
            else:
                await self._on_reconnected()
                return

    async def _shut(self) -> None:
        for task in list(self._calls):
            task.cancel()
        if self._revival is not None:
            self._revival.cancel()
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

"""One connection to Milvus, embedded or a server, whose failures are Forage's errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from forage.errors import StartupError, UnavailableError
from generators.milvus import login
from generators.milvus.embedded import EmbeddedMilvus
from generators.milvus.lean_pymilvus import MilvusClient, MilvusException
from generators.milvus.settings import MilvusSettings

T = TypeVar("T")

OLDEST = (2, 3, 2)
"""The first server with arrays, upserts and counts."""
BM25 = (2, 5, 0)
"""The first server that makes sparse vectors of texts and scores them by BM25."""
FAILURES = (MilvusException, grpc.RpcError)
"""What the client raises when a call fails."""
_POLL_S = 0.1
_UNPINGED = {"grpc.keepalive_time_ms": 2**31 - 1}
"""pymilvus pings every 10 s, for which Milvus Lite hangs up after three; a socket needs none."""
# What goes wrong is raised here and logged by whoever handles it; pymilvus logs every trace too.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class MilvusConnection:
    """Opens Milvus and calls it. Safe to use from several threads.

    If the embedded engine dies, the call that notices starts it again. If a server goes away, calls
    raise `UnavailableError` until it is back.
    """

    def __init__(
        self,
        settings: MilvusSettings,
        data_dir: Path,
        on_open: Callable[[MilvusClient], None] = lambda client: None,
        *,
        oldest: tuple[int, ...] = OLDEST,
        needed_by: str = "milvus.uri",
    ) -> None:
        """Describe the connection; raises `StartupError` for settings that do not go together.

        `on_open` is called with every new client of the embedded engine that starts again. `oldest`
        is the version that the setting `needed_by` needs.
        """
        login.check(settings)
        self._settings = settings
        self._engine = EmbeddedMilvus(data_dir / settings.uri) if settings.embedded else None
        self._on_open = on_open
        self._oldest = oldest
        self._needed_by = needed_by
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None

    @property
    def embedded(self) -> bool:
        """Whether the engine is Milvus Lite."""
        return self._engine is not None

    @property
    def process_id(self) -> int | None:
        """The embedded engine's process id; None for a server."""
        return self._engine.process_id if self._engine is not None else None

    def open(self) -> MilvusClient:
        """Connect and return the client.

        Raises `StartupError` naming the setting if a server cannot be used, and `UnavailableError`
        if the embedded engine does not start.
        """
        self.close()
        self._client = self._connect() if self._engine is not None else self._connect_to_server()
        return self._client

    def close(self) -> None:
        """Disconnect, and end the embedded engine. Closing twice is harmless."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._engine is not None:
            self._engine.stop()

    def intact(self) -> bool:
        """Return whether there is a sound file, or a server; call when closed."""
        return self._engine is None or self._engine.intact()

    def discard(self) -> None:
        """Delete the embedded engine's file, if there is one; call when closed."""
        if self._engine is not None:
            self._engine.discard()

    def call(self, work: Callable[[MilvusClient], T]) -> T:
        """Return what `work` does with the client; raises `UnavailableError` if it fails."""
        client = self._client
        if client is None:
            raise UnavailableError("Milvus: not connected")
        try:
            return work(client)
        except FAILURES as error:
            if self._engine is None or self._engine.answers():
                raise UnavailableError(f"Milvus: {login.text(error)}") from error
        try:
            return work(self._revived(client))
        except (*FAILURES, StartupError) as error:
            raise UnavailableError(f"Milvus: {login.text(error)}") from error

    def _revived(self, dead: MilvusClient) -> MilvusClient:
        with self._lock:
            if self._client is None:
                raise UnavailableError("Milvus: not connected")
            if self._client is dead:
                dead.close()
                assert self._engine is not None
                self._engine.stop()
                client = self._connect()
                self._on_open(client)
                self._client = client
            return self._client

    def _connect(self) -> MilvusClient:
        assert self._engine is not None
        try:
            return MilvusClient(
                self._engine.start(),
                timeout=self._settings.write_timeout_s,
                dedicated=True,
                grpc_options=_UNPINGED,
            )
        except FAILURES as error:
            raise UnavailableError(f"Milvus Lite: {login.text(error)}") from error

    def _connect_to_server(self) -> MilvusClient:
        end = time.monotonic() + self._settings.connect_timeout_s
        while True:
            try:
                return self._checked_client(max(_POLL_S, end - time.monotonic()))
            except FAILURES as error:
                if not login.passing(error) or time.monotonic() + _POLL_S >= end:
                    raise login.refusal(self._settings, error) from error
            time.sleep(_POLL_S)

    def _checked_client(self, timeout_s: float) -> MilvusClient:
        settings = self._settings
        client = MilvusClient(
            settings.uri, timeout=timeout_s, dedicated=True, **login.arguments(settings)
        )
        try:
            self._refuse_old(str(client.get_server_version(timeout=timeout_s)))
            # Only a call that names the database tells whether it exists.
            client.list_collections(timeout=timeout_s)
        except BaseException:
            client.close()
            raise
        # pymilvus would open a new channel in the thread of a search, without a deadline and under
        # a lock; the channel that there is reconnects by itself.
        client._handler._on_rpc_error = lambda error: False
        return client

    def _refuse_old(self, version: str) -> None:
        numbers = server_version(version)
        # A managed service may name its version otherwise; it is newer than what is refused here.
        if numbers and numbers < self._oldest:
            raise StartupError(
                f"{self._needed_by}: needs Milvus {'.'.join(map(str, self._oldest))} or newer, and"
                f" {self._settings.uri} (milvus.uri) is {version}"
            )


def server_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version such as `v2.3.5-lite`; empty if there are none."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()

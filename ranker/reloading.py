"""Which model is being served, and how a newer one takes its place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from forage.errors import ForageError
from forage.registry import Registry
from ranker.features import FeatureList
from ranker.model import KIND, PublishedModel, RankingModel

_RETRY_S = 10.0
_logger = logging.getLogger(__name__)


class ServedModel:
    """Follows the registry's current model.

    A new version is read, checked against its hash and the feature list, and warmed up, before one
    assignment makes it the served one: requests under way keep the model they began with. If
    anything is wrong with it, the model that is being served stays, and `error` says why.
    """

    def __init__(self, registry: Registry, features: FeatureList) -> None:
        """Serve nothing yet; see `refresh`."""
        self._registry = registry
        self._features = features
        self._served: PublishedModel | None = None
        self._refused: int | None = None
        self._retry_at = 0.0
        self.error = ""
        """Why the registry's current model is not the served one; empty if it is."""

    @property
    def current(self) -> PublishedModel | None:
        """The model to rank with; None until one is published."""
        return self._served

    @property
    def wanted_version(self) -> int:
        """The version that should be served: the served one or a refused newer one."""
        served = 0 if self._served is None else self._served.info.version
        return served if self._refused is None else self._refused

    def refresh(self) -> None:
        """Load the registry's current model if it is not the served one; never raises."""
        version = None
        try:
            served = None if self._served is None else self._served.info.version
            if not self._registry.changed(KIND, served):
                self._refused, self.error = None, ""
                return
            current = self._registry.current(KIND)
            version = None if current is None else current.version
            if version is None or self._wait_before_retry(version):
                return
            self._served = self._load(version)
            self._refused, self.error = None, ""
            _logger.info("serving ranker model %d", version)
        except ForageError as error:
            self._refuse(version, error)

    def _wait_before_retry(self, version: int) -> bool:
        return version == self._refused and time.monotonic() < self._retry_at

    def _load(self, version: int) -> PublishedModel:
        info, payload = self._registry.load(KIND, version)
        model = RankingModel.load(payload)
        model.check(self._features.names, self._features.version)
        model.warm_up()
        return PublishedModel(info, model)

    def _refuse(self, version: int | None, error: ForageError) -> None:
        kept = "the fused order" if self._served is None else f"model {self._served.info.version}"
        message = f"ranker model {version or 'current'} is not served: {error.message}"
        if message != self.error:
            _logger.error("%s; %s stays", message, kept)
        self.error = message
        self._refused = version
        self._retry_at = time.monotonic() + _RETRY_S


class Reloader:
    """Refreshes a `ServedModel` in the background."""

    def __init__(
        self,
        served: ServedModel,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
        *,
        interval_s: float,
    ) -> None:
        """Look every `interval_s` seconds; `in_thread` runs a blocking function elsewhere."""
        self._served = served
        self._in_thread = in_thread
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the current model, if there is one, and go on looking."""
        await self._in_thread(self._served.refresh)
        self._task = asyncio.create_task(self._run(), name="ranker-reload")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._in_thread(self._served.refresh)

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

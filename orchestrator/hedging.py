"""Hedging: a call in the slow tail is made again, to another replica, and the first answer counts.

Dean & Barroso, "The Tail at Scale", 2013: waiting for the 95th percentile first keeps the added
load at about 5 %, and a budget keeps it there when everything is slow.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from orchestrator.settings import HedgeSettings

ResponseT = TypeVar("ResponseT")
_RECENT = 400
_ENOUGH = 20
_RENEW_EVERY = 20
_MOST_SAVED = 10.0
"""Hedges that calls in good times may save up for bad ones."""


class Hedge:
    """Hedges the calls of one replicated service. Used from one event loop only."""

    def __init__(self, settings: HedgeSettings, on_hedged: Callable[[str], None]) -> None:
        """Tell `on_hedged` of every second call: `won`, `lost`, or `failed` if none answered."""
        self._settings = settings
        self._on_hedged = on_hedged
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._unseen = 0
        self._saved = 0.0
        self.delay_s = settings.most_ms / 1000
        """How long a call has before it is made again."""

    async def call(
        self, send: Callable[[float], Awaitable[ResponseT]], timeout_s: float
    ) -> ResponseT:
        """Return the first answer to what `send` sends with a timeout; raise only if all failed."""
        started = time.monotonic()
        self._saved = min(_MOST_SAVED, self._saved + self._settings.most_share)
        calls = [asyncio.ensure_future(send(timeout_s))]
        try:
            await asyncio.wait(calls, timeout=self.delay_s)
            left = timeout_s - (time.monotonic() - started)
            if calls[0].done() or self._saved < 1 or left <= 0:
                response = await calls[0]
            else:
                self._saved -= 1
                calls.append(asyncio.ensure_future(send(left)))
                response = await self._race(calls)
        finally:
            for call in calls:
                call.cancel()
        self._learn(time.monotonic() - started)
        return response

    async def _race(self, calls: Sequence[asyncio.Future[ResponseT]]) -> ResponseT:
        waiting = set(calls)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            # An exception that was looked at is not reported as one that nobody took.
            answered = [call for call in done if call.exception() is None]
            if answered:
                self._on_hedged("lost" if calls[0] in answered else "won")
                return answered[0].result()
        self._on_hedged("failed")
        return calls[0].result()

    def _learn(self, latency_s: float) -> None:
        self._latencies.append(latency_s)
        self._unseen += 1
        if self._unseen < _RENEW_EVERY or len(self._latencies) < _ENOUGH:
            return
        self._unseen = 0
        place = int(len(self._latencies) * self._settings.after_quantile)
        quantile = sorted(self._latencies)[place]
        least, most = self._settings.least_ms / 1000, self._settings.most_ms / 1000
        self.delay_s = min(most, max(least, quantile))

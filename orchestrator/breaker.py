"""A circuit breaker: a service that keeps failing is left alone for a while (Nygard, 2007)."""

from __future__ import annotations

from orchestrator.settings import BreakerSettings


class Breaker:
    """Opens after consecutive failures; after a cool-down one call at a time may probe.

    Times are arguments (monotonic seconds), so that its behaviour can be tested exactly.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._open_until = 0.0

    def allows(self, now: float) -> bool:
        """Return whether a call may be made; while half open, only one per cool-down."""
        return self._failures < self._settings.failures or now >= self._open_until

    def is_open(self, now: float) -> bool:
        """Return whether calls are being refused."""
        return not self.allows(now)

    def state(self, now: float) -> int:
        """Return 0 while closed, 1 while half open (a probe may pass), 2 while open."""
        if self._failures < self._settings.failures:
            return 0
        return 1 if self.allows(now) else 2

    def started(self, now: float) -> None:
        """Note a call; a half-open breaker closes the door behind its probe."""
        if self._failures >= self._settings.failures:
            self._open_until = now + self._settings.cool_down_ms / 1000

    def succeeded(self) -> None:
        """Close the breaker."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Count a failure, and open the breaker if there were enough."""
        self._failures += 1
        if self._failures >= self._settings.failures:
            self._open_until = now + self._settings.cool_down_ms / 1000

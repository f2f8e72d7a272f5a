"""Which generators a plan may not call: switched off, failing, or too slow for the time left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from forage.errors import ConflictError, NotFoundError
from forage.registry import Registry
from forage.retrieval import Deadline, Query
from orchestrator.breaker import Breaker
from orchestrator.context import History
from orchestrator.settings import OrchestratorSettings

_KIND = "switches"
_ATTEMPTS = 5


class Switches:
    """Kill switches, kept in the registry so that all orchestrators obey and restarts remember."""

    def __init__(self, settings: OrchestratorSettings, registry: Registry) -> None:
        self._registry = registry
        self._generators = frozenset(settings.generators)
        self._configured = frozenset(g for g, t in settings.generators.items() if not t.enabled)
        self._switched: frozenset[str] = frozenset()
        self._seen: int | None = None

    @property
    def disabled(self) -> frozenset[str]:
        """The generators that are off, by configuration or by switch."""
        return self._configured | self._switched

    def refresh(self) -> None:
        """Read the switches again if they changed."""
        if self._registry.changed(_KIND, self._seen):
            info, payload = self._registry.load(_KIND)
            self._switched = frozenset(json.loads(payload))
            self._seen = info.version

    def switch(self, generator: str, *, enabled: bool) -> None:
        """Switch a generator for good; raises `NotFoundError` if it is not configured."""
        if generator not in self._generators:
            raise NotFoundError(
                f"generator: there is no generator '{generator[:64]}'; configured:"
                f" {', '.join(sorted(self._generators))}",
                metadata={"field": "generator"},
            )
        for attempt in range(_ATTEMPTS):
            self.refresh()
            wanted = self._switched - {generator} if enabled else self._switched | {generator}
            try:
                self._registry.publish(
                    _KIND, json.dumps(sorted(wanted)).encode(), {}, expected_current=self._seen
                )
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            self.refresh()
            return


class Mask:
    """Says which generators are infeasible for one search."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        switches: Switches,
        breakers: Mapping[str, Breaker],
    ) -> None:
        self._generators = tuple(settings.generators)
        self._switches = switches
        self._breakers = breakers

    def masked(self, history: History, query: Query, deadline: Deadline) -> dict[str, str]:
        """Return the generators that must not be called, with the reason."""
        now = time.monotonic()
        left = deadline.remaining()
        reasons = {}
        for name in self._generators:
            if name in self._switches.disabled:
                reasons[name] = "DISABLED"
            elif self._breakers[name].is_open(now):
                reasons[name] = "BREAKER_OPEN"
            elif history.generator(name, query.query_class, query.normalized).latency_s > left:
                reasons[name] = "NO_TIME"
        return reasons

"""Load: plans narrow as searches pile up, and only then are searches refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from forage.errors import OverloadedError
from orchestrator.settings import LoadSettings


class Load:
    """Counts the searches in progress. Used from one event loop only."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._in_progress = 0

    @property
    def budget_share(self) -> float:
        """What share of the plan's budget may be spent now: 1 up to the soft limit, then less."""
        soft, hard = self._settings.soft_limit, self._settings.hard_limit
        excess = (self._in_progress - soft) / (hard - soft)
        least = self._settings.least_budget_share
        return max(least, 1.0 - max(0.0, excess) * (1.0 - least))

    @property
    def narrowed(self) -> bool:
        """Whether plans are being narrowed now."""
        return self.budget_share < 1.0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count one search; raises `OverloadedError` beyond the hard limit."""
        if self._in_progress >= self._settings.hard_limit:
            raise OverloadedError(
                f"{self._in_progress} searches are in progress; retry with backoff",
                metadata={"limit": str(self._settings.hard_limit)},
            )
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1

"""Numbers and dates as people type them in a query."""

from __future__ import annotations

from datetime import UTC, datetime

_MICROSECOND = 1e-6


def amount(text: str) -> tuple[float, float] | None:
    """Return a finite number, as its own lower and upper bound; None if it is not one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return (number, number) if abs(number) < float("inf") else None


def period(text: str) -> tuple[float, float] | None:
    """Return the first and last moment of a year, month or day, in seconds since the epoch.

    Dates are ISO 8601, in UTC. None if the text is not one.
    """
    parts = text.split("-")
    try:
        year, month, day = (int(p) for p in (*parts, "1", "1")[:3])
        start = datetime(year, month, day, tzinfo=UTC)
        if len(parts) == 1:
            end = start.replace(year=year + 1)
        elif len(parts) == 2:
            end = start.replace(year=year + month // 12, month=month % 12 + 1)
        elif len(parts) == 3:
            return start.timestamp(), start.timestamp() + 86_400 - _MICROSECOND
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return start.timestamp(), end.timestamp() - _MICROSECOND

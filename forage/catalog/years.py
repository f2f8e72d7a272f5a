"""Years as people name them: what a query says and what an index holds are the same values.

A whole number from 1000 to 2999 is taken for a year. People name it (`1994`) or its decade
(`the 1990s`): as values `1994` and `1990..1999`, the notation of ranges in filters.
"""

from __future__ import annotations

import re

_FIRST, _LAST = 1000, 2999
_SPAN = re.compile(r"([12][0-9]{3})(?:\.\.([12][0-9]{3}))?")


def is_year(number: float) -> bool:
    """Return whether a number may be a year."""
    return _FIRST <= number <= _LAST and float(number).is_integer()


def decade(year: int) -> str:
    """Return the value for the ten years that a year is one of."""
    first = year - year % 10
    return f"{first}..{first + 9}"


def spoken(value: str | float) -> tuple[str, ...]:
    """Return the texts by which a value is asked for: itself, or a number's year and decade."""
    if isinstance(value, str):
        return (value,)
    return (str(int(value)), decade(int(value))) if is_year(value) else ()


def span(value: str) -> tuple[float, float] | None:
    """Return the first and last year of a value; None if it is not one of years."""
    found = _SPAN.fullmatch(value)
    if found is None:
        return None
    first, last = float(found[1]), float(found[2] or found[1])
    return (first, last) if first <= last else None

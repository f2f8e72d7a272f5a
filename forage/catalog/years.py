"""Years as people name them: what a query says and what an index holds are the same values.

A whole number from 1000 to 2999 is taken for a year. People name it (`1994`), its decade (`the
1990s`) or a longer time (`before 1980`): as values `1994`, `1990..1999` and `1888..1979`, the
notation of ranges in filters. Indexes hold years and decades, of which any time is made.
"""

from __future__ import annotations

import re

_FIRST, _LAST = 1000, 2999
_SPAN = re.compile(r"([12][0-9]{3})(?:\.\.([12][0-9]{3}))?")


def is_year(number: float) -> bool:
    """Return whether a number may be a year."""
    return _FIRST <= number <= _LAST and float(number).is_integer()


def value(first: int, last: int) -> str:
    """Return the value for the years from `first` to `last`, both included."""
    return str(first) if first == last else f"{first}..{last}"


def decade(year: int) -> str:
    """Return the value for the ten years that a year is one of."""
    first = year - year % 10
    return value(first, first + 9)


def spoken(said: str | float) -> tuple[str, ...]:
    """Return the texts by which a value is asked for: itself, or a number's year and decade."""
    if isinstance(said, str):
        return (said,)
    return (str(int(said)), decade(int(said))) if is_year(said) else ()


def span(said: str) -> tuple[int, int] | None:
    """Return the first and last year of a value; None if it is not one of years."""
    found = _SPAN.fullmatch(said)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return (first, last) if first <= last else None


def parts(said: str) -> tuple[str, ...]:
    """Return the years and decades that a value is made of, each year in one; other values whole.

    Whatever is indexed under `spoken` is found under exactly one of them if it is of these years.
    """
    bounds = span(said)
    if bounds is None:
        return (said,)
    found = []
    year, last = bounds
    while year <= last:
        whole = year % 10 == 0 and year + 9 <= last
        found.append(decade(year) if whole else str(year))
        year += 10 if whole else 1
    return tuple(found)

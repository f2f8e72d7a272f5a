"""Periods: the years that a stretch of words asks for, as in `the 90s` or `before 1980`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAMES = {
    "twenties": 1920,
    "thirties": 1930,
    "forties": 1940,
    "fifties": 1950,
    "sixties": 1960,
    "seventies": 1970,
    "eighties": 1980,
    "nineties": 1990,
}
_SOON = 20
"""Decades said by two digits and below this are of the present century: `the 10s`."""
_NAMED = 0.7
"""Confidence in a decade said as a word, which may be an age: `in her thirties`."""
_SAID = 0.9

_MOMENT = rf"(?:the )?(?:[12][0-9]{{3}}|[12][0-9]{{2}}0 ?s|[0-9]0 ?s|{'|'.join(_NAMES)})"
_ALONE = re.compile(rf"(?!the ){_MOMENT}")
_OPEN = re.compile(rf"(before|pre|until|till|through|after|post|since) ({_MOMENT})")
_CLOSED = re.compile(
    rf"(?:(?:between|from) ({_MOMENT}) (?:and|to|until|till|through) ({_MOMENT})"
    rf"|({_MOMENT}) (?:to|until|till|through) ({_MOMENT})"
    r"|([12][0-9]{3}) ([12][0-9]{3}))"
)


@dataclass(frozen=True, slots=True)
class Period:
    """Years from `first` to `last`, both included; None is open."""

    first: int | None
    last: int | None
    confidence: float
    """That the words are meant so, in (0, 1]."""

    def within(self, low: float, high: float) -> tuple[int, int] | None:
        """Return the first and last year, open ends closed; None if all are outside."""
        first = int(low) if self.first is None else self.first
        last = int(high) if self.last is None else self.last
        return (first, last) if first <= last and low <= last and first <= high else None


def period(words: Sequence[str]) -> Period | None:
    """Return the period that all of these words together name, in English; None if none.

    `1994`; `1990s`, `90s`, `nineties`; `before`, `until`, `since` and `after` one of these;
    `between 1990 and 1995`, `1990 to 1995`, and `1990 1995`, which was `1990-1995`.
    """
    text = " ".join(words)
    if _ALONE.fullmatch(text):
        first, last = _moment(text)
        return Period(first, last, _confidence(text))
    if found := _OPEN.fullmatch(text):
        first, last = _moment(found[2])
        sure = _confidence(found[2])
        match found[1]:
            case "before" | "pre":
                return Period(None, first - 1, sure)
            case "until" | "till" | "through":
                return Period(None, last, sure)
            case "since":
                return Period(first, None, sure)
            case _:
                return Period(last + 1, None, sure)
    if found := _CLOSED.fullmatch(text):
        one, other = (group for group in found.groups() if group)
        first, last = _moment(one)[0], _moment(other)[1]
        if first < last:
            return Period(first, last, min(_confidence(one), _confidence(other)))
    return None


def _moment(text: str) -> tuple[int, int]:
    """Return the first and last year of a year or a decade."""
    said = text.removeprefix("the ").replace(" ", "")
    if said in _NAMES:
        return _NAMES[said], _NAMES[said] + 9
    if not said.endswith("s"):
        return int(said), int(said)
    first = int(said[:-1])
    if first < 100:
        first += 2000 if first < _SOON else 1900
    return first, first + 9


def _confidence(text: str) -> float:
    return _NAMED if text.removeprefix("the ") in _NAMES else _SAID

"""Finding keys that are nearly the one asked for: completions and misspellings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from forage.catalog.columns import Columns

_AFTER_ANY = "\U0010ffff"
_ANCHOR = 4
_SHORTEST = 4
_FEW = 256


class KeyIndex:
    """The keys in order, and in order of their reversals; nothing is stored per misspelling.

    Few typing errors hit both the first and the last four letters of a query. So the keys that
    share either end with it, two ranges of the sorted lists, are the candidates whose edit
    distance (optimal string alignment) is worth computing.
    """

    def __init__(self) -> None:
        self._forward: list[str] = []
        self._backward: list[str] = []

    def __len__(self) -> int:
        return len(self._forward)

    def update(self, *, added: Iterable[str], removed: Iterable[str]) -> None:
        """Add keys that are not yet in the index, and remove keys that are."""
        new, gone = list(added), set(removed)
        if len(new) + len(gone) <= _FEW:
            for key in gone:
                del self._forward[bisect_left(self._forward, key)]
                del self._backward[bisect_left(self._backward, key[::-1])]
            for key in new:
                insort(self._forward, key)
                insort(self._backward, key[::-1])
            return
        kept = [key for key in self._forward if key not in gone] if gone else self._forward
        self._forward = sorted([*kept, *new])
        self._backward = sorted(key[::-1] for key in self._forward)

    def dump(self) -> Columns:
        """Return the keys in both orders as columns."""
        place = {key: number for number, key in enumerate(self._forward)}
        backward = np.fromiter((place[key[::-1]] for key in self._backward), np.int32, len(place))
        return Columns({"forward": self._forward}, {"backward": backward})

    def load(self, columns: Columns) -> None:
        """Replace the keys by those that `dump` returned."""
        self._forward = forward = columns.names["forward"]
        self._backward = [forward[place][::-1] for place in columns.arrays["backward"].tolist()]

    def completions(self, prefix: str, limit: int) -> list[str]:
        """Return up to `limit` other keys that start with `prefix`, in order."""
        start = bisect_right(self._forward, prefix)
        end = bisect_left(self._forward, prefix + _AFTER_ANY)
        return self._forward[start : min(end, start + limit)]

    def misspelt(self, key: str, limit: int) -> list[tuple[str, int]]:
        """Return up to `limit` other keys within 1 edit (2 from 8 letters on), nearest first.

        Keys with other digits are other things, never misspellings: `toy story 2`.
        """
        if len(key) < _SHORTEST:
            return []
        ends = min(_ANCHOR, len(key) // 2)
        candidates = {*_range(self._forward, key[:ends])}
        candidates.update(k[::-1] for k in _range(self._backward, key[::-1][:ends]))
        candidates.discard(key)
        digits = _digits(key)
        found = process.extract(
            key,
            [c for c in candidates if abs(len(c) - len(key)) <= 2 and _digits(c) == digits],
            scorer=OSA.distance,
            score_cutoff=1 if len(key) < 8 else 2,
            limit=None,
        )
        nearest = sorted((int(distance), other) for other, distance, _ in found)
        return [(other, distance) for distance, other in nearest[:limit]]


def _range(keys: list[str], prefix: str) -> list[str]:
    return keys[bisect_left(keys, prefix) : bisect_left(keys, prefix + _AFTER_ANY)]


def _digits(key: str) -> str:
    return "".join(filter(str.isdigit, key))

"""Queries that worked, by meaning: what a query that is new may borrow from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from forage.vector_cache import Vectors

if TYPE_CHECKING:
    from forage.encoder import CachedEncoder


class QueryNeighbours:
    """The vectors of the latest `limit` queries that worked, searched by brute force.

    The encoder is opened when the first query has to be encoded: until feedback arrives it would
    only take up memory.
    """

    def __init__(self, open_encoder: Callable[[], CachedEncoder], *, limit: int) -> None:
        self._open_encoder = open_encoder
        self._encoder: CachedEncoder | None = None
        self._limit = limit
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._keys: list[str] = []
        self._vectors: Vectors = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def encode(self, keys: Iterable[str]) -> dict[str, Vectors]:
        """Return the keys' vectors, computing those that are new; changes nothing."""
        wanted = dict.fromkeys(keys)
        found = {k: self._vectors[self._rows[k]].copy() for k in wanted if k in self._rows}
        new = [key for key in wanted if key not in found]
        if new:
            found.update(zip(new, self._opened().encode(new), strict=True))
        return found

    def encode_query(self, text: str) -> Vectors:
        """Return the unit vector of a query."""
        return self._opened().encode_query(text)

    def _opened(self) -> CachedEncoder:
        if self._encoder is None:
            self._encoder = self._open_encoder()
        return self._encoder

    def put(self, key: str, vectors: Mapping[str, Vectors]) -> None:
        """Make the query the latest; a new one takes the place of the oldest if need be.

        `vectors` holds at least those of new keys, as `encode` returned them.
        """
        if key in self._rows:
            self._rows.move_to_end(key)
            return
        vector = vectors[key]
        if len(self._rows) < self._limit:
            row = len(self._rows)
            self._keys.append(key)
            if row >= len(self._vectors):
                grown = np.zeros((max(64, 2 * row), vector.size), np.float32)
                grown[:row] = self._vectors[:row].reshape(row, vector.size)
                self._vectors = grown
        else:
            row = self._rows.popitem(last=False)[1]
            self._keys[row] = key
        self._rows[key] = row
        self._vectors[row] = vector

    def nearest(self, vector: Vectors, count: int, at_least: float) -> list[tuple[str, float]]:
        """Return up to `count` (query, cosine), nearest first, ties by query."""
        cosines = self._vectors[: len(self._rows)] @ vector
        near = np.flatnonzero(cosines >= at_least).tolist()
        ranked = sorted((-round(float(cosines[row]), 4), self._keys[row]) for row in near)
        return [(key, -negative) for negative, key in ranked[:count]]

    def dump(self) -> list[str]:
        """Return the queries, the one that worked longest ago first."""
        return list(self._rows)

    def load(self, keys: Sequence[str]) -> None:
        """Take over what `dump` returned, encoding what the cache does not hold."""
        self._rows.clear()
        self._keys.clear()
        vectors = self.encode(keys)
        for key in keys:
            self.put(key, vectors)

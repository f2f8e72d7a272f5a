"""Node numbers, shared by the catalogue's and the engagements' part of the graph."""

from __future__ import annotations

import threading

_QUERY = "\0"


def query_key(normalized: str) -> str:
    """Return the key of a query's node; no item id begins so."""
    return _QUERY + normalized


class NodeTable:
    """Gives every item id and every query a number, for ever. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._keys: list[str] = []

    def __len__(self) -> int:
        """Return how many numbers have been given out."""
        return len(self._keys)

    def number(self, key: str) -> int:
        """Return the key's number, giving it one if it has none."""
        found = self._numbers.get(key)
        if found is not None:
            return found
        with self._lock:
            number = self._numbers.setdefault(key, len(self._keys))
            if number == len(self._keys):
                self._keys.append(key)
            return number

    def find(self, key: str) -> int | None:
        """Return the key's number, or None if it has none."""
        return self._numbers.get(key)

    def key(self, number: int) -> str:
        """Return the key that has this number."""
        return self._keys[number]

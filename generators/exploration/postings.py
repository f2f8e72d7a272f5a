"""Posting lists: which items have a word in their title, or a value of an attribute."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

Found = npt.NDArray[np.int32]
_NONE: Found = np.zeros(0, np.int32)
_SHORT_BYTES = 256


class Postings:
    """Key → item indices. Short lists, which most are, are packed into immutable bytes."""

    def __init__(self) -> None:
        self._lists: dict[str, bytes | array[int]] = {}

    def find(self, key: str) -> Found:
        """Return the indices of the items that have the key, each once, unordered."""
        found = self._lists.get(key)
        return _NONE if found is None else np.array(np.frombuffer(found, np.int32))

    def replace(self, index: int, old: AbstractSet[str], new: AbstractSet[str]) -> None:
        """Take the item from the keys it had, and add it to those it has."""
        for key in old - new:
            self._remove(key, index)
        for key in new - old:
            self._add(key, index)

    def _add(self, key: str, index: int) -> None:
        found = self._lists.get(key, b"")
        if isinstance(found, array):
            found.append(index)
            return
        longer = found + index.to_bytes(4, sys.byteorder)
        self._lists[key] = array("i", longer) if len(longer) > _SHORT_BYTES else longer

    def _remove(self, key: str, index: int) -> None:
        found = self.find(key)
        kept = found[found != index].tobytes()
        if kept:
            self._lists[key] = array("i", kept) if len(kept) > _SHORT_BYTES else kept
        else:
            del self._lists[key]

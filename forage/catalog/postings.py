"""Which items have a value: posting lists for text, a column for numbers."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns, ragged, spans

Mask = npt.NDArray[np.bool_]
Found = npt.NDArray[np.int32]
_NONE: Found = np.zeros(0, np.int32)
_SHORT = 64


class Postings:
    """The indices of the items that have a key.

    Short lists, which most are, are packed 32-bit integers in immutable bytes: half the size of
    an array, and cheap to copy on a change.
    """

    def __init__(self) -> None:
        self._lists: dict[str, bytes | array[int]] = {}

    def replace(self, index: int, old: AbstractSet[str], new: AbstractSet[str]) -> None:
        """Take the item from the keys it had, and add it to those it has."""
        for key in old - new if old else ():
            self._remove(key, index)
        for key in new - old if old else new:
            self._add(key, index)

    def mark(self, key: str, mask: Mask) -> None:
        """Set the mask for the items that have the key."""
        found = self._lists.get(key)
        if found is not None:
            mask[np.frombuffer(found, np.int32)] = True

    def find(self, key: str) -> Found:
        """Return the indices of the items that have the key, each once, unordered."""
        found = self._lists.get(key)
        return _NONE if found is None else np.array(np.frombuffer(found, np.int32))

    def dump(self) -> Columns:
        """Return the lists as columns."""
        lists = [np.frombuffer(found, np.int32) for found in self._lists.values()]
        return Columns({"keys": list(self._lists)}, ragged(lists, np.int32))

    def load(self, columns: Columns) -> None:
        """Replace the lists by those that `dump` returned."""
        content = columns.arrays["content"].tobytes()
        parts = (content[start:end] for start, end in spans(columns.arrays["lengths"], 4))
        self._lists = {
            key: part if len(part) <= 4 * _SHORT else array("i", part)
            for key, part in zip(columns.names["keys"], parts, strict=True)
        }

    def _add(self, key: str, index: int) -> None:
        found = self._lists.get(key)
        if isinstance(found, array):
            found.append(index)
        elif found is None:
            self._lists[key] = _pack(index)
        elif len(found) < 4 * _SHORT:
            self._lists[key] = found + _pack(index)
        else:
            self._lists[key] = array("i", found + _pack(index))

    def _remove(self, key: str, index: int) -> None:
        found = self._lists[key]
        if isinstance(found, bytes):
            indices = np.frombuffer(found, np.int32)
            found = indices[indices != index].tobytes()
            self._lists[key] = found
        else:
            found.remove(index)
        if not found:
            del self._lists[key]


class NumberColumn:
    """The numbers of one attribute by item index; items with several are kept apart."""

    def __init__(self) -> None:
        self._first: npt.NDArray[np.float64] = np.full(1024, np.nan)
        self._several: dict[int, npt.NDArray[np.float64]] = {}

    def replace(self, index: int, values: Sequence[float]) -> None:
        """Set the item's numbers; none at all is allowed."""
        if index >= len(self._first):
            grown = np.full(max(index + 1, 2 * len(self._first), 1024), np.nan)
            grown[: len(self._first)] = self._first
            self._first = grown
        self._first[index] = values[0] if values else np.nan
        self._several.pop(index, None)
        if len(values) > 1:
            self._several[index] = np.asarray(values, np.float64)

    def dump(self, size: int) -> Columns:
        """Return the numbers of the first `size` items as columns."""
        several = np.fromiter(self._several, np.int32, len(self._several))
        lists = ragged(list(self._several.values()), np.float64)
        return Columns({}, {"first": self._first[:size], "several": several, **lists})

    def load(self, columns: Columns) -> None:
        """Replace the numbers by those that `dump` returned."""
        arrays = columns.arrays
        content = arrays["content"].copy()
        parts = (content[start:end] for start, end in spans(arrays["lengths"]))
        self._first = arrays["first"].copy()
        self._several = dict(zip(arrays["several"].tolist(), parts, strict=True))

    def mask(self, low: float, high: float, size: int) -> Mask:
        """Return which of the first `size` items have a number in [low, high]."""
        mask = np.zeros(size, np.bool_)
        known = self._first[:size]
        mask[: len(known)] = (known >= low) & (known <= high)
        for index, values in self._several.items():
            mask[index] = bool(np.any((values >= low) & (values <= high)))
        return mask


def _pack(index: int) -> bytes:
    return index.to_bytes(4, sys.byteorder)

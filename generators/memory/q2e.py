"""Query to entity (Q2E): what was looked at and engaged with, per key, fading with time."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from generators.evidence import Floats, decay

FORGOTTEN = 0.01
"""Success plus exposure below which an item is forgotten."""
_SUCCESS, _EXPOSURE, _TIME, _ENGAGED, _SHOWN = range(5)
_WIDTH = 5


@dataclass(frozen=True, slots=True)
class Recollection:
    """What is remembered for one key at one time; arrays are aligned with `item_ids`."""

    item_ids: tuple[str, ...]
    success: Floats
    """Reward earned, decayed; one impression earns at most 1."""
    exposure: Floats
    """How often the item was looked at, decayed: the sum of examination probabilities."""
    engaged: Floats
    """Impressions engaged with since the item was last forgotten, not decayed."""
    shown: Floats
    """Impressions since the item was last forgotten, not decayed."""


@dataclass(slots=True)
class _Entry:
    item_ids: list[str]
    counts: array[float]


class Q2E:
    """A table key → items → counts, bounded, in which everything fades by wall clock.

    Decay is lazy: counts carry the time they were brought up to, so the state depends on the
    records alone. Forgetting is exact: an item whose mass has faded below `FORGOTTEN` is treated
    as never seen, by readers and writers alike, whether or not it still takes up space.
    """

    def __init__(self, *, half_life_s: float, keys: int, items_per_key: int) -> None:
        """Remember up to `keys` keys, dropping the one written longest ago."""
        self._half_life_s = half_life_s
        self._keys = keys
        self._items_per_key = items_per_key
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def touch(self, key: str) -> list[str]:
        """Make the key the latest written, new if need be; return the keys dropped for it."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return []
        self._entries[key] = _Entry([], array("d"))
        dropped = []
        while len(self._entries) > self._keys:
            dropped.append(self._entries.popitem(last=False)[0])
        return dropped

    def add(
        self,
        key: str,
        item_id: str,
        time: float,
        *,
        success: float = 0.0,
        exposure: float = 0.0,
        engaged: int = 0,
        shown: int = 0,
    ) -> None:
        """Add counts that happened at `time` to a key that `touch` was called for."""
        entry = self._entries[key]
        at = self._row(entry, item_id, time) * _WIDTH
        counts = entry.counts
        last = counts[at + _TIME]
        now = max(last, time)
        old, new = decay(now - last, self._half_life_s), decay(now - time, self._half_life_s)
        if (counts[at + _SUCCESS] + counts[at + _EXPOSURE]) * old < FORGOTTEN:
            counts[at : at + _WIDTH] = array("d", (0.0, 0.0, now, 0.0, 0.0))
        counts[at + _SUCCESS] = counts[at + _SUCCESS] * old + success * new
        counts[at + _EXPOSURE] = counts[at + _EXPOSURE] * old + exposure * new
        counts[at + _TIME] = now
        counts[at + _ENGAGED] += engaged
        counts[at + _SHOWN] += shown

    def _row(self, entry: _Entry, item_id: str, time: float) -> int:
        if item_id in entry.item_ids:
            return entry.item_ids.index(item_id)
        blank = array("d", (0.0, 0.0, time, 0.0, 0.0))
        if len(entry.item_ids) < self._items_per_key:
            entry.item_ids.append(item_id)
            entry.counts.extend(blank)
            return len(entry.item_ids) - 1
        mass = self._faded(entry, time)
        row = min(
            range(len(entry.item_ids)),
            key=lambda i: (mass[i, _SUCCESS], mass[i, _EXPOSURE], entry.item_ids[i]),
        )
        entry.item_ids[row] = item_id
        entry.counts[row * _WIDTH : (row + 1) * _WIDTH] = blank
        return row

    def _faded(self, entry: _Entry, time: float) -> Floats:
        counts: Floats = np.array(entry.counts).reshape(-1, _WIDTH)
        age = np.maximum(0.0, time - counts[:, _TIME])
        counts[:, : _EXPOSURE + 1] *= np.exp2(-age / self._half_life_s)[:, None]
        return counts

    def recall(self, key: str, time: float) -> Recollection | None:
        """Return what is remembered for the key at `time`; None if that is nothing."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        counts = self._faded(entry, time)
        kept = np.flatnonzero(counts[:, _SUCCESS] + counts[:, _EXPOSURE] >= FORGOTTEN)
        if not kept.size:
            return None
        counts = counts[kept]
        return Recollection(
            item_ids=tuple(entry.item_ids[i] for i in kept.tolist()),
            success=counts[:, _SUCCESS],
            exposure=counts[:, _EXPOSURE],
            engaged=counts[:, _ENGAGED],
            shown=counts[:, _SHOWN],
        )

    def dump(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return the table as names and arrays for `generators.evidence.pack`."""
        vocabulary: dict[str, int] = {}
        rows = [
            vocabulary.setdefault(item_id, len(vocabulary))
            for entry in self._entries.values()
            for item_id in entry.item_ids
        ]
        counts = b"".join(entry.counts.tobytes() for entry in self._entries.values())
        return {"keys": list(self._entries), "items": list(vocabulary)}, {
            "lengths": np.array([len(e.item_ids) for e in self._entries.values()], np.int32),
            "rows": np.array(rows, np.int32),
            "counts": np.frombuffer(counts, np.float64),
        }

    def load(self, names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the table by what `dump` returned."""
        items, rows, counts = names["items"], arrays["rows"].tolist(), arrays["counts"]
        self._entries.clear()
        at = 0
        for key, length in zip(names["keys"], arrays["lengths"].tolist(), strict=True):
            end = at + length
            self._entries[key] = _Entry(
                [items[row] for row in rows[at:end]],
                array("d", counts[at * _WIDTH : end * _WIDTH].tobytes()),
            )
            at = end

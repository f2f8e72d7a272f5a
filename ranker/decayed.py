"""A table of sums that fade with time."""

from __future__ import annotations

import math
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from ranker.digest import Keys

Columns = NDArray[np.float64]
_FIRST_ROWS = 1_024
_MOVE_AT = 500.0


class DecayedTable:
    """Exponentially decayed sums by 64-bit key, in constant time per addition.

    Forward decay (Cormode, Shkapenyuk, Srivastava & Xu, 2009): an event at time t is added with
    weight 2^((t - landmark) / half-life), and a reader at time T multiplies by
    2^(-(T - landmark) / half-life). So sums do not depend on the order of events. The landmark
    moves by whole half-lives, which is exact in binary floating point.
    """

    def __init__(self, columns: int, *, capacity: int, half_life: float) -> None:
        """Make an empty table; `half_life` in seconds.

        Beyond `capacity` keys, the half with the smallest last column is dropped.
        """
        self._capacity = capacity
        self._half_life = half_life
        self._rows: dict[int, int] = {}
        self._sums: Columns = np.zeros((_FIRST_ROWS, columns))
        self._landmark: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, keys: Keys, amounts: Columns, time: float) -> None:
        """Add `amounts`, one row per key, of one event at `time`."""
        wanted = keys.tolist()
        new = [key for key in dict.fromkeys(wanted) if key not in self._rows]
        if len(self._rows) + len(new) > self._capacity:
            self._shrink(self._capacity // 2)
            new = [key for key in dict.fromkeys(wanted) if key not in self._rows]
        for key in new:
            self._rows[key] = len(self._rows)
        while len(self._rows) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        weight = 2.0 ** max(self._age(time), -1_000.0)
        np.add.at(self._sums, [self._rows[key] for key in wanted], amounts * weight)

    def get(self, keys: Keys, time: float) -> Columns:
        """Return the sums as of `time`, zeros for unknown keys; shape (keys, columns)."""
        places = map(self._rows.get, keys.tolist(), repeat(-1))
        rows = np.fromiter(places, np.intp, len(keys))
        age = time / self._half_life - (self._landmark or 0)
        found: Columns = self._sums[rows] * 2.0 ** -min(max(age, 0.0), 1_000.0)
        found[rows < 0] = 0.0
        return found

    def dump(self) -> tuple[Keys, Columns, int]:
        """Return copies of keys, sums and landmark, from which `load` restores the table."""
        keys = np.fromiter(self._rows, np.uint64, len(self._rows))
        return keys, self._sums[: len(keys)].copy(), self._landmark or 0

    def load(self, keys: Keys, sums: Columns, landmark: int) -> None:
        """Replace the content by what `dump` returned."""
        self._rows = {key: row for row, key in enumerate(keys.tolist())}
        spare = np.zeros((_FIRST_ROWS, self._sums.shape[1]))
        self._sums = np.concatenate([sums, spare])
        self._landmark = landmark if len(keys) else None

    def _age(self, time: float) -> float:
        """Return the half-lives from the landmark to `time`, after moving it if need be."""
        half_lives = time / self._half_life
        if self._landmark is None:
            self._landmark = math.floor(half_lives)
        if half_lives - self._landmark > _MOVE_AT:
            step = math.floor(half_lives) - self._landmark
            self._sums *= 2.0 ** -min(step, 1_074)
            self._landmark += step
        return half_lives - self._landmark

    def _shrink(self, size: int) -> None:
        keys, sums, landmark = self.dump()
        kept = np.sort(np.lexsort((keys, -sums[:, -1]))[:size])
        self.load(keys[kept], sums[kept], landmark)

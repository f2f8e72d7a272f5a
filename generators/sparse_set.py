"""Numbers for what a retrieval touches, so that its arrays are as long as what it finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from generators.catalog_projection import grown

Integers = npt.NDArray[np.int64]


class SparseSet:
    """Distinct integers below a limit, numbered 0, 1, 2, ... as they come.

    Clearing takes no time, whatever the limit: the array that tells a member's number is kept and
    never cleaned, and what it says counts only if the list of members agrees (Briggs & Torczon,
    1993, "An efficient representation for sparse sets"). For one thread at a time.
    """

    def __init__(self) -> None:
        self._numbers: Integers = np.zeros(0, np.int64)
        self._members: Integers = np.zeros(0, np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def members(self) -> Integers:
        """The members in the order of their numbers; a copy outlives the next change."""
        return self._members[: self._size]

    def clear(self, limit: int) -> None:
        """Forget all members, and allow integers from 0 to `limit` - 1."""
        self._size = 0
        self._numbers = grown(self._numbers, limit)

    def numbers(self, values: Integers) -> Integers:
        """Return the number of each value, adding those that are new; values may be repeated."""
        found: Integers = self._numbers[values]
        new = values[~self._known(found, values)] if self._size else values
        if not new.size:
            return found
        # Of repeated values the last one written is taken: that is one of each.
        places = np.arange(new.size)
        self._numbers[new] = places
        new = new[self._numbers[new] == places]
        start, self._size = self._size, self._size + new.size
        self._members = grown(self._members, self._size)
        self._members[start : self._size] = new
        self._numbers[new] = np.arange(start, self._size)
        found = self._numbers[values]
        return found

    def _known(self, numbers: Integers, values: Integers) -> npt.NDArray[np.bool_]:
        # A member's number is right, so what is found under a wrong one is another member.
        known: npt.NDArray[np.bool_] = self._members[np.minimum(numbers, self._size - 1)] == values
        return known

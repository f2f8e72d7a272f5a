"""Fan-out levels: how many items a generator may be asked for, and the rank buckets between them.

Level 0 is "do not call". Bucket j holds the ranks above `fan_outs[j]` up to `fan_outs[j + 1]`, so
calling at level l shows buckets 0 to l - 1 and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

DEFAULT_FAN_OUTS = (0, 10, 25, 50, 100)


@dataclass(frozen=True, slots=True)
class Levels:
    """The fan-outs a plan may choose from, the same for every generator.

    Raises `ValueError` unless they start at 0 and grow strictly, with at least two of them.
    """

    fan_outs: tuple[int, ...] = DEFAULT_FAN_OUTS

    def __post_init__(self) -> None:
        grows = all(a < b for a, b in zip(self.fan_outs, self.fan_outs[1:], strict=False))
        if len(self.fan_outs) < 2 or self.fan_outs[0] != 0 or not grows:
            raise ValueError(f"fan-outs must start at 0 and grow strictly, got {self.fan_outs}")

    @property
    def count(self) -> int:
        """L, the number of levels including level 0."""
        return len(self.fan_outs)

    @property
    def buckets(self) -> int:
        """J, the number of rank buckets."""
        return len(self.fan_outs) - 1

    def bucket(self, rank: int) -> int | None:
        """Return the bucket of a rank (ranks start at 1); None beyond the largest fan-out."""
        if rank < 1:
            raise ValueError(f"ranks start at 1, got {rank}")
        bucket = bisect_left(self.fan_outs, rank) - 1
        return bucket if bucket < self.buckets else None

    def level(self, fan_out: int) -> int:
        """Return the highest level whose fan-out is at most `fan_out`.

        A call cut short between two levels thus counts as the level it completed.
        """
        if fan_out < 0:
            raise ValueError(f"a fan-out is at least 0, got {fan_out}")
        return bisect_right(self.fan_outs, fan_out) - 1

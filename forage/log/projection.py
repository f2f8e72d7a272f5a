"""Projections: state built from the log, thrown away and rebuilt at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from forage.log.interface import Record, Stream, Topic


class Projection(Protocol):
    """State that follows one topic of the log.

    One `Follower` thread calls `apply` and `checkpoint`; readers run on other threads at the same
    time and must see either the state before a batch or the state after it.

    `apply` must be deterministic: its effect depends on the records alone (their `time` included),
    never on the wall clock or on batch boundaries. Then a rebuilt projection answers as the old.
    """

    @property
    def name(self) -> str:
        """Name in status, metrics and messages, such as `lexical` or `graph.engagement`."""
        ...

    @property
    def topic(self) -> Topic:
        """The topic it follows."""
        ...

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the topic it wants."""
        ...

    def restore(self) -> int:
        """Load the durable state and return the sequence it includes; 0 if there is none.

        State that is damaged, truncated or of another format version is discarded with a
        warning, and 0 returned: the follower then replays the whole topic.
        """
        ...

    def apply(self, records: Sequence[Record]) -> None:
        """Take in records, in order; visible to readers when it returns.

        Records may be delivered again: after a crash, and, in the same process, after `apply`
        raised. A projection whose effect is not idempotent skips the sequences it already has,
        and stores its sequence together with its state.
        """
        ...

    def checkpoint(self, sequence: int) -> None:
        """Make everything applied up to `sequence` durable, atomically with that sequence."""
        ...

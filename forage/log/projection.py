"""Projections: state built from the log, thrown away and rebuilt at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

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


@dataclass(frozen=True, slots=True)
class SavedState:
    """The files from which a projection restores itself, here or in another replica."""

    format: str
    """All that decides whether another process can read them: the format's version, the schema,
    settings and software that they were made with. Equal formats are interchangeable."""
    files: Mapping[str, Path]
    """Files and folders by a name of one part; those that do not exist are not needed."""
    sequence: int
    """The sequence of the topic that the files include; 0 if there are none yet."""


@runtime_checkable
class Portable(Protocol):
    """A projection whose durable state is files, so that a new replica can start from a copy."""

    def saved(self) -> SavedState:
        """Describe the files as they are now.

        They change during `restore`, `apply` and `checkpoint` only. What is described may be older
        than the last `checkpoint`, if the projection saves itself less often.
        """
        ...

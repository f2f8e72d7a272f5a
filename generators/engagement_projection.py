"""What users looked at and did, as a projection: the part that every generator's learner shares."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy.typing as npt

from forage.log import EventLog, Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.interactions import (
    Engagement,
    Impression,
    InteractionReader,
    examination_probability,
)
from forage.settings import FeedbackSettings
from generators.evidence import Credit, pack, unpack

Names = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Gain:
    """What one event adds to what its impression had already earned."""

    success: float
    """In [0, 1]; the gains of one impression sum to at most 1."""
    penalty: float
    """In [0, 1]."""
    first: bool
    """Whether it is the impression's first success."""


PreparedT = TypeVar("PreparedT")


class Learner(Protocol[PreparedT]):
    """State that learns from impressions and engagements, and nothing else."""

    def prepare(self, events: Sequence[Impression | Engagement]) -> PreparedT:
        """Do the slow part of learning without the lock; change nothing that readers see."""
        ...

    def expose(self, shown: Impression, examined: Mapping[str, float]) -> None:
        """Learn that items were looked at with these probabilities."""
        ...

    def engage(self, engagement: Engagement, gain: Gain, prepared: PreparedT) -> None:
        """Learn that a shown item was engaged with, or refused."""
        ...

    def dump(self) -> tuple[Names, Arrays]:
        """Return the state for `generators.evidence.pack`."""
        ...

    def load(self, names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the state by what `dump` returned."""
        ...


class EngagementProjection(Generic[PreparedT]):
    """Feeds a learner from the interactions topic, each record exactly once.

    The state is saved together with the sequence it includes, so records delivered again are
    skipped. Readers hold `lock` too. A checkpoint made under other feedback settings or `rules`
    is discarded: replaying the log under the new ones gives what they would have taught.
    """

    def __init__(
        self,
        name: str,
        log: EventLog,
        learner: Learner[PreparedT],
        lock: threading.Lock,
        *,
        folder: Path,
        feedback: FeedbackSettings,
        rules: Mapping[str, Any],
    ) -> None:
        self._name = name
        self._learner = learner
        self._lock = lock
        self._feedback = feedback
        self._reader = InteractionReader(log, feedback)
        self._credit = Credit()
        self._sequence = 0
        text = json.dumps([rules, feedback.model_dump()], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._file = CheckpointFile(
            folder / "engagement.checkpoint", name=f"{name} {digest}", version=_FORMAT
        )

    @property
    def name(self) -> str:
        """Name in status and metrics."""
        return self._name

    @property
    def topic(self) -> Topic:
        """The topic it follows."""
        return Topic.INTERACTIONS

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams it wants."""
        return Stream.DECISIONS, Stream.FEEDBACK

    def restore(self) -> int:
        """Load the checkpoint; 0 if there is none that can be used."""
        found = self._file.load()
        if found is None:
            return 0
        names, arrays = unpack(found[1])
        with self._lock:
            self._credit.load(names.pop("credit"), arrays.pop("credit"))
            self._learner.load(names, arrays)
            self._sequence = found[0]
        return self._sequence

    def apply(self, records: Sequence[Record]) -> None:
        """Learn from the records that are new."""
        events = list(self._reader.read([r for r in records if r.sequence > self._sequence]))
        prepared = self._learner.prepare(events)
        with self._lock:
            for event in events:
                if isinstance(event, Impression):
                    self._learner.expose(event, self._examined(event))
                else:
                    gain = self._credit.gain(event.decision.request_id, event.item_id, event.reward)
                    self._learner.engage(event, Gain(*gain), prepared)
                self._sequence = event.sequence

    def _examined(self, impression: Impression) -> dict[str, float]:
        return {
            shown.item_id: examination_probability(shown.position, self._feedback)
            for shown in impression.decision.displayed
        }

    def checkpoint(self, sequence: int) -> None:
        """Save the learner with `sequence`; only this thread changes it, so readers go on."""
        names, arrays = self._learner.dump()
        credit, values = self._credit.dump()
        payload = pack({**names, "credit": credit}, {**arrays, "credit": values})
        self._file.save(sequence, payload)

    def saved(self) -> SavedState:
        """Describe the checkpoint; see `Portable.saved`."""
        return self._file.saved()

"""What memory learns from feedback: queries, slots, and the choices of single users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from forage.log.interactions import Engagement, Impression
from forage.v1 import decision_pb2
from forage.vector_cache import Vectors
from generators.engagement_projection import Arrays, Gain, Names
from generators.memory.key_index import KeyIndex
from generators.memory.neighbours import QueryNeighbours
from generators.memory.q2e import Q2E
from generators.memory.settings import MemorySettings

_SEPARATOR = "\x1f"
_SECONDS_PER_DAY = 86_400.0
_LEAST_CONFIDENCE = 0.2
_TABLES = ("queries", "slots", "choices")


def query_key(normalized: str, like_item_ids: Sequence[str]) -> str:
    """Return what a search is remembered by: its words, or else the items it wanted more like."""
    if normalized or not like_item_ids:
        return normalized
    return _SEPARATOR.join(("like", *sorted(like_item_ids)))


def locale_key(key: str, locale: str) -> str:
    """Return what the search is remembered by within one locale."""
    return f"{locale.casefold()}{_SEPARATOR}{_SEPARATOR}{key}"


def choice_key(key: str, user_id: str) -> str:
    """Return what the search is remembered by for one user."""
    return f"{user_id}{_SEPARATOR}{key}"


def slot_key(attribute: str, value: str) -> str:
    """Return what a slot is remembered by."""
    return f"{attribute}{_SEPARATOR}{value.casefold()}"


class MemoryLearner:
    """Counts per query, per query and locale, per slot, and per user and query.

    Slots of the most likely reading only are taught, by their confidence. A user's own choices
    are remembered, but not what they passed over: most queries are never repeated by one user.
    """

    def __init__(self, settings: MemorySettings, neighbours: QueryNeighbours | None) -> None:
        half_life_s = settings.half_life_days * _SECONDS_PER_DAY
        self.queries, self.slots, self.choices = (
            Q2E(
                half_life_s=half_life_s,
                keys=settings.max_queries,
                items_per_key=settings.items_per_query,
            )
            for _ in _TABLES
        )
        self.keys = KeyIndex()
        """The queries with words among `queries`."""
        self.neighbours = neighbours
        self._per_locale = settings.per_locale

    def prepare(self, events: Sequence[Impression | Engagement]) -> dict[str, Vectors]:
        """Encode the queries that work for the first time."""
        if self.neighbours is None:
            return {}
        return self.neighbours.encode(
            event.decision.query.normalized
            for event in events
            if isinstance(event, Engagement)
            and event.reward > 0
            and event.decision.query.normalized
        )

    def expose(self, shown: Impression, examined: Mapping[str, float]) -> None:
        """Count looks, for the query and its slots."""
        for table, key, weight in self._taught(shown.decision):
            self._touch(table, key)
            for item_id, probability in examined.items():
                table.add(key, item_id, shown.time, exposure=weight * probability, shown=1)

    def engage(self, engagement: Engagement, gain: Gain, prepared: Mapping[str, Vectors]) -> None:
        """Count what the event adds: success, or for a refusal looks that came to nothing."""
        decision, item_id, time = engagement.decision, engagement.item_id, engagement.time
        for table, key, weight in self._taught(decision):
            self._touch(table, key)
            table.add(
                key,
                item_id,
                time,
                success=weight * gain.success,
                exposure=weight * gain.penalty,
                engaged=int(gain.first),
            )
        query = decision.query
        if engagement.reward <= 0:
            return
        if query.user.user_id:
            key = choice_key(query_key(query.normalized, query.like_item_ids), query.user.user_id)
            self.choices.touch(key)
            self.choices.add(key, item_id, time, success=gain.success, engaged=int(gain.first))
        if self.neighbours is not None and query.normalized:
            self.neighbours.put(query.normalized, prepared)

    def _taught(self, decision: decision_pb2.Decision) -> Iterator[tuple[Q2E, str, float]]:
        query = decision.query
        key = query_key(query.normalized, query.like_item_ids)
        yield self.queries, key, 1.0
        if self._per_locale and query.locale:
            yield self.queries, locale_key(key, query.locale), 1.0
        for reading in query.interpretations[:1]:
            for slot in reading.slots:
                confidence = reading.confidence * slot.confidence
                if confidence >= _LEAST_CONFIDENCE:
                    yield self.slots, slot_key(slot.attribute, slot.value), confidence

    def _touch(self, table: Q2E, key: str) -> None:
        new = key not in table
        dropped = table.touch(key)
        if table is self.queries and (new or dropped):
            self.keys.update(
                added=[key] if new and _has_words(key) else [],
                removed=[other for other in dropped if _has_words(other)],
            )

    def dump(self) -> tuple[Names, Arrays]:
        """Return all tables, each under its own prefix."""
        names: Names = {"neighbours": self.neighbours.dump() if self.neighbours else []}
        arrays: Arrays = {}
        for table in _TABLES:
            own_names, own_arrays = getattr(self, table).dump()
            names[table] = own_names
            arrays.update({f"{table}_{name}": found for name, found in own_arrays.items()})
        return names, arrays

    def load(self, names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace all tables by what `dump` returned."""
        for table in _TABLES:
            own = {
                name.removeprefix(f"{table}_"): found
                for name, found in arrays.items()
                if name.startswith(f"{table}_")
            }
            getattr(self, table).load(names[table], own)
        self.keys = KeyIndex()
        self.keys.update(added=[key for key in self.queries if _has_words(key)], removed=())
        if self.neighbours is not None:
            self.neighbours.load(names["neighbours"])


def _has_words(key: str) -> bool:
    return bool(key) and _SEPARATOR not in key

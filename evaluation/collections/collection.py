"""A judged collection: a catalogue, the topics people searched it with, and what was relevant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from forage.catalog import Item, Schema
from forage.catalog.validation import validate_item
from forage.errors import InvalidArgumentError
from forage.text import normalize


@dataclass(frozen=True, slots=True)
class Topic:
    """One information need: what was typed, by whom, when, and what they had engaged with."""

    query_id: str
    text: str
    """As typed; empty for a user who only browses."""
    user_id: str = ""
    history: tuple[str, ...] = ()
    """Items the user engaged with before, latest first."""
    group: str = ""
    """Topics of one group never stand on two sides of a split; empty: the topic is alone."""
    time: float = 0.0
    """When the topic was searched, seconds since the epoch; 0 if unknown."""
    kind: str = ""
    """Where the topic comes from, such as `title`, `people`, `next-item`; for breakdowns."""


@dataclass(frozen=True)
class Collection:
    """Items, topics and graded judgments, checked to belong together.

    Raises `InvalidArgumentError` naming the first field at fault: an item that its schema
    refuses, an id that occurs twice, a topic that asks for nothing or has no positive judgment,
    a judgment of an unknown query or item, a gain that is negative or no number.
    """

    name: str
    schema: Schema
    items: Sequence[Item]
    topics: Sequence[Topic]
    judgments: Mapping[str, Mapping[str, int]]
    """Gain by query id and item id; 0 is judged not relevant, absent is not judged."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The part (`train`, `dev`, `test`) its makers put a query in; empty if they made none."""
    note: str = ""
    """What a reader of a figure must know: where labels come from, how many were dropped."""

    def __post_init__(self) -> None:
        self._check_items()
        self._check_topics()
        self._check_judgments()

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        """The items by id."""
        return {item.item_id: item for item in self.items}

    def relevant(self, topic: Topic) -> frozenset[str]:
        """Return the ids of the items judged better than not relevant."""
        return frozenset(i for i, gain in self.judgments[topic.query_id].items() if gain > 0)

    def of(self, topics: Sequence[Topic]) -> Collection:
        """Return the same catalogue with some of the topics and their judgments."""
        judgments = {t.query_id: self.judgments[t.query_id] for t in topics}
        return replace(self, topics=tuple(topics), judgments=judgments)

    def _check_items(self) -> None:
        if not self.items:
            raise InvalidArgumentError("items", "empty", allowed="at least one item")
        seen: set[str] = set()
        for row, item in enumerate(self.items):
            try:
                validate_item(item, self.schema)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(
                    f"items[{row}].{error.field}", str(error), allowed=error.allowed
                ) from error
            if item.item_id in seen:
                raise _twice(f"items[{row}].item_id", item.item_id)
            seen.add(item.item_id)

    def _check_topics(self) -> None:
        if not self.topics:
            raise InvalidArgumentError("topics", "empty", allowed="at least one topic")
        seen: set[str] = set()
        for row, topic in enumerate(self.topics):
            field = f"topics[{row}]"
            if not topic.query_id:
                raise InvalidArgumentError(f"{field}.query_id", "empty", allowed="a query id")
            if topic.query_id in seen:
                raise _twice(f"{field}.query_id", topic.query_id)
            seen.add(topic.query_id)
            if not (normalize(topic.text) or topic.history or topic.user_id):
                raise InvalidArgumentError(
                    f"{field}.text",
                    f"topic {topic.query_id!r} asks for nothing",
                    allowed="words, unless there is a user or a history",
                )
            if not math.isfinite(topic.time):
                raise InvalidArgumentError(
                    f"{field}.time", f"{topic.time}", allowed="seconds since the epoch"
                )

    def _check_judgments(self) -> None:
        known = self.by_id
        topics = {topic.query_id for topic in self.topics}
        for query_id, gains in self.judgments.items():
            field = f"judgments[{query_id!r}]"
            if query_id not in topics:
                raise InvalidArgumentError(field, "unknown query id", allowed="a topic's query id")
            for item_id, gain in gains.items():
                if item_id not in known:
                    raise InvalidArgumentError(
                        f"{field}[{item_id!r}]", "unknown item id", allowed="an item's id"
                    )
                if isinstance(gain, bool) or not math.isfinite(gain) or gain < 0 or gain % 1:
                    raise InvalidArgumentError(
                        f"{field}[{item_id!r}]", f"gain {gain}", allowed="a whole number from 0"
                    )
        for row, topic in enumerate(self.topics):
            if not any(gain > 0 for gain in self.judgments.get(topic.query_id, {}).values()):
                raise InvalidArgumentError(
                    f"topics[{row}]",
                    f"topic {topic.query_id!r} has no relevant item in the judgments",
                    allowed="at least one judgment above 0 per topic",
                )


def _twice(field: str, found: str) -> InvalidArgumentError:
    return InvalidArgumentError(field, f"{found!r} occurs twice", allowed="every id once")

"""Training and test topics: how they are split, and the check that nothing leaks across.

Every split checks itself when it is made, so a figure can only be computed on a clean one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from evaluation.collections.collection import Collection, Topic
from forage.errors import FailedPreconditionError, InvalidArgumentError
from forage.text import normalize


class Rule(StrEnum):
    """What must not be on both sides of a split, beside query ids and texts."""

    QUERY = "query"
    """Nothing more."""
    DOCUMENT = "document"
    """Relevant items."""
    USER = "user"
    """Users."""
    TIME = "time"
    """Time: no training topic is later than a test topic."""
    LAST = "last"
    """For each user, time: the user's test topics are later than their training topics."""


class LeakError(FailedPreconditionError):
    """Something of a test topic is in the training part."""


@dataclass(frozen=True, slots=True)
class Split:
    """Topics to learn from, and others to measure on.

    Raises `LeakError` when it is made with topics that its rule keeps apart.
    """

    collection: Collection
    train: tuple[Topic, ...]
    test: tuple[Topic, ...]
    rule: Rule = Rule.QUERY

    def __post_init__(self) -> None:
        check(self.collection, self.train, self.test, self.rule)

    def without_shared_documents(self) -> Split:
        """Return the split without training topics that share a relevant item with the test."""
        tested = {item for topic in self.test for item in self.collection.relevant(topic)}
        kept = tuple(t for t in self.train if not tested & self.collection.relevant(t))
        return replace(self, train=kept, rule=Rule.DOCUMENT)

    @property
    def overlap(self) -> float:
        """The share of test topics with a relevant item that is also relevant in training."""
        trained = {item for topic in self.train for item in self.collection.relevant(topic)}
        shared = [bool(trained & self.collection.relevant(topic)) for topic in self.test]
        return sum(shared) / len(shared) if shared else 0.0


def check(
    collection: Collection, train: Sequence[Topic], test: Sequence[Topic], rule: Rule
) -> None:
    """Raise `LeakError` naming what is on both sides of a split."""
    _disjoint("query id", train, test, lambda t: [t.query_id])
    _disjoint("group", train, test, lambda t: [t.group] if t.group else [])
    words = rule in (Rule.QUERY, Rule.DOCUMENT)
    if words:
        _disjoint("query text", train, test, lambda t: [x] if (x := normalize(t.text)) else [])
    if rule is Rule.DOCUMENT:
        _disjoint("relevant item", train, test, collection.relevant)
    elif rule is Rule.USER:
        _disjoint("user", train, test, lambda t: [t.user_id])
    elif rule is Rule.TIME and train and test:
        last, first = max(train, key=lambda t: t.time), min(test, key=lambda t: t.time)
        if last.time > first.time:
            raise _leak("time", f"{last.time:.0f}", last, first)
    elif rule is Rule.LAST:
        firsts: dict[str, Topic] = {}
        for topic in sorted(test, key=lambda t: t.time):
            firsts.setdefault(topic.user_id, topic)
        for topic in train:
            first_test = firsts.get(topic.user_id)
            if first_test is not None and topic.time > first_test.time:
                raise _leak("time", f"{topic.time:.0f}", topic, first_test)


def official(collection: Collection, *, test: str = "test") -> Split:
    """Return the split its makers chose; every other part is for training.

    Raises `InvalidArgumentError` if there is no such part. Training topics with the words of a
    test topic are left out.
    """
    tested = tuple(t for t in collection.topics if collection.parts.get(t.query_id) == test)
    if not tested or len(tested) == len(collection.topics):
        known = sorted(set(collection.parts.values()))
        raise InvalidArgumentError("test", f"no part {test!r}", allowed=", ".join(known) or "none")
    texts = {normalize(t.text) for t in tested}
    rest = (t for t in collection.topics if collection.parts.get(t.query_id) != test)
    return Split(collection, tuple(t for t in rest if normalize(t.text) not in texts), tested)


def by_query(collection: Collection, folds: int, seed: int) -> list[Split]:
    """Return cross-validation folds; topics of one text, or one group, stay together."""
    return _folds(collection, folds, seed, Rule.QUERY, _components(collection, documents=False))


def by_document(collection: Collection, folds: int, seed: int) -> list[Split]:
    """Return folds in which topics that share a relevant item, however indirectly, stay together.

    Raises `FailedPreconditionError` if most topics hang together, so that no folds exist.
    """
    groups = _components(collection, documents=True)
    largest = max(map(len, groups))
    if largest * folds > 2 * len(collection.topics):
        raise FailedPreconditionError(
            f"{collection.name}: {largest} of {len(collection.topics)} topics are linked by shared"
            f" relevant items; {folds} folds without shared items do not exist"
        )
    return _folds(collection, folds, seed, Rule.DOCUMENT, groups)


def by_user(collection: Collection, folds: int, seed: int) -> list[Split]:
    """Return folds in which all topics of a user stay together."""
    users: dict[str, list[Topic]] = defaultdict(list)
    for topic in collection.topics:
        users[topic.user_id].append(topic)
    return _folds(collection, folds, seed, Rule.USER, list(users.values()))


def by_time(collection: Collection, *, test_share: float = 0.2) -> Split:
    """Return a split in which the latest topics are the test; equal times stay together."""
    ordered = sorted(collection.topics, key=lambda t: t.time)
    border = ordered[-max(1, round(test_share * len(ordered)))].time
    train = tuple(t for t in ordered if t.time < border)
    return Split(collection, train, tuple(t for t in ordered if t.time >= border), Rule.TIME)


def last_per_user(collection: Collection) -> Split:
    """Return a split in which every user's latest topic is a test, the earlier ones training."""
    latest: dict[str, Topic] = {}
    for topic in collection.topics:
        known = latest.get(topic.user_id)
        if known is None or topic.time >= known.time:
            latest[topic.user_id] = topic
    tested = {topic.query_id for topic in latest.values()}
    train = tuple(t for t in collection.topics if t.query_id not in tested)
    test = tuple(t for t in collection.topics if t.query_id in tested)
    return Split(collection, train, test, Rule.LAST)


def _folds(
    collection: Collection, folds: int, seed: int, rule: Rule, groups: Sequence[Sequence[Topic]]
) -> list[Split]:
    if not 2 <= folds <= len(groups):
        raise InvalidArgumentError("folds", str(folds), allowed=f"2 to {len(groups)}")
    rng = np.random.default_rng(seed)
    order = sorted(rng.permutation(len(groups)).tolist(), key=lambda g: -len(groups[g]))
    parts: list[list[Topic]] = [[] for _ in range(folds)]
    for group in order:
        min(parts, key=len).extend(groups[group])
    splits = []
    for part in parts:
        tested = {t.query_id for t in part}
        train = tuple(t for t in collection.topics if t.query_id not in tested)
        test = tuple(t for t in collection.topics if t.query_id in tested)
        splits.append(Split(collection, train, test, rule))
    return splits


def _components(collection: Collection, *, documents: bool) -> list[list[Topic]]:
    """Return topics that hang together by text, group and, if wanted, relevant items."""
    parent = list(range(len(collection.topics)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    holder: dict[tuple[str, str], int] = {}
    for place, topic in enumerate(collection.topics):
        keys = [("text", normalize(topic.text)), ("group", topic.group)]
        if documents:
            keys += [("item", item) for item in sorted(collection.relevant(topic))]
        for key in keys:
            if key[1]:
                parent[root(place)] = root(holder.setdefault(key, place))
    found: dict[int, list[Topic]] = defaultdict(list)
    for place, topic in enumerate(collection.topics):
        found[root(place)].append(topic)
    return list(found.values())


def _disjoint(
    what: str,
    train: Iterable[Topic],
    test: Iterable[Topic],
    keys: Callable[[Topic], Iterable[Hashable]],
) -> None:
    tested = {key: topic for topic in test for key in keys(topic)}
    for topic in train:
        for key in keys(topic):
            if key in tested:
                raise _leak(what, str(key), topic, tested[key])


def _leak(what: str, value: str, train: Topic, test: Topic) -> LeakError:
    return LeakError(
        f"{what} {value!r} of test topic '{test.query_id}' leaks into training by topic"
        f" '{train.query_id}'"
    )

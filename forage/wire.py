"""Conversion between `forage.v1` messages and domain types; the only module that knows both."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from forage.catalog.item import Item, Value
from forage.catalog.schema import Role, Schema
from forage.errors import InvalidArgumentError
from forage.log import Record
from forage.retrieval import (
    Filter,
    Hit,
    Interpretation,
    Query,
    QueryClass,
    Reason,
    Slot,
    UserContext,
)
from forage.v1 import candidate_pb2, generator_service_pb2, item_pb2, query_pb2

_CLASSES = {
    QueryClass.NAVIGATIONAL: query_pb2.QUERY_CLASS_NAVIGATIONAL,
    QueryClass.TOPICAL: query_pb2.QUERY_CLASS_TOPICAL,
    QueryClass.BROWSE: query_pb2.QUERY_CLASS_BROWSE,
    QueryClass.EMPTY: query_pb2.QUERY_CLASS_EMPTY,
}
_CLASS_NAMES = {number: name for name, number in _CLASSES.items()}


def timestamp(seconds: float) -> Timestamp:
    """Convert seconds since the epoch to a `Timestamp` with microsecond resolution."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def seconds(stamp: Timestamp) -> float:
    """Convert a `Timestamp` to seconds since the epoch."""
    return stamp.seconds + stamp.nanos / 1e9


_KNOWN_ENTRIES: dict[tuple[Value, bool], item_pb2.AttributeValue] = {}


def item_to_proto(item: Item, schema: Schema) -> item_pb2.Item:
    """Convert an item; the schema tells times from numbers."""
    message = item_pb2.Item(item_id=item.item_id, kind=item.kind)
    times = schema.with_role(Role.TIME)
    for name, values in item.attributes.items():
        timed = name in times
        message.attributes[name].values.extend([_entry(value, timed) for value in values])
    return message


def _entry(value: Value, timed: bool) -> item_pb2.AttributeValue:
    # As in `_value`: the same few values recur in the answers of a catalogue.
    known = _KNOWN_ENTRIES.get((value, timed))
    if known is None:
        if len(_KNOWN_ENTRIES) >= _MOST_KNOWN_VALUES:
            _KNOWN_ENTRIES.clear()
        known = _KNOWN_ENTRIES[value, timed] = _make_entry(value, timed)
    return known


def _make_entry(value: Value, timed: bool) -> item_pb2.AttributeValue:
    entry = item_pb2.AttributeValue(
        weight=0.0 if value.weight == 1.0 else value.weight,
        item_id=value.item_id,
        predicted=value.predicted,
    )
    if isinstance(value.value, str):
        entry.text = value.value
    elif timed:
        entry.time.CopyFrom(timestamp(value.value))
    else:
        entry.number = value.value
    return entry


def item_from_proto(message: item_pb2.Item) -> Item:
    """Convert an item without judging it; `forage.catalog.rows.validate_item` does that."""
    attributes = {
        name: tuple(_value(entry) for entry in message.attributes[name].values)
        for name in sorted(message.attributes)
    }
    return Item(message.item_id, message.kind, attributes)


_KNOWN_VALUES: dict[bytes, Value] = {}
_MOST_KNOWN_VALUES = 100_000


def _value(entry: item_pb2.AttributeValue) -> Value:
    # The same few values recur through a catalogue; sharing them halves the time to read it.
    key = entry.SerializeToString()
    known = _KNOWN_VALUES.get(key)
    if known is None:
        if len(_KNOWN_VALUES) >= _MOST_KNOWN_VALUES:
            _KNOWN_VALUES.clear()
        known = _KNOWN_VALUES[key] = _read_value(entry)
    return known


def _read_value(entry: item_pb2.AttributeValue) -> Value:
    which = entry.WhichOneof("value")
    content: str | float
    if which == "number":
        content = entry.number
    elif which == "time":
        content = seconds(entry.time)
    else:
        # A name recurs with several weights: its text is shared even then.
        content = sys.intern(entry.text) if entry.item_id else entry.text
    return Value(content, entry.weight or 1.0, sys.intern(entry.item_id), entry.predicted)


def catalog_change(record: Record) -> tuple[str, Item | None]:
    """Return a catalogue record's item id, and the item, or None if it was deleted."""
    message = item_pb2.CatalogRecord.FromString(record.payload)
    if message.WhichOneof("change") == "delete_item_id":
        return message.delete_item_id, None
    return message.upsert.item_id, item_from_proto(message.upsert)


def filter_to_proto(wanted: Filter) -> query_pb2.Filter:
    """Convert a filter."""
    message = query_pb2.Filter(attribute=wanted.attribute, exclude=wanted.exclude)
    if wanted.values:
        message.any_of.values.extend(wanted.values)
    else:
        message.range.SetInParent()
        if wanted.minimum is not None:
            message.range.min = wanted.minimum
        if wanted.maximum is not None:
            message.range.max = wanted.maximum
    return message


def filters_from_proto(messages: Sequence[query_pb2.Filter]) -> tuple[Filter, ...]:
    """Convert filters; raises `InvalidArgumentError` for one that is unset or not finite."""
    filters = []
    for index, message in enumerate(messages):
        if message.WhichOneof("constraint") is None:
            raise InvalidArgumentError(
                f"filters[{index}].constraint", "it is not set", allowed="any_of or range"
            )
        bounds: dict[str, float | None] = {}
        for end in ("min", "max"):
            bound = getattr(message.range, end) if message.range.HasField(end) else None
            if bound is not None and not math.isfinite(bound):
                raise InvalidArgumentError(
                    f"filters[{index}].range.{end}", f"{bound} is not finite", allowed="a number"
                )
            bounds[end] = bound
        filters.append(
            Filter(
                attribute=message.attribute,
                values=tuple(message.any_of.values),
                minimum=bounds["min"],
                maximum=bounds["max"],
                exclude=message.exclude,
            )
        )
    return tuple(filters)


def user_from_proto(message: query_pb2.UserContext) -> UserContext:
    """Convert a user context."""
    return UserContext(message.user_id, tuple(message.recent_item_ids), dict(message.attributes))


def query_to_proto(query: Query) -> query_pb2.Query:
    """Convert a query; `request_id` and `seed` travel in the request around it."""
    return query_pb2.Query(
        text=query.text,
        normalized=query.normalized,
        tokens=query.tokens,
        language=query.language,
        query_class=_CLASSES[query.query_class],
        interpretations=[_interpretation_to_proto(i) for i in query.interpretations],
        filters=[filter_to_proto(f) for f in query.filters],
        user=query_pb2.UserContext(
            user_id=query.user.user_id,
            recent_item_ids=query.user.recent_item_ids,
            attributes=query.user.attributes,
        ),
        like_item_ids=query.like_item_ids,
        locale=query.locale,
        device=query.device,
        time=timestamp(query.time),
    )


def _interpretation_to_proto(reading: Interpretation) -> query_pb2.Interpretation:
    return query_pb2.Interpretation(
        slots=[
            query_pb2.Slot(
                attribute=s.attribute,
                value=s.value,
                confidence=s.confidence,
                item_id=s.item_id,
                start=s.start,
                end=s.end,
            )
            for s in reading.slots
        ],
        residual=reading.residual,
        confidence=reading.confidence,
    )


def query_from_proto(message: query_pb2.Query, *, request_id: str = "", seed: int = 0) -> Query:
    """Convert a query.

    Raises `InvalidArgumentError` for an unset class, a bad filter, or a confidence that is no
    number.
    """
    query_class = _CLASS_NAMES.get(message.query_class)
    if query_class is None:
        raise InvalidArgumentError(
            "query.query_class",
            f"{message.query_class} is not a query class",
            allowed=", ".join(c.value for c in QueryClass),
        )
    for index, reading in enumerate(message.interpretations):
        confidences = (reading.confidence, *(s.confidence for s in reading.slots))
        if not all(map(math.isfinite, confidences)):
            raise InvalidArgumentError(
                f"query.interpretations[{index}]", "a confidence is no number", allowed="0 to 1"
            )
    return Query(
        text=message.text,
        normalized=message.normalized,
        tokens=tuple(message.tokens),
        language=message.language or "en",
        query_class=query_class,
        interpretations=tuple(
            Interpretation(
                tuple(
                    Slot(s.attribute, s.value, s.confidence, s.item_id, s.start, s.end)
                    for s in reading.slots
                ),
                reading.residual,
                reading.confidence,
            )
            for reading in message.interpretations
        ),
        filters=filters_from_proto(message.filters),
        user=user_from_proto(message.user),
        like_item_ids=tuple(message.like_item_ids),
        locale=message.locale,
        device=message.device,
        time=seconds(message.time),
        request_id=request_id,
        seed=seed,
    )


def reasons_to_proto(reasons: Iterable[Reason]) -> list[candidate_pb2.Reason]:
    """Convert reasons."""
    return [candidate_pb2.Reason(kind=r.kind, detail=r.detail, weight=r.weight) for r in reasons]


def hits_to_proto(hits: Iterable[Hit], *, explain: bool) -> list[generator_service_pb2.Hit]:
    """Convert hits in rank order, with their reasons only on `explain`."""
    return [
        generator_service_pb2.Hit(
            item_id=h.item_id,
            score=h.score,
            reasons=reasons_to_proto(h.reasons) if explain else (),
        )
        for h in hits
    ]

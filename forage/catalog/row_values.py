"""From the loose shapes that files allow to `Item` and `Value`; `validation` judges the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from forage.catalog.item import Item, Value
from forage.catalog.schema import Attribute, Role, Schema
from forage.errors import InvalidArgumentError

_VALUE_FIELDS = frozenset({"value", "weight", "item_id", "predicted"})
_WEIGHT = re.compile(r"(?<!\\)(?P<escaped>(?:\\\\)*)@(?P<weight>-?\d*\.?\d+)\s*$")
_SEPARATOR = re.compile(r"((?:[^|\\]|\\.|\\$)*)(?:\||$)", re.DOTALL)


def parse_item(row: object, schema: Schema) -> Item:
    """Build an item from one decoded row; raises `InvalidArgumentError` naming the field."""
    if not isinstance(row, Mapping):
        raise InvalidArgumentError("line", "not an object", allowed="one JSON object per line")
    item_id, kind = _text(row, "item_id"), _text(row, "kind")
    given = {name: v for name, v in row.items() if name not in ("item_id", "kind", "attributes")}
    nested = row.get("attributes")
    if nested is not None:
        if not isinstance(nested, Mapping) or given:
            raise InvalidArgumentError(
                "attributes",
                "not an object, or other fields beside it",
                allowed="attributes either all in `attributes` or all beside item_id and kind",
            )
        given = dict(nested)
    attributes: dict[str, tuple[Value, ...]] = {}
    for name, raw in given.items():
        attribute = schema.attributes.get(name)
        if attribute is None:
            raise InvalidArgumentError(
                f"attributes.{name}",
                "unknown attribute",
                allowed="one of " + ", ".join(schema.attributes),
            )
        listed = raw if isinstance(raw, list | tuple) else [raw]
        values = tuple(
            _value(one, attribute, f"attributes.{name}[{index}]")
            for index, one in enumerate(listed)
            if one is not None
        )
        if values:
            attributes[name] = values
    return Item(item_id, kind, attributes)


def cell_values(cell: str, attribute: Attribute) -> list[dict[str, Any]]:
    """Split a CSV cell into values; raises ValueError for a number that is none."""
    values: list[dict[str, Any]] = []
    for match in _SEPARATOR.finditer(cell):
        part = match.group(1).strip()
        if not part:
            continue
        weight = 1.0
        if found := _WEIGHT.search(part):
            weight = float(found["weight"])
            part = part[: found.start()] + found["escaped"]
        text = re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).strip()
        plain_number = attribute.numeric and Role.TIME not in attribute.roles
        values.append({"value": float(text) if plain_number else text, "weight": weight})
    return values


def _value(raw: object, attribute: Attribute, field: str) -> Value:
    weight: Any = 1.0
    item_id: Any = ""
    predicted: Any = False
    if isinstance(raw, Mapping):
        unknown = raw.keys() - _VALUE_FIELDS
        if unknown or raw.get("value") is None:
            raise InvalidArgumentError(
                field,
                f"unknown field {min(map(str, unknown))}" if unknown else "no value",
                allowed="an object with value, weight, item_id, predicted",
            )
        weight = 1.0 if raw.get("weight") is None else raw["weight"]
        item_id = raw.get("item_id") or ""
        predicted = raw.get("predicted") or False
        raw = raw["value"]
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise InvalidArgumentError(
            f"{field}.weight", f"{weight!r:.80} is no number", allowed="above 0 and at most 1"
        )
    if not isinstance(item_id, str):
        raise InvalidArgumentError(f"{field}.item_id", "not text", allowed="an item id")
    if not isinstance(predicted, bool):
        raise InvalidArgumentError(f"{field}.predicted", "not a bool", allowed="true or false")
    value = _number(raw, attribute, field) if attribute.numeric else raw
    if not isinstance(value, str | float):
        raise InvalidArgumentError(field, f"{value!r:.80} is no text", allowed="text")
    return Value(value, float(weight), item_id, predicted)


def _number(raw: object, attribute: Attribute, field: str) -> float:
    """Return a number or a time as a float; whether it is finite is for `validation` to say."""
    is_time = Role.TIME in attribute.roles
    allowed = "ISO 8601 or seconds since the epoch" if is_time else "a finite number"
    try:
        if is_time and isinstance(raw, str):
            raw = datetime.fromisoformat(raw)
        if is_time and isinstance(raw, date):
            moment = raw if isinstance(raw, datetime) else datetime(raw.year, raw.month, raw.day)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            return float(raw)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(field, f"{raw!r:.80} ({error})", allowed=allowed) from error
    raise InvalidArgumentError(field, f"{raw!r:.80}", allowed=allowed)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or value == "":
        raise InvalidArgumentError(name, "missing or empty", allowed="text")
    if not isinstance(value, str):
        raise InvalidArgumentError(name, f"{value!r:.80} is not text", allowed="text")
    return value

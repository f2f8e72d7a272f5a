"""What a well-formed item is. Import and the CatalogService refuse the same things."""

from __future__ import annotations

import math
import re

from forage.catalog.item import Item, Value
from forage.catalog.schema import Attribute, Role, Schema
from forage.errors import InvalidArgumentError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 64 * 1024
MAX_VALUES = 1_000
MAX_TIME = 253_402_300_800.0
"""The first second of the year 10000; times lie within this distance of the epoch."""


def validate_item(item: Item, schema: Schema) -> None:
    """Raise `InvalidArgumentError` naming the first field of the item that is not allowed."""
    check_item_id(item.item_id, "item_id")
    if item.kind not in schema.kinds:
        raise InvalidArgumentError(
            "kind", f"unknown kind {item.kind!r}", allowed="one of " + ", ".join(schema.kinds)
        )
    for name, values in item.attributes.items():
        attribute = schema.attributes.get(name)
        if attribute is None:
            raise InvalidArgumentError(
                f"attributes.{name}",
                "unknown attribute",
                allowed="one of " + ", ".join(schema.attributes),
            )
        limit = 1 if Role.POPULARITY in attribute.roles else MAX_VALUES
        if len(values) > limit:
            raise InvalidArgumentError(
                f"attributes.{name}", f"{len(values)} values", allowed=f"at most {limit}"
            )
        for index, value in enumerate(values):
            _check_value(value, attribute, f"attributes.{name}[{index}]")


def check_item_id(item_id: str, field: str) -> None:
    """Raise `InvalidArgumentError` unless `item_id` can name an item."""
    allowed = f"1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters"
    if not item_id:
        raise InvalidArgumentError(field, "missing or empty", allowed=allowed)
    if _SURROGATE.search(item_id) or len(item_id.encode()) > MAX_ID_BYTES:
        raise InvalidArgumentError(field, "too long or not UTF-8", allowed=allowed)
    if _CONTROL.search(item_id):
        raise InvalidArgumentError(field, "has a control character", allowed=allowed)


def _check_value(value: Value, attribute: Attribute, field: str) -> None:
    if not 0 < value.weight <= 1:
        raise InvalidArgumentError(
            f"{field}.weight", f"{value.weight:g}", allowed="above 0 and at most 1"
        )
    if value.item_id:
        if Role.ENTITY not in attribute.roles:
            raise InvalidArgumentError(
                f"{field}.item_id", "the attribute names no items", allowed="empty"
            )
        check_item_id(value.item_id, f"{field}.item_id")
    if attribute.numeric:
        _check_number(value.value, attribute, field)
    else:
        _check_text(value.value, field)


def _check_number(value: str | float, attribute: Attribute, field: str) -> None:
    if isinstance(value, str | bool) or not math.isfinite(value):
        raise InvalidArgumentError(field, f"{value!r} is no number", allowed="a finite number")
    if Role.POPULARITY in attribute.roles and not 0 <= value <= 1:
        raise InvalidArgumentError(field, f"{value:g}", allowed="a number from 0 to 1")
    if Role.TIME in attribute.roles and abs(value) >= MAX_TIME:
        raise InvalidArgumentError(
            field, f"{value:g}", allowed="seconds since the epoch, year at most 9999"
        )


def _check_text(value: str | float, field: str) -> None:
    allowed = f"1 to {MAX_TEXT_BYTES} bytes of UTF-8 text without control characters"
    if not isinstance(value, str):
        raise InvalidArgumentError(field, f"{value!r} is no text", allowed=allowed)
    if not value.strip():
        raise InvalidArgumentError(field, "empty", allowed=allowed)
    if _SURROGATE.search(value) or len(value.encode()) > MAX_TEXT_BYTES:
        raise InvalidArgumentError(field, "too long or not UTF-8", allowed=allowed)
    if _CONTROL_IN_TEXT.search(value):
        raise InvalidArgumentError(field, "has a control character", allowed=allowed)

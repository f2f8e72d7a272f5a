"""What a filter means. Engines that push filters down are held to this by the conformance kit."""

from __future__ import annotations

from collections.abc import Sequence

from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter

FILTERABLE = frozenset({Role.KEYWORD, Role.NUMBER, Role.TIME, Role.POPULARITY})


def matches(item: Item, filters: Sequence[Filter]) -> bool:
    """Return whether the item satisfies every filter."""
    return all(_matches_one(item, f) for f in filters)


def _matches_one(item: Item, wanted: Filter) -> bool:
    if wanted.attribute == "kind":
        found = item.kind in wanted.values
    elif wanted.values:
        folded = {v.casefold() for v in wanted.values}
        found = any(
            str(v.value).casefold() in folded or (v.item_id and v.item_id in wanted.values)
            for v in item.values(wanted.attribute)
        )
    else:
        low = float("-inf") if wanted.minimum is None else wanted.minimum
        high = float("inf") if wanted.maximum is None else wanted.maximum
        found = any(low <= float(v.value) <= high for v in item.values(wanted.attribute))
    return found != wanted.exclude


def validate(filters: Sequence[Filter], schema: Schema) -> None:
    """Raise `InvalidArgumentError` for the first filter that the schema cannot carry out."""
    allowed = ["kind", *(n for n, a in schema.attributes.items() if a.roles & FILTERABLE)]
    for index, wanted in enumerate(filters):
        field = f"filters[{index}]"
        if wanted.attribute not in allowed:
            raise InvalidArgumentError(
                f"{field}.attribute",
                f"'{wanted.attribute}' cannot be filtered",
                allowed="one of " + ", ".join(allowed),
            )
        attribute = schema.attributes.get(wanted.attribute)
        ranged = attribute is not None and attribute.numeric
        if ranged and (wanted.values or (wanted.minimum is None and wanted.maximum is None)):
            raise InvalidArgumentError(
                field, f"'{wanted.attribute}' is numeric", allowed="a range with min or max"
            )
        if not ranged and not wanted.values:
            raise InvalidArgumentError(
                field, f"'{wanted.attribute}' is not numeric", allowed="one or more values"
            )
        bounds = [b for b in (wanted.minimum, wanted.maximum) if b is not None]
        if any(b != b for b in bounds) or bounds != sorted(bounds):
            raise InvalidArgumentError(f"{field}.range", "min is above max", allowed="min <= max")

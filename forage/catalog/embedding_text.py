"""The text that stands for an item in embedding space."""

from __future__ import annotations

from collections.abc import Collection

from forage.catalog.item import Item
from forage.catalog.schema import Role, Schema

MAX_VALUES = 4
MAX_CHARACTERS = 2_000


def embed_text(item: Item, schema: Schema, *, without: Collection[str] = ()) -> str:
    """Return the item's `embed` attributes as one line: title first, then in schema order.

    Of each attribute, at most the four strongest values count, because a long cast list would
    drown the rest; predicted values never do, so that a prediction does not feed on itself.
    Attributes named in `without` are left out. Empty if the item has nothing to embed.
    """
    names = schema.with_role(Role.EMBED)
    parts: list[str] = []
    for name in sorted(names, key=lambda n: n != schema.title):
        if name not in without:
            own = [value for value in item.values(name) if not value.predicted]
            own.sort(key=lambda value: -value.weight)
            text = ", ".join(str(value.value) for value in own[:MAX_VALUES])
            if text:
                parts.append(text)
    return ". ".join(parts)[:MAX_CHARACTERS]

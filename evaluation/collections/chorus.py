"""Chorus electronics: a shop's products and the judged `Broad` queries (O19s, Apache-2.0)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.collections.beir import Judgments, assemble, whole
from evaluation.collections.collection import Collection
from evaluation.collections.files import first_of, objects_of, printable, rows_of, schema
from forage.catalog import Item, Value

_TYPES = ("attr_t_product_type", "attr_t_type")
_MOST_SPECIFICATIONS = 60


def load(data: Path) -> Collection:
    """Read 19,406 products and the 116 queries that have a relevant one; gains are 0 to 3."""
    folder = data / "chorus_electronics"
    judged: Judgments = {}
    path = first_of(folder, "Broad_Query_Set_rated.csv")
    for number, row in enumerate(rows_of(path), 2):
        judged.setdefault(row["query"], {})[row["docid"]] = whole(row["rating"], path, number)
    items = (_item(row) for _, row in objects_of(first_of(folder, "products.jsonl")))
    texts = {query: query for query in judged}
    return assemble("chorus", schema("products"), items, texts, {"": judged})


def _item(row: dict[str, Any]) -> Item:
    texts = {
        "title": [row["title"]],
        "model": [row["name"]],
        "supplier": [row["supplier"]],
        "type": [row[name] for name in _TYPES if name in row],
        "description": [row.get("short_description", "")],
        "specification": list(_specifications(row)),
    }
    attributes = {
        name: tuple(Value(text) for text in dict.fromkeys(map(printable, values)) if text)
        for name, values in texts.items()
    }
    attributes["price"] = (Value(row["price"] / 100),)
    released = datetime.fromisoformat(row["date_released"]).replace(tzinfo=UTC)
    attributes["released"] = (Value(released.timestamp()),)
    return Item(row["id"], "product", {name: v for name, v in attributes.items() if v})


def _specifications(row: dict[str, Any]) -> Iterator[str]:
    """Yield what a page would list: `connector 1: DB-9`, and the features that it has."""
    found = 0
    for name, value in row.items():
        if name.startswith("attr_") and name not in _TYPES and found < _MOST_SPECIFICATIONS:
            label = " ".join(name[len("attr_x_") :].replace("_", " ").split())
            if value is True:
                yield label
            elif value is not False:
                yield f"{label}: {value}"
            found += 1

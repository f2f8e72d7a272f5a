"""Cranfield (Cleverdon, 1967): 1,400 abstracts on aerodynamics and 225 questions."""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.collections.beir import Judgments, assemble, document
from evaluation.collections.collection import Collection
from evaluation.collections.files import bad_line, first_of, lines_of, schema, text_of
from forage.catalog import Item, Value

_RECORD = re.compile(r"^\.I\s+(\d+)\s*$", re.MULTILINE)
_FIELD = re.compile(r"^\.([TABW])\s*$", re.MULTILINE)


def load(data: Path) -> Collection:
    """Read the collection; gains are 4 (a complete answer) to 1, and 0 for the rest."""
    folder = data / "cranfield"
    items = []
    for number, fields in _records(first_of(folder, "cran.all.1400")):
        values = document(fields.get("T"), fields.get("W"))
        attributes = {name: (Value(found),) for name, found in values.items() if found}
        items.append(Item(str(number), "document", attributes))
    texts = [fields.get("W", "") for _, fields in _records(first_of(folder, "cran.qry"))]
    # Judgments know a query by its place in the file, not by the number printed in it.
    by_place = {str(place): text for place, text in enumerate(texts, 1)}
    judged = _judgments(first_of(folder, "cranqrel"))
    return assemble("cranfield", schema("documents"), items, by_place, {"": judged})


def _records(path: Path) -> list[tuple[int, dict[str, str]]]:
    pieces = _RECORD.split(text_of(path, encoding="latin-1"))[1:]
    found = []
    for number, body in zip(pieces[::2], pieces[1::2], strict=True):
        fields = _FIELD.split(body)[1:]
        texts = zip(fields[::2], fields[1::2], strict=True)
        found.append((int(number), {name: " ".join(text.split()) for name, text in texts}))
    return found


def _judgments(path: Path) -> Judgments:
    found: Judgments = {}
    for number, line in lines_of(path):
        try:
            query_id, item_id, code = line.split()
            gain = max(0, 5 - int(code)) if int(code) > 0 else 0
        except ValueError:
            bad_line(path, number, repr(line), allowed="query, document and code")
        found.setdefault(query_id, {})[item_id] = gain
    return found

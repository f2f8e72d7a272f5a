"""Collections in the BEIR format: `corpus.jsonl`, `queries.jsonl` and `qrels/<part>.tsv`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.collections.collection import Collection, Topic
from evaluation.collections.files import bad_line, first_of, lines_of, objects_of, schema
from forage.catalog import Item, Schema, Value
from forage.errors import StartupError

PARTS = ("train", "dev", "test")
Judgments = dict[str, dict[str, int]]


def load(folder: Path, *, own_schema: Path | None = None) -> Collection:
    """Read a BEIR folder; every part that has a qrels file is read, and known as that part.

    A document has the attributes `title` and `text`, or, with a schema of one's own, whatever
    further keys of its line are attributes. Topics without a positive judgment are left out and
    counted in the note. Raises `StartupError` for a missing file and `InvalidArgumentError`
    naming file and line, or the field, for bad content.
    """
    found = {part: folder / "qrels" / f"{part}.tsv" for part in PARTS}
    found = {part: path for part, path in found.items() if path.is_file()}
    if not found:
        raise StartupError(f"judged data: {folder}/qrels has none of train, dev or test .tsv")
    return assemble(
        folder.resolve().name,
        Schema.load(own_schema) if own_schema else schema("documents"),
        documents(first_of(folder, "corpus.jsonl"), own_schema=own_schema),
        queries(first_of(folder, "queries.jsonl")),
        {part: qrels(path) for part, path in found.items()},
    )


def assemble(
    name: str,
    roles: Schema,
    items: Iterable[Item],
    texts: Mapping[str, str],
    by_part: Mapping[str, Judgments],
) -> Collection:
    """Join what was read; a topic belongs to the part whose judgments it has."""
    judgments: Judgments = {}
    parts: dict[str, str] = {}
    for part, rows in by_part.items():
        for query_id, gains in rows.items():
            judgments[query_id] = {**judgments.get(query_id, {}), **gains}
            parts[query_id] = part
    kept = {q: g for q, g in judgments.items() if q not in texts or any(v > 0 for v in g.values())}
    topics = [Topic(q, text, kind=parts[q]) for q, text in texts.items() if q in kept]
    dropped = len(texts) - len(topics)
    return Collection(
        name=name,
        schema=roles,
        items=tuple(items),
        topics=tuple(topics),
        judgments=kept,
        parts={q: parts[q] for q in kept},
        note=f"{dropped} queries without a relevant document left out" if dropped else "",
    )


def documents(path: Path, *, own_schema: Path | None = None) -> Iterable[Item]:
    """Yield the documents of a corpus file, with whatever attributes a schema of one's own has."""
    roles = Schema.load(own_schema) if own_schema else schema("documents")
    for number, row in objects_of(path):
        item_id = str(row.get("_id", ""))
        if not item_id:
            bad_line(path, number, "no _id", allowed="a document id in _id")
        given = {**row.pop("metadata", {}), **row}
        if own_schema is None:
            given = document(given.get("title"), given.get("text"))
        attributes = {
            name: values
            for name in roles.attributes
            if (values := _values(given.get(name), numeric=roles.attributes[name].numeric))
        }
        yield Item(item_id, str(row.get("kind", roles.kinds[0])), attributes)


def document(title: str | None, text: str | None) -> dict[str, str]:
    """Return the attributes of a document under the shipped schema.

    Its `text` begins with its title: BM25 over one long field is better than the sum of two, since
    a sum counts a word of the title twice (on the training claims of SciFact, .68 against .66).
    """
    whole_text = " ".join(part.strip() for part in (title, text) if part and part.strip())
    return {"title": title or "", "text": whole_text}


def queries(*paths: Path) -> dict[str, str]:
    """Return the texts of query files by query id."""
    texts: dict[str, str] = {}
    for path in paths:
        for number, row in objects_of(path):
            if "_id" not in row or not isinstance(row.get("text"), str):
                bad_line(path, number, "no _id or text", allowed='{"_id": "1", "text": "words"}')
            if str(row["_id"]) in texts:
                bad_line(path, number, f"query {row['_id']!r} again", allowed="every id once")
            texts[str(row["_id"])] = row["text"]
    return texts


def qrels(path: Path) -> Judgments:
    """Return gains by query and document of a tab-separated file with a header line."""
    found: Judgments = {}
    for number, line in lines_of(path):
        columns = line.split("\t")
        if number == 1 and columns[-1].strip() == "score":
            continue
        if len(columns) != 3:
            bad_line(path, number, f"{len(columns)} columns", allowed="query, document, gain")
        gain = whole(columns[2], path, number)
        found.setdefault(columns[0], {})[columns[1]] = gain
    return found


def whole(text: str, path: Path, number: int) -> int:
    """Return a gain, or raise `InvalidArgumentError` naming the line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value % 1:
        bad_line(path, number, f"gain {text!r}", allowed="a whole number")
    return int(value)


def _values(found: Any, *, numeric: bool) -> tuple[Value, ...]:  # noqa: ANN401 - any JSON
    listed = found if isinstance(found, list) else [found]
    kept = [v for v in listed if v is not None and str(v).strip()]
    return tuple(Value(float(v) if numeric else str(v)) for v in kept)

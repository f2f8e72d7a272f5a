"""Collections in the formats of TREC: topics, qrels, and documents as SGML or JSONL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from evaluation.collections.beir import Judgments, assemble, document, documents, whole
from evaluation.collections.collection import Collection
from evaluation.collections.files import bad_line, first_of, lines_of, objects_of, schema, text_of
from forage.catalog import Item, Schema, Value
from forage.errors import InvalidArgumentError, StartupError

_TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:number:)?\s*(\S+?)\s*(?:</num>|\n|<)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:topic:)?(.*?)(?:</title>|<(?:desc|narr)|\Z)", re.S | re.I)
_DOCUMENT = re.compile(r"<DOC>(.*?)</DOC>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")


def load(folder: Path, *, own_schema: Path | None = None) -> Collection:
    """Read a folder with `topics.*`, `qrels.*` and `docs.jsonl`, `docs.trec` or `docs.xml`.

    Topics are `<top>` blocks (the title is the query), JSONL with `_id` and `text`, or lines
    `id<TAB>text`. Qrels have four columns: query, iteration, document, gain; a gain below 0
    counts as 0. JSONL documents are as in BEIR; `<DOC>` blocks need a `<DOCNO>`. Raises
    `StartupError` for a missing file, `InvalidArgumentError` naming file and line, or the field.
    """
    return assemble(
        folder.resolve().name,
        Schema.load(own_schema) if own_schema else schema("documents"),
        _documents(folder, own_schema),
        topics(first_of(folder, *(f"topics.{e}" for e in ("xml", "trec", "txt", "jsonl", "tsv")))),
        {"": qrels(first_of(folder, "qrels", "qrels.txt", "qrels.trec", "qrels.tsv"))},
    )


def topics(path: Path) -> dict[str, str]:
    """Return the texts of topics by their number."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return {str(row.get("_id", "")): str(row.get("text", "")) for _, row in objects_of(path)}
    whole_text = text_of(path)
    if "<top" not in whole_text.lower():
        return dict(_tabbed(path))
    found: dict[str, str] = {}
    for block in _TOPIC.findall(whole_text):
        number, title = _NUMBER.search(block), _TITLE.search(block)
        if number is None or title is None:
            raise InvalidArgumentError(
                path.name, f"a <top> without <num> or <title>: {block[:60]!r}", allowed="both"
            )
        found[number[1]] = " ".join(title[1].split())
    return found


def qrels(path: Path) -> Judgments:
    """Return gains by query and document of a four-column file."""
    found: Judgments = {}
    for number, line in lines_of(path):
        columns = line.split()
        if len(columns) != 4:
            bad_line(
                path,
                number,
                f"{len(columns)} columns",
                allowed="query, iteration, document, gain",
            )
        found.setdefault(columns[0], {})[columns[2]] = max(0, whole(columns[3], path, number))
    return found


def _tabbed(path: Path) -> Iterable[tuple[str, str]]:
    for number, line in lines_of(path):
        query_id, tab, text = line.partition("\t")
        if not tab:
            bad_line(path, number, "no tab", allowed="id<TAB>text")
        yield query_id, text


def _documents(folder: Path, own_schema: Path | None) -> Iterable[Item]:
    path = first_of(folder, "docs.jsonl", "docs.trec", "docs.xml")
    if path.name.startswith("docs.jsonl"):
        yield from documents(path, own_schema=own_schema)
        return
    if own_schema is not None:
        raise StartupError("judged data: a schema of your own needs documents as docs.jsonl")
    for block in _DOCUMENT.findall(text_of(path)):
        number = _element(block, "DOCNO")
        if not number:
            raise InvalidArgumentError(path.name, "a <DOC> without <DOCNO>", allowed="both")
        title = _element(block, "TITLE") or _element(block, "HEADLINE")
        texts = document(title, _element(block, "TEXT"))
        yield Item(number, "document", {k: (Value(v),) for k, v in texts.items() if v})


def _element(block: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", block, re.DOTALL | re.IGNORECASE)
    return " ".join(_TAG.sub(" ", found[1]).split()) if found else ""

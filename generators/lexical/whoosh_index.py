"""The lexical index in Whoosh: pure Python, for small catalogues and for checking the other one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from whoosh import fields, index
from whoosh.analysis.tokenizers import RegexTokenizer
from whoosh.index import EmptyIndexError
from whoosh.query.compound import And, Or
from whoosh.query.positional import Phrase
from whoosh.query.qcore import Every, NullQuery
from whoosh.query.qcore import Query as NativeQuery
from whoosh.query.ranges import NumericRange
from whoosh.query.terms import Term
from whoosh.query.wrappers import Not
from whoosh.searching import Searcher as NativeSearcher

from forage.errors import StorageError
from forage.retrieval import Filter
from generators.lexical.analysis import SEPARATOR, item_term, value_term, words
from generators.lexical.clauses import (
    Adjacent,
    AnyToken,
    Between,
    Clause,
    Combination,
    HasTitle,
    HasValue,
    Nothing,
    OfKind,
)
from generators.lexical.layout import Document, Layout

_ITEM, _KIND, _TITLE, _ROW, _PAYLOAD = "item_id", "kind", "title", "row", "payload"
_TEXT, _VALUE, _NUMBER = "text_", "value_", "number_"
_GAP = "\x1e"
"""A token between the values of a field, which keeps phrases inside one value."""


# Much of Whoosh is not annotated; `Any` marks where that shows.
_every: Any = Every


class WhooshEngine:
    """An `Engine` on Whoosh. It only matches, and hands every match over to be scored."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Open the index in `folder`, or create it; raises `StorageError` if that fails."""
        self._folder = folder
        self._layout = layout
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = index.exists_in(str(folder))
            self._index: Any = (
                index.open_dir(str(folder))
                if made
                else index.create_in(str(folder), _schema(layout))
            )
        except (OSError, EmptyIndexError) as error:
            raise self._failure("open", error) from error
        self._searcher = WhooshSearcher(self._index.searcher(), layout)

    def write(self, removed: Iterable[str], added: Sequence[Document]) -> None:
        """Replace documents in one commit; see `Engine.write`."""
        try:
            with self._index.writer() as writer:
                for item_id in removed:
                    writer.delete_by_term(_ITEM, item_id)
                for document in added:
                    writer.add_document(**self._fields(document))
        except OSError as error:
            raise self._failure("write", error) from error
        self._searcher = WhooshSearcher(self._index.searcher(), self._layout)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield all documents; see `Engine.stored`."""
        with self._index.reader() as reader:
            for stored in reader.all_stored_fields():
                yield stored[_ROW], stored[_PAYLOAD]

    def searcher(self) -> WhooshSearcher:
        """Return the state after the last write."""
        return self._searcher

    def close(self) -> None:
        """Release files."""
        self._searcher.close()
        self._index.close()

    def _fields(self, document: Document) -> dict[str, object]:
        made: dict[str, object] = {
            _ITEM: document.item_id,
            _KIND: document.kind,
            _ROW: document.row,
            _PAYLOAD: document.packed,
        }
        if document.titles:
            made[_TITLE] = SEPARATOR.join(document.titles)
        for name, values in document.texts.items():
            made[_TEXT + name] = f" {_GAP} ".join(" ".join(words(text)) for text in values)
        for name, terms in document.values.items():
            made[_VALUE + name] = SEPARATOR.join((*terms, *document.named.get(name, ())))
        for name, numbers in document.numbers.items():
            made[_NUMBER + name] = list(numbers)
        return made

    def _failure(self, doing: str, error: Exception) -> StorageError:
        return StorageError(
            f"cannot {doing} the index {self._folder}: {error}",
            metadata={"file": str(self._folder)},
        )


class WhooshSearcher:
    """A `Searcher` on one commit."""

    def __init__(self, searcher: NativeSearcher, layout: Layout) -> None:
        """Search one state of an index."""
        self._searcher: Any = searcher
        self._layout = layout
        self._rows: Any = searcher.reader().column_reader(_ROW) if searcher.doc_count_all() else []
        # Readers of Whoosh share file positions, and threads would not make it faster.
        self._lock = threading.Lock()

    def best(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the rows of all matches; see `Searcher.best`."""
        parts = [self._query(clause)]
        for wanted in filters:
            found = self._filter(wanted)
            parts.append(Not(found) if wanted.exclude else found)
        # Never `normalize` it: Whoosh takes an And with an Every or a NullQuery for something else.
        sought = And(parts)
        with self._lock:
            return [int(self._rows[n]) for n in self._searcher.docs_for_query(sought)]

    def popular(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the rows of all matches, as `best` does."""
        return self.best(clause, filters, depth)

    def close(self) -> None:
        """Release files."""
        with self._lock:
            self._searcher.close()

    def _filter(self, wanted: Filter) -> NativeQuery:
        name = wanted.attribute
        if name == "kind":
            return _terms(_KIND, wanted.values)
        if wanted.values and name in self._layout.values:
            terms = {value_term(v) for v in wanted.values} | {item_term(v) for v in wanted.values}
            return _terms(_VALUE + name, sorted(terms))
        if not wanted.values and name in self._layout.numbers:
            return _range(Between(name, wanted.minimum, wanted.maximum))
        return NullQuery

    def _query(self, clause: Clause) -> NativeQuery:
        match clause:
            case AnyToken():
                return Or([Term(_TEXT + n, token) for n, token, _ in clause.tokens])
            case Adjacent():
                return Or([Phrase(_TEXT + n, list(clause.tokens)) for n in clause.attributes])
            case HasValue():
                return _terms(_VALUE + clause.attribute, clause.terms)
            case HasTitle():
                return Term(_TITLE, clause.term)
            case OfKind():
                return _terms(_KIND, clause.kinds)
            case Between():
                return _range(clause)
            case Combination():
                return self._combination(clause)
            case Nothing():
                return NullQuery

    def _combination(self, clause: Combination) -> NativeQuery:
        # What is optional beside something required changes scores, never matches.
        if clause.required:
            wanted = [self._query(c) for c in clause.required]
        elif clause.optional:
            wanted = [Or([self._query(c) for c in clause.optional])]
        else:
            wanted = [_every()]
        return And([*wanted, *(Not(self._query(c)) for c in clause.excluded)])


def _terms(field: str, terms: Sequence[str]) -> NativeQuery:
    return Or([Term(field, term) for term in terms])


def _range(wanted: Between) -> NativeQuery:
    return NumericRange(
        _NUMBER + wanted.attribute,
        wanted.low,
        wanted.high,
        startexcl=not wanted.low_included,
        endexcl=not wanted.high_included,
    )


def _schema(layout: Layout) -> fields.Schema:
    whole = RegexTokenizer(f"[^{SEPARATOR}]+")
    tokens = RegexTokenizer(r"\S+")
    schema = fields.Schema(
        **{
            _ITEM: fields.ID(unique=True),
            _KIND: fields.ID(),
            _TITLE: fields.KEYWORD(analyzer=whole),
            _ROW: fields.NUMERIC(int, bits=64, signed=False, stored=True, sortable=True),
            _PAYLOAD: fields.STORED(),
        }
    )
    for name in layout.texts:
        schema.add(_TEXT + name, fields.TEXT(analyzer=tokens, phrase=True))
    for name in layout.values:
        schema.add(_VALUE + name, fields.KEYWORD(analyzer=whole))
    for name in layout.numbers:
        schema.add(_NUMBER + name, fields.NUMERIC(float, bits=64, signed=True))
    return schema

"""The lexical index in tantivy: native, with two-phase commits and a memory-mapped reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tantivy
from tantivy import FieldType, Occur, Query, Tokenizer

from forage.errors import StorageError
from forage.retrieval import Filter
from generators.lexical.analysis import item_term, value_term, words
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

_ITEM, _KIND, _TITLE, _ROW, _PRIOR, _ORDER, _PAYLOAD = (
    "item_id", "kind", "title", "row", "prior", "order", "payload",
)  # fmt: skip
_TEXT, _VALUE, _NUMBER = "text_", "value_", "number_"
_GAP = "\x1e"
"""A token between the values of a field, which keeps phrases inside one value."""
_TIE_IN_SCORE = 1e-4
_TIE_IN_ORDER = 1e-9


class TantivyEngine:
    """An `Engine` on tantivy. Scores natively by BM25 with the popularity prior.

    The native score only chooses which matches are handed over: it counts deleted items until
    their segment is merged, and rounds lengths to one byte.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, heap_mb: int, popularity_weight: float
    ) -> None:
        """Open the index in `folder`, or create it; raises `StorageError` if that fails."""
        self._folder = folder
        self._layout = layout
        self._heap = heap_mb * 2**20
        self._popularity_weight = popularity_weight
        self._schema = _schema(layout)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(self._schema, str(folder))
        except (OSError, ValueError) as error:
            raise self._failure("open", error) from error
        self._index.register_tokenizer("tokens", _analyzer(Tokenizer.whitespace()))
        self._index.register_tokenizer("whole", _analyzer(Tokenizer.raw()))
        self._index.config_reader(reload_policy="manual")

    def write(self, removed: Iterable[str], added: Sequence[Document]) -> None:
        """Replace documents in one commit; see `Engine.write`."""
        try:
            # A writer keeps its heap and threads, so there is one only while it is needed.
            writer = self._index.writer(self._heap, 1)
            for item_id in removed:
                writer.delete_documents_by_term(_ITEM, item_id)
            for document in added:
                writer.add_document(self._document(document))
            writer.commit()
            writer.wait_merging_threads()
            self._index.reload()
        except (OSError, ValueError) as error:
            raise self._failure("write", error) from error

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield all documents; see `Engine.stored`."""
        searcher = self._index.searcher()
        if not searcher.num_docs:
            return
        found = searcher.search(Query.all_query(), searcher.num_docs, count=False)
        for _, address in found.hits:
            document = searcher.doc(address)
            yield int(document[_ROW][0]), bytes(document[_PAYLOAD][0])

    def searcher(self) -> TantivySearcher:
        """Return the state after the last write."""
        return TantivySearcher(self._index.searcher(), self._schema, self._layout)

    def close(self) -> None:
        """Nothing is held between writes but memory maps, which go with the object."""

    def _document(self, document: Document) -> tantivy.Document:
        made = tantivy.Document()
        made.add_unsigned(_ROW, document.row)
        made.add_text(_ITEM, document.item_id)
        made.add_text(_KIND, document.kind)
        made.add_bytes(_PAYLOAD, document.packed)
        prior = self._popularity_weight * document.popularity
        made.add_float(_PRIOR, prior + _TIE_IN_SCORE * document.tie)
        made.add_float(_ORDER, document.popularity + _TIE_IN_ORDER * document.tie)
        for name, values in document.texts.items():
            made.add_text(_TEXT + name, f" {_GAP} ".join(" ".join(words(text)) for text in values))
        for name, terms in document.values.items():
            for term in (*terms, *document.named.get(name, ())):
                made.add_text(_VALUE + name, term)
        for term in document.titles:
            made.add_text(_TITLE, term)
        for name, numbers in document.numbers.items():
            for number in numbers:
                made.add_float(_NUMBER + name, number)
        return made

    def _failure(self, doing: str, error: Exception) -> StorageError:
        return StorageError(
            f"cannot {doing} the index {self._folder}: {error}",
            metadata={"file": str(self._folder)},
        )


class TantivySearcher:
    """A `Searcher` on one commit."""

    def __init__(self, searcher: tantivy.Searcher, schema: tantivy.Schema, layout: Layout) -> None:
        """Search one state of an index."""
        self._searcher = searcher
        self._schema = schema
        self._layout = layout

    def best(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the best rows by native score; see `Searcher.best`."""
        query = self._filtered(clause, filters)
        found = self._searcher.search(query, depth, count=False, weight_by_field=_PRIOR)
        return self._rows(found)

    def popular(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the most popular rows; see `Searcher.popular`."""
        query = self._filtered(clause, filters)
        return self._rows(self._searcher.search(query, depth, count=False, order_by_field=_ORDER))

    def _rows(self, found: tantivy.SearchResult) -> list[int]:
        addresses = [address for _, address in found.hits]
        return [int(row or 0) for row in self._searcher.fast_field_values(_ROW, addresses)]

    def _filtered(self, clause: Clause, filters: Sequence[Filter]) -> Query:
        parts = [(Occur.Must, self._query(clause))]
        for wanted in filters:
            query = self._filter(wanted)
            if wanted.exclude:
                parts.append((Occur.MustNot, query))
            else:
                parts.append((Occur.Must, Query.const_score_query(query, 0.0)))
        return parts[0][1] if len(parts) == 1 else Query.boolean_query(parts)

    def _filter(self, wanted: Filter) -> Query:
        name = wanted.attribute
        if name == "kind":
            return self._terms(_KIND, wanted.values)
        if wanted.values and name in self._layout.values:
            terms = {value_term(v) for v in wanted.values} | {item_term(v) for v in wanted.values}
            return self._terms(_VALUE + name, sorted(terms))
        if not wanted.values and name in self._layout.numbers:
            return self._range(Between(name, wanted.minimum, wanted.maximum))
        return Query.empty_query()

    def _query(self, clause: Clause) -> Query:
        match clause:
            case AnyToken():
                parts = [
                    _boosted(self._term(_TEXT + name, token), weight)
                    for name, token, weight in clause.tokens
                ]
                return _any(parts)
            case Adjacent():
                phrases = [
                    Query.phrase_query(self._schema, _TEXT + name, list(clause.tokens))
                    for name in clause.attributes
                ]
                return Query.const_score_query(_any(phrases), 0.0)
            case HasValue():
                found = self._terms(_VALUE + clause.attribute, clause.terms)
                return Query.const_score_query(found, clause.score)
            case HasTitle():
                return Query.const_score_query(self._term(_TITLE, clause.term), clause.score)
            case OfKind():
                return Query.const_score_query(self._terms(_KIND, clause.kinds), 0.0)
            case Between():
                return Query.const_score_query(self._range(clause), 0.0)
            case Combination():
                return self._combination(clause)
            case Nothing():
                return Query.empty_query()

    def _combination(self, clause: Combination) -> Query:
        parts = [(Occur.Must, self._query(c)) for c in clause.required]
        parts += [(Occur.Should, self._query(c)) for c in clause.optional]
        if not parts:
            parts.append((Occur.Must, Query.const_score_query(Query.all_query(), 0.0)))
        parts += [(Occur.MustNot, self._query(c)) for c in clause.excluded]
        return Query.boolean_query(parts)

    def _range(self, wanted: Between) -> Query:
        if wanted.low is None and wanted.high is None:
            return Query.exists_query(_NUMBER + wanted.attribute)
        return Query.range_query(
            self._schema,
            _NUMBER + wanted.attribute,
            FieldType.Float,
            wanted.low,
            wanted.high,
            wanted.low_included,
            wanted.high_included,
        )

    def _term(self, field: str, term: str) -> Query:
        return Query.term_query(self._schema, field, term, "freq")

    def _terms(self, field: str, terms: Sequence[str]) -> Query:
        return Query.term_set_query(self._schema, field, terms)


def _any(parts: Sequence[Query]) -> Query:
    if len(parts) == 1:
        return parts[0]
    return Query.boolean_query([(Occur.Should, part) for part in parts])


def _boosted(query: Query, weight: float) -> Query:
    return query if weight == 1.0 else Query.boost_query(query, weight)


def _analyzer(tokenizer: Tokenizer) -> tantivy.TextAnalyzer:
    return tantivy.TextAnalyzerBuilder(tokenizer).build()


def _schema(layout: Layout) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field(_ROW, stored=True, fast=True)
    builder.add_float_field(_PRIOR, fast=True)
    builder.add_float_field(_ORDER, fast=True)
    builder.add_bytes_field(_PAYLOAD, stored=True)
    for name in (_ITEM, _KIND, _TITLE, *(_VALUE + n for n in layout.values)):
        builder.add_text_field(name, tokenizer_name="whole", index_option="basic")
    for name in layout.texts:
        builder.add_text_field(_TEXT + name, tokenizer_name="tokens", index_option="position")
    for name in layout.numbers:
        builder.add_float_field(_NUMBER + name, fast=True)
    return builder.build()

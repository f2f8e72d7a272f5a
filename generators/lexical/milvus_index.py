"""The lexical index in Milvus: BM25 by its own function, on Milvus Lite or a server of 2.5."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path

from forage.durable import replace_file
from forage.errors import StartupError, StorageError, UnavailableError
from forage.retrieval import Filter
from generators.lexical.clauses import Clause
from generators.lexical.layout import Document, Layout
from generators.lexical.milvus_clauses import (
    MOST_NUMBERS,
    MOST_TERMS,
    MOST_TEXT,
    Expressions,
    arrays,
    fields,
    query_text,
)
from generators.lexical.settings import LexicalMilvusSettings
from generators.milvus import login
from generators.milvus.connection import BM25, FAILURES, MilvusConnection, server_version
from generators.milvus.lean_pymilvus import (
    CollectionSchema,
    DataType,
    Function,
    FunctionType,
    IndexParams,
    MilvusClient,
)

_MOST_RESULTS = 16_384
_ID_BYTES = 1_024
_SPARE = 2
"""Milvus scores without popularity, so more than wanted are fetched to be scored exactly."""
_TIE = 1e-6


class MilvusEngine:
    """An `Engine` on Milvus. The collection is this process's own; documents are kept in a file.

    Milvus finds and roughly scores; words, values and titles are tokens of one text, and every
    condition is an expression. A phrase of three or more words is found by its pairs of words.
    """

    def __init__(self, folder: Path, layout: Layout, settings: LexicalMilvusSettings) -> None:
        """Open the collection that `folder` belongs to, or make it.

        Raises `StartupError` if Milvus cannot be used or has no BM25, and `StorageError` if the
        folder cannot be written.
        """
        if settings.embedded:
            _check_embedded()
            settings = settings.model_copy(update={"uri": "milvus.db"})
        self._folder = folder
        self._layout = layout
        self._settings = settings
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._documents = Documents(folder / "documents.db")
            self._name, self._owner = self._names()
        except (OSError, sqlite3.Error) as error:
            raise self._failure("open", error) from error
        self._connection = MilvusConnection(
            settings, folder, on_open=self._load, oldest=BM25, needed_by="engine: milvus"
        )
        client = self._connection.open()
        try:
            self._ready(client)
        except FAILURES as error:
            self.close()
            raise StartupError(f"engine: milvus: {login.text(error)}") from error

    def write(self, removed: Iterable[str], added: Sequence[Document]) -> None:
        """Replace documents; see `Engine.write`."""
        timeout = self._settings.write_timeout_s
        added_ids = {document.item_id for document in added}
        gone = [item_id for item_id in removed if item_id not in added_ids]
        rows = [fields(d, self._layout, flagged=self._connection.embedded) for d in added]
        size = self._settings.batch
        try:
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                self._connection.call(
                    lambda client, part=part: client.upsert(  # type: ignore[misc]
                        self._name, part, timeout=timeout
                    )
                )
            for start in range(0, len(gone), size):
                ids = gone[start : start + size]
                self._connection.call(
                    lambda client, ids=ids: client.delete(  # type: ignore[misc]
                        self._name, ids=ids, timeout=timeout
                    )
                )
            self._count()
            self._documents.write(gone, added)
        except (UnavailableError, OSError, sqlite3.Error) as error:
            raise self._failure("write", error) from error

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Yield all documents; see `Engine.stored`.

        Raises `ValueError` if the collection on a server has other ones.
        """
        if self._count() != len(self._documents.rows):
            raise ValueError(f"collection '{self._name}' is not what {self._folder} was made with")
        yield from self._documents.read()

    def searcher(self) -> MilvusSearcher:
        """Return the state after the last write."""
        documents = self._documents
        expressions = Expressions(
            self._layout, dict(documents.most_numbers), negation=not self._connection.embedded
        )
        return MilvusSearcher(
            self._connection, self._name, self._settings, expressions, dict(documents.rows)
        )

    def close(self) -> None:
        """Disconnect, and end Milvus Lite."""
        self._connection.close()

    def _names(self) -> tuple[str, str]:
        """Return the collection's name, and how those of this folder begin."""
        known = self._folder / "generation"
        if not known.exists():
            replace_file(known, secrets.token_hex(4).encode())
        place = f"{socket.gethostname()}:{self._folder.absolute()}"
        owner = hashlib.sha256(place.encode()).hexdigest()[:12]
        owned = f"{self._settings.collection}_lexical_{owner}_"
        return owned + known.read_text(), owned

    def _ready(self, client: MilvusClient) -> None:
        timeout = self._settings.write_timeout_s
        if client.has_collection(self._name, timeout=timeout):
            self._load(client)
            return
        for name in client.list_collections(timeout=timeout):
            if name.startswith(self._owner):
                client.drop_collection(name, timeout=timeout)
        client.create_collection(
            self._name,
            schema=self._schema(),
            index_params=_index(),
            consistency_level="Session",
            timeout=timeout,
        )

    def _load(self, client: MilvusClient) -> None:
        client.load_collection(self._name, timeout=self._settings.write_timeout_s)

    def _count(self) -> int:
        found = self._connection.call(
            lambda client: client.query(
                self._name,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._settings.write_timeout_s,
            )
        )
        return int(found[0]["count(*)"])

    def _schema(self) -> CollectionSchema:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("item_id", DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
        schema.add_field("kind", DataType.INT64)
        schema.add_field(
            "text",
            DataType.VARCHAR,
            max_length=MOST_TEXT,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "whitespace"},
        )
        schema.add_field("scored", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["text"],
                output_field_names=["scored"],
            )
        )
        schema.add_field("prior", DataType.FLOAT_VECTOR, dim=2)
        for name in arrays(self._layout):
            _add_array(schema, name, DataType.INT64, MOST_TERMS)
            if self._connection.embedded:
                schema.add_field(f"flags_{name}", DataType.JSON)
        for name in self._layout.numbers:
            _add_array(schema, f"numbers_{name}", DataType.DOUBLE, MOST_NUMBERS)
            schema.add_field(f"count_{name}", DataType.INT64)
        return schema

    def _failure(self, doing: str, error: Exception) -> StorageError:
        return StorageError(
            f"cannot {doing} the index {self._folder}: {error}",
            metadata={"file": str(self._folder)},
        )


class MilvusSearcher:
    """A `Searcher` on the items that there were when it was made."""

    def __init__(
        self,
        connection: MilvusConnection,
        name: str,
        settings: LexicalMilvusSettings,
        expressions: Expressions,
        rows: Mapping[str, int],
    ) -> None:
        """Search one collection; `rows` are the items to return, by id."""
        self._connection = connection
        self._name = name
        self._settings = settings
        self._expressions = expressions
        self._rows = rows

    def best(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the best rows by BM25; see `Searcher.best`."""
        expression = self._expressions.write(clause, filters)
        text = query_text(clause)
        wanted = min(_SPARE * depth, _MOST_RESULTS)
        found = self._search("scored", text, "BM25", expression, wanted) if text else []
        if len(found) < wanted:
            # What satisfies the clause without any scored word comes last.
            found += self._popular(expression, wanted)
        return list(dict.fromkeys(found))

    def popular(self, clause: Clause, filters: Sequence[Filter], depth: int) -> list[int]:
        """Return the most popular rows; see `Searcher.popular`."""
        expression = self._expressions.write(clause, filters)
        return self._popular(expression, min(depth, _MOST_RESULTS))

    def _popular(self, expression: str, limit: int) -> list[int]:
        return self._search("prior", [1.0, _TIE], "IP", expression, limit)

    def _search(
        self, field: str, data: str | list[float], metric: str, expression: str, limit: int
    ) -> list[int]:
        found = self._connection.call(
            lambda client: client.search(
                self._name,
                data=[data],
                anns_field=field,
                limit=limit,
                filter=expression,
                output_fields=[],
                search_params={"metric_type": metric, "params": {}},
                consistency_level=self._settings.consistency.capitalize(),
                timeout=self._settings.search_timeout_s,
            )
        )
        rows = self._rows
        return [rows[hit.id] for hit in found[0] if hit.id in rows]


class Documents:
    """What the corpus needs of the documents, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; raises `sqlite3.Error`."""
        self._path = path
        self.rows: dict[str, int] = {}
        self.most_numbers: dict[str, int] = {}
        with closing(self._connect()) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS documents"
                " (item_id TEXT PRIMARY KEY, row INTEGER NOT NULL, packed BLOB NOT NULL)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS most (numbers TEXT NOT NULL)")
            self.rows.update(database.execute("SELECT item_id, row FROM documents"))
            for (numbers,) in database.execute("SELECT numbers FROM most"):
                self.most_numbers.update(json.loads(numbers))

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield the row and the packed form of every document."""
        with closing(self._connect()) as database:
            yield from database.execute("SELECT row, packed FROM documents")

    def write(self, removed: Sequence[str], added: Sequence[Document]) -> None:
        """Remove and add documents in one transaction."""
        for document in added:
            for name, numbers in document.numbers.items():
                most = max(len(numbers), self.most_numbers.get(name, 0))
                self.most_numbers[name] = min(most, MOST_NUMBERS)
        with closing(self._connect()) as database, database:
            database.executemany(
                "DELETE FROM documents WHERE item_id = ?", [(item_id,) for item_id in removed]
            )
            database.executemany(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)",
                [(document.item_id, document.row, document.packed) for document in added],
            )
            database.execute("DELETE FROM most")
            database.execute("INSERT INTO most VALUES (?)", (json.dumps(self.most_numbers),))
        for item_id in removed:
            self.rows.pop(item_id, None)
        self.rows.update((document.item_id, document.row) for document in added)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)


def _add_array(schema: CollectionSchema, name: str, element: DataType, capacity: int) -> None:
    schema.add_field(name, DataType.ARRAY, element_type=element, max_capacity=capacity)


def _index() -> IndexParams:
    index = MilvusClient.prepare_index_params()
    index.add_index(
        "scored",
        index_type="SPARSE_INVERTED_INDEX",
        metric_type="BM25",
        params={"bm25_k1": 1.2, "bm25_b": 0.75},
    )
    index.add_index("prior", index_type="FLAT", metric_type="IP", params={})
    return index


def _check_embedded() -> None:
    try:
        version = metadata.version("milvus-lite")
    except metadata.PackageNotFoundError:
        version = "not installed"
    if server_version(version) < BM25:
        raise StartupError(
            f"engine: milvus: needs milvus-lite 2.5.1 or a Milvus server of 2.5 or newer in"
            f" milvus.uri; milvus-lite is {version}"
        )

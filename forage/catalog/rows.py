"""Reading catalogues: JSONL, CSV and Parquet files to items, bad rows named and never fatal.

**JSONL.** One JSON object per line: `item_id`, `kind`, and the attributes either under
`attributes` or beside them. An attribute is one value or a list of values; a value is a scalar or
`{"value": ..., "weight": 0.4, "item_id": "person:tom-hanks", "predicted": true}`, of which only
`value` is needed. Blank lines are skipped.

    {"item_id": "film:1", "kind": "film", "title": "Big", "year": 1988,
     "genre": ["Comedy", {"value": "Drama", "weight": 0.4}]}

(on one line)

**CSV.** UTF-8, comma-separated, a header with `item_id`, `kind` and attribute names. `|` separates
several values of a cell, and `@` with a number at the end of a value is its weight:
`Comedy|Drama@0.4`. A backslash makes `|`, `@` or itself an ordinary character. An empty cell is
no value. CSV carries no references to other items.

**Parquet.** Columns `item_id`, `kind` and attribute names: scalars, timestamps, dates, lists, and
structs with the fields of a JSONL value. Streamed, never read whole.

Numbers must be finite. `time` attributes are ISO 8601 text (UTC unless it says otherwise), a
timestamp column, or seconds since the epoch. A null is no value.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from forage.catalog.item import Item
from forage.catalog.row_values import cell_values, parse_item
from forage.catalog.schema import Schema
from forage.catalog.validation import validate_item
from forage.errors import InvalidArgumentError

__all__ = ["FORMATS", "BadRow", "read_items", "validate_item"]

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
MAX_LINE_BYTES = 1024 * 1024
_PARQUET_BATCH = 512


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no item, where it stands, and why."""

    line: int
    """Line of the file at which the row starts, from 1; for Parquet the number of the row."""
    reason: str
    """Names the field and what is allowed."""


def read_items(
    path: Path, schema: Schema, *, format: str | None = None, skip: int = 0
) -> Iterator[Item | BadRow]:
    """Yield an `Item` or a `BadRow` for every row after the first `skip` ones.

    `format` is `jsonl`, `csv` or `parquet`, by default told by the file's name. Raises
    `InvalidArgumentError` if the file as a whole cannot be read: missing, of an unknown format,
    without the columns `item_id` and `kind`, or with a column that the schema does not know.
    """
    chosen = format or FORMATS.get(path.suffix.lower())
    try:
        if chosen == "jsonl":
            yield from islice(_read_jsonl(path, schema), skip, None)
        elif chosen == "csv":
            yield from islice(_read_csv(path, schema), skip, None)
        elif chosen == "parquet":
            yield from islice(_read_parquet(path, schema), skip, None)
        else:
            raise InvalidArgumentError(
                "format",
                f"{path.name} is of unknown format {chosen or path.suffix!r}",
                allowed="jsonl, csv or parquet",
            )
    except OSError as error:
        raise InvalidArgumentError(
            "path", f"{path} cannot be read: {error}", allowed="a readable file"
        ) from error


def _read_jsonl(path: Path, schema: Schema) -> Iterator[Item | BadRow]:
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            if line is None:
                yield BadRow(number, f"line: longer than allowed; allowed: {MAX_LINE_BYTES} bytes")
            elif line.strip():
                yield _item_of_line(line.removeprefix(b"\xef\xbb\xbf"), schema, number)


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield every line; None stands for one too long to be held in memory."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _item_of_line(line: bytes, schema: Schema, number: int) -> Item | BadRow:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return BadRow(number, f"line: byte {error.start + 1} is not UTF-8; allowed: UTF-8 text")
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"line: malformed JSON ({error}); allowed: one JSON object per line")
    return _item_of_row(row, schema, number)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _item_of_row(row: object, schema: Schema, number: int) -> Item | BadRow:
    try:
        item = parse_item(row, schema)
        validate_item(item, schema)
    except InvalidArgumentError as error:
        # A row may smuggle lone surrogates into the message, which no terminal could print.
        return BadRow(number, error.message.encode("utf-8", "backslashreplace").decode())
    return item


def _read_csv(path: Path, schema: Schema) -> Iterator[Item | BadRow]:
    # Undecodable bytes become surrogates, so that one bad cell spoils one row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise _bad_header(str(error), schema) from error
        _check_columns(header, schema)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(line, f"line: malformed CSV ({error}); allowed: RFC 4180")
                continue
            if cells:
                yield _item_of_cells(header, cells, schema, line)


def _item_of_cells(header: list[str], cells: list[str], schema: Schema, line: int) -> Item | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"line: {len(cells)} columns; allowed: {len(header)}, as in the header")
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        if any("\udc80" <= c <= "\udcff" for c in cell):
            return BadRow(line, f"{name}: not UTF-8; allowed: UTF-8 text")
        if name in ("item_id", "kind"):
            row[name] = cell
            continue
        try:
            row[name] = cell_values(cell, schema.attributes[name])
        except ValueError as error:
            return BadRow(line, f"attributes.{name}: {error}; allowed: numbers")
    return _item_of_row(row, schema, line)


def _read_parquet(path: Path, schema: Schema) -> Iterator[Item | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(list(file.schema_arrow.names), schema)
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield _item_of_row(row, schema, number)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidArgumentError(
            "path", f"{path} is not readable Parquet: {error}", allowed="an intact Parquet file"
        ) from error


def _check_columns(columns: list[str], schema: Schema) -> None:
    missing = {"item_id", "kind"} - set(columns)
    unknown = set(columns) - {"item_id", "kind"} - schema.attributes.keys()
    if missing:
        raise _bad_header(f"no column {', '.join(sorted(missing))}", schema)
    if unknown:
        raise _bad_header(f"unknown column {', '.join(sorted(unknown))}", schema)
    if len(set(columns)) != len(columns):
        raise _bad_header("a column appears twice", schema)


def _bad_header(problem: str, schema: Schema) -> InvalidArgumentError:
    allowed = "item_id and kind, and of " + ", ".join(schema.attributes)
    return InvalidArgumentError("header", problem, allowed=allowed)

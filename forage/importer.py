"""Imports: rows of files to items in the catalogue, through the client, and on after a stop.

A file's rows are written in batches, each of which is durable before the next is sent, and the
number of rows done is kept beside it: the same import started again goes on from there. A batch
that was sent and not noted is sent again, which changes nothing, because writes replace items.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forage.catalog.import_state import ImportState
from forage.catalog.item import Item
from forage.catalog.rows import FORMATS, BadRow, read_items
from forage.catalog.schema import Schema
from forage.client import Client, IngestStatus
from forage.client.attempts import not_reached
from forage.errors import FailedPreconditionError

if TYPE_CHECKING:
    from forage.catalog.understanding import Report, Understanding

_BATCH_ITEMS = 500
_BATCH_BYTES = 4 * 2**20
_POLL_S = 0.1
_SEED = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows."""

    path: Path
    format: str | None = None
    """`jsonl`, `csv` or `parquet`; None: as its name says."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage of an import is."""

    stage: str
    """`read NAME`, `predict` or `write NAME`."""
    done: int
    total: int
    """Rows in all, or nearly; 0 if unknown."""


@dataclass(slots=True)
class Summary:
    """What an import has done."""

    written: int = 0
    """Items written by this run."""
    resumed: int = 0
    """Rows that an earlier run had done."""
    bad: int = 0
    """Rows skipped because they are no items."""
    sequence: int = 0
    """Of the last write; 0 if nothing was written."""
    reports: list[Report] = field(default_factory=list)
    """What content understanding could predict, and how well."""


class Importer:
    """Writes the rows of files into the catalogue of a Forage server."""

    def __init__(
        self,
        client: Client,
        state_dir: Path,
        *,
        skip_bad: bool = False,
        predict: bool = True,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_bad_row: Callable[[Path, BadRow], None] = lambda path, row: None,
    ) -> None:
        """Prepare an import.

        `state_dir` is where progress is kept. Without `skip_bad`, nothing after the first bad row
        is written. With `predict`, missing values of attributes that the schema has predicted are
        filled in, for which all rows are held in memory.
        """
        self._client = client
        self._state_dir = state_dir
        self._skip_bad = skip_bad
        self._predict = predict
        self._on_progress = on_progress
        self._on_bad_row = on_bad_row

    def restart(self, sources: Sequence[Source]) -> None:
        """Forget how far earlier runs have come."""
        for source in sources:
            self._state(source).clear()

    def run(self, sources: Sequence[Source]) -> Summary:
        """Import all the files, in order.

        Raises `InvalidArgumentError` for a file that cannot be read, and
        `FailedPreconditionError` at a bad row, with everything before it written.
        """
        schema = self._client.schema()
        summary = Summary()
        states = [self._state(source) for source in sources]
        if self._predict and any(a.predict for a in schema.attributes.values()):
            read = [self._read_all(source, schema) for source in sources]
            understanding = self._understand(read, schema, summary)
            for source, state, rows in zip(sources, states, read, strict=True):
                completed = (
                    row if isinstance(row, BadRow) else understanding.complete(row)
                    for row in rows[state.rows_done :]
                )
                self._write(source, state, completed, len(rows), summary)
        else:
            for source, state in zip(sources, states, strict=True):
                rows_left = read_items(
                    source.path, schema, format=source.format, skip=state.rows_done
                )
                self._write(source, state, rows_left, _count(source), summary)
        for state in states:
            state.clear()
        return summary

    def _state(self, source: Source) -> ImportState:
        name = f"{self._client.address}\n{source.path.absolute()}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return ImportState(self._state_dir / f"{source.path.stem}-{digest}.json", source.path)

    def _read_all(self, source: Source, schema: Schema) -> list[Item | BadRow]:
        rows: list[Item | BadRow] = []
        total = _count(source)
        for row in read_items(source.path, schema, format=source.format):
            rows.append(row)
            if len(rows) % _BATCH_ITEMS == 0:
                self._on_progress(Progress(f"read {source.path.name}", len(rows), total))
        self._on_progress(Progress(f"read {source.path.name}", len(rows), len(rows)))
        return rows

    def _understand(
        self, read: Sequence[Sequence[Item | BadRow]], schema: Schema, summary: Summary
    ) -> Understanding:
        # scikit-learn takes a second to import, which an import without predictions need not.
        from forage.catalog.understanding import understand

        items = [row for rows in read for row in rows if isinstance(row, Item)]
        self._on_progress(Progress("predict", 0, 1))
        understanding = understand(items, schema, rng=np.random.default_rng(_SEED))
        self._on_progress(Progress("predict", 1, 1))
        summary.reports = understanding.reports
        return understanding

    def _write(
        self,
        source: Source,
        state: ImportState,
        rows: Iterable[Item | BadRow],
        total: int,
        summary: Summary,
    ) -> None:
        done = state.rows_done
        summary.resumed += done
        batch: dict[str, Item] = {}
        size = 0

        def flush() -> None:
            nonlocal size
            if batch:
                summary.sequence = self._client.upsert(batch.values())
                summary.written += len(batch)
                batch.clear()
                size = 0
            if done > state.rows_done:
                state.advance(done)
            self._on_progress(Progress(f"write {source.path.name}", done, max(total, done)))

        for row in rows:
            if isinstance(row, BadRow):
                self._on_bad_row(source.path, row)
                if not self._skip_bad:
                    flush()
                    raise _stopped(source.path, row)
                summary.bad += 1
            else:
                # One write has each id once, and the later of two rows is to win.
                if row.item_id in batch or len(batch) >= _BATCH_ITEMS or size > _BATCH_BYTES:
                    flush()
                batch[row.item_id] = row
                size += _weight(row)
            done += 1
        flush()


def wait_applied(
    client: Client,
    sequence: int,
    *,
    on_status: Callable[[IngestStatus], None] = lambda status: None,
    stall_s: float = 60.0,
) -> IngestStatus:
    """Wait until every projection has applied a catalogue sequence, telling how far they are.

    Raises `DeadlineExceededError` naming those that are behind, if none of them has moved for
    `stall_s` seconds.
    """
    moved = time.monotonic()
    before: dict[str, int] = {}
    while behind := (status := client.ingest_status()).behind(sequence):
        on_status(status)
        if behind != before:
            before, moved = behind, time.monotonic()
        elif time.monotonic() - moved > stall_s:
            raise not_reached(sequence, behind, stall_s)
        time.sleep(_POLL_S)
    on_status(status)
    return status


def _stopped(path: Path, row: BadRow) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"stopped at line {row.line} of {path}: every row before it is written, none after it;"
        " correct the row, or leave bad rows out with --skip-bad",
        metadata={"path": str(path), "line": str(row.line)},
    )


def _weight(item: Item) -> int:
    """Return about how many bytes the item has on the wire."""
    return 64 + sum(
        24 + (len(v.value) if isinstance(v.value, str) else 8) + len(v.item_id)
        for values in item.attributes.values()
        for v in values
    )


def _count(source: Source) -> int:
    """Return how many rows a file has: exactly for Parquet, nearly for text; 0 if unreadable."""
    kind = source.format or FORMATS.get(source.path.suffix.lower())
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(source.path).num_rows)
        except (OSError, pa.ArrowException):
            # `read_items` meets the same file, and says what is wrong with it.
            return 0
    with source.path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))

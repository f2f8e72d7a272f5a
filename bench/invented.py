"""Vectors without a model: what a store of them costs depends on their number, not their meaning.

Embedding a million texts takes an hour of a core, always the same 3 ms each. So the semantic
service may find vectors in its cache that were drawn instead: it reads, writes and searches as
many as ever, and only what it finds means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.probe import Figures
from forage import wire
from forage.catalog.embedding_text import embed_text
from forage.catalog.schema import Schema
from forage.encoder import MiniLMEncoder
from forage.errors import FailedPreconditionError
from forage.log import Topic
from forage.log.sqlite import SqliteEventLog
from forage.vector_cache import VectorCache, Vectors

_PAGE = 5_000
_MARK = "embeddings.invented"


def fill(data: Path, schema: Schema, *, seed: int) -> Figures:
    """Put a unit vector of random direction into the cache for each text in the log of `data`."""
    (data / _MARK).touch()
    encoder = MiniLMEncoder()
    rng = np.random.default_rng(seed)
    cache = VectorCache(data / "embeddings.db")
    began, drawn = time.monotonic(), 0
    try:
        for texts in _texts(data / "log.db", schema):
            cache.put(encoder.identity, texts, directions(rng, len(texts), encoder.dimension))
            drawn += len(texts)
    finally:
        cache.close()
    return {"invented_vectors": drawn, "invented_s": time.monotonic() - began}


def refuse(data: Path) -> None:
    """Raise `FailedPreconditionError` if `data` has drawn vectors where real ones are wanted."""
    if (data / _MARK).exists():
        raise FailedPreconditionError(
            f"{data} has invented vectors: give --invented-vectors, or delete the folder"
        )


def directions(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    """Return unit vectors that point anywhere with the same probability."""
    drawn = rng.standard_normal((count, dimension), dtype=np.float32)
    unit: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _texts(log_file: Path, schema: Schema) -> Iterator[list[str]]:
    """Yield what the semantic service would embed, page by page."""
    log, after = SqliteEventLog.open(log_file, read_only=True), 0
    try:
        while records := log.read(Topic.CATALOG, after, _PAGE):
            after = records[-1].sequence
            items = (wire.catalog_change(record)[1] for record in records)
            texts = [embed_text(item, schema) for item in items if item]
            yield [text for text in texts if text]
    finally:
        log.close()

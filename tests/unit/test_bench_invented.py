"""Vectors that are drawn: the semantic service finds one for everything it would embed."""

from pathlib import Path

import numpy as np
import pytest

from bench import invented, stages
from bench.catalogs import Catalog
from forage import wire
from forage.catalog.embedding_text import embed_text
from forage.catalog.schema import Schema
from forage.encoder import MiniLMEncoder
from forage.errors import FailedPreconditionError
from forage.log import Topic
from forage.log.sqlite import SqliteEventLog
from forage.vector_cache import VectorCache

ITEMS = 100


@pytest.fixture
def run(tmp_path, pytestconfig):
    config = pytestconfig.rootpath / "config"
    made = stages.Run(
        Catalog(ITEMS), config, tmp_path, searches=1, limit_s=60, milvus={}, invented=True
    )
    stages.write_log(made)
    return made


def embedded_texts(run: stages.Run) -> list[str]:
    """Return the texts of the items as the semantic service has them of the log."""
    schema = Schema.load(run.config / "films.schema.yaml")
    log = SqliteEventLog.open(run.data / "log.db", read_only=True)
    try:
        items = [wire.catalog_change(r)[1] for r in log.read(Topic.CATALOG, 0, 2 * ITEMS)]
    finally:
        log.close()
    return [embed_text(item, schema) for item in items if item]


def cached(folder: Path, texts: list[str]) -> list[np.ndarray | None]:
    cache = VectorCache(folder / "embeddings.db")
    try:
        return cache.get(MiniLMEncoder().identity, texts, 384)
    finally:
        cache.close()


def test_every_text_of_the_catalogue_has_a_unit_vector(run):
    texts = embedded_texts(run)
    assert cached(run.data, texts) == [None] * ITEMS

    figures = stages.invent(run)

    assert figures["invented_vectors"] == ITEMS
    norms = [np.linalg.norm(vector) for vector in cached(run.data, texts)]
    assert norms == pytest.approx([1.0] * ITEMS, abs=1e-5)


def test_where_vectors_were_drawn_real_ones_are_not_measured(run):
    invented.refuse(run.data)

    stages.invent(run)

    with pytest.raises(FailedPreconditionError, match="--invented-vectors"):
        invented.refuse(run.data)


def test_directions_are_repeatable_and_favour_none():
    drawn = invented.directions(np.random.default_rng(7), 20_000, 16)

    assert (drawn == invented.directions(np.random.default_rng(7), 20_000, 16)).all()
    # A unit vector's numbers have the variance 1/16; their mean has a deviation of 0.25 / 141.
    assert np.abs(drawn.mean(axis=0)).max() < 5 * 0.25 / 20_000**0.5
    assert drawn.var(axis=0) == pytest.approx(1 / 16, rel=0.05)

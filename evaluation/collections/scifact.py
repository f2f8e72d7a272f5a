"""SciFact (Wadden et al., 2020): claims, and the abstracts that support or refute them."""

from __future__ import annotations

from pathlib import Path

from evaluation.collections.beir import assemble, documents, qrels, queries
from evaluation.collections.collection import Collection
from evaluation.collections.files import first_of, schema

_PARTS = ("train", "test")


def load(data: Path) -> Collection:
    """Read the 5,183 abstracts and the 809 training and 300 test claims with evidence."""
    folder = data / "scifact"
    return assemble(
        "scifact",
        schema("documents"),
        documents(first_of(folder, "corpus.jsonl")),
        queries(*(first_of(folder, f"queries_{part}.jsonl") for part in _PARTS)),
        {part: qrels(first_of(folder, f"qrels_{part}.tsv")) for part in _PARTS},
    )

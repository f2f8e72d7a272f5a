"""The semantic generator on a server, as these tests open it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient

from forage.encoder import CachedEncoder, VectorCache
from forage.services import Runtime
from generators.semantic.retriever import SemanticRetriever
from generators.semantic.settings import SemanticSettings
from tests.contract.semantic_contract import shared_encoder


def prefix(data_dir: Path) -> str:
    """Return the prefix of the collections of one bench, the same after a restart."""
    return f"test_{zlib.crc32(str(data_dir).encode()):08x}"


def open_semantic(
    uri: str, data_dir: Path, runtime: Runtime, milvus: Mapping[str, Any] | None = None, **more: Any
) -> SemanticRetriever:
    vectors = VectorCache(data_dir / "embeddings.db")
    encoder = CachedEncoder(shared_encoder(), vectors)
    settings = SemanticSettings.model_validate(
        {
            "data_dir": data_dir,
            "milvus": {"uri": uri, "collection": prefix(data_dir), **(milvus or {})},
            **more,
        }
    )
    return SemanticRetriever(settings, runtime, encoder, vectors)


def collections(uri: str, data_dir: Path) -> list[str]:
    client = MilvusClient(uri, dedicated=True)
    try:
        return [n for n in client.list_collections() if n.startswith(prefix(data_dir))]
    finally:
        client.close()


def drop(uri: str, data_dir: Path) -> None:
    """Drop the collections of one bench."""
    client = MilvusClient(uri, dedicated=True)
    for name in client.list_collections():
        if name.startswith(prefix(data_dir)):
            client.drop_collection(name)
    client.close()

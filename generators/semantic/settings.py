"""What the semantic generator can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from forage.settings import GeneratorSettings, Settings
from generators.milvus.settings import MilvusSettings


class EncoderSettings(Settings):
    """The sentence encoder."""

    model: Path | None = None
    """A local ONNX sentence model; unset: MiniLM int8."""
    tokenizer: Path | None = None
    """Its Hugging Face `tokenizer.json`; set exactly if `model` is."""
    max_tokens: int = Field(default=128, ge=2, le=8192)
    """Tokens of a text that count."""
    threads: int = Field(default=2, ge=1, le=64)
    """Threads that embed the catalogue; a query always takes one."""
    cached_queries: int = Field(default=4096, ge=1, le=1_000_000)
    """Query vectors kept in memory."""

    @model_validator(mode="after")
    def _files_agree(self) -> EncoderSettings:
        if (self.model is None) != (self.tokenizer is None):
            raise ValueError("model and tokenizer must be set together")
        return self


class SemanticMilvusSettings(MilvusSettings):
    """The collection of vectors and its index."""

    uri: str = "semantic/milvus.db"
    """A file below `data_dir` for Milvus Lite, or a server: `http://HOST:19530`, `https://…`."""
    index: Literal[
        "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "HNSW", "SCANN", "DISKANN", "AUTOINDEX"
    ] = "FLAT"
    """Milvus Lite has FLAT, IVF_FLAT and AUTOINDEX; DISKANN depends on the server's machine."""
    index_params: dict[str, int] = Field(default_factory=dict)
    """Such as `M` and `efConstruction` of HNSW; what is missing has a usual value."""
    search_params: dict[str, int] = Field(default_factory=dict)
    """Such as `ef` of HNSW; what is missing has a usual value."""
    metric: Literal["IP", "COSINE", "L2"] = "IP"
    """How Milvus compares; the vectors have unit length, so all three give the same order."""
    over_fetch: int = Field(default=4, ge=1, le=64)
    """Multiplies the breadth of a filtered search in an index that is not exact."""
    exact_rows: int = Field(default=2_000, ge=0, le=16_000)
    """If such a search still finds too few, and no more items than these satisfy the filter, they
    are compared one by one."""
    shards: int = Field(default=1, ge=1, le=16)
    """Parts that a new collection is written in."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Copies that query nodes of a cluster hold in memory."""


class SemanticSettings(GeneratorSettings):
    """Settings of the semantic service."""

    encoder: EncoderSettings = EncoderSettings()
    milvus: SemanticMilvusSettings = SemanticMilvusSettings()
    role: Literal["index", "serve", "both"] = "both"
    """What this process does on a Milvus server: embed and write, answer searches, or both. At most
    one process writes at a time, by lease. Milvus Lite belongs to one process, which does both."""
    like_weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of the example items' mean against 1 for the words."""
    history_weight: float = Field(default=0.1, ge=0, le=100)
    """Weight of what the user engaged with lately against 1 for the words; 0: ignore it."""
    history_decay: float = Field(default=0.8, gt=0, le=1)
    """Each older item of the history counts this much of the one after it."""
    history_items: int = Field(default=10, ge=1, le=100)
    """Items of the history that count, and example items that count."""
    cached_vectors: int = Field(default=2_000, ge=1, le=1_000_000)
    """Vectors of example and history items kept in memory."""
    min_confidence: float = Field(default=0.5, gt=0, le=1)
    """Readings this likely replace misspelt words by the name that was meant."""
